//! `/proc/self/fd/N` on the stack.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use hull_sys::Errno;

/// The path of a descriptor, for calls that take no descriptor. Only while `/proc` is the host's.
pub(crate) struct FdPath([u8; 32]);

impl FdPath {
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Self {
        const PREFIX: &[u8] = b"/proc/self/fd/";
        let mut text = [0u8; 32];
        let mut digits = [0u8; 10];
        let mut number = fd.as_raw_fd().unsigned_abs();
        let mut count = 0;
        for digit in &mut digits {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            count += 1;
            if number == 0 {
                break;
            }
        }
        let all = PREFIX.iter().chain(digits.iter().take(count).rev());
        for (to, from) in text.iter_mut().zip(all) {
            *to = *from;
        }
        Self(text)
    }

    pub(crate) fn as_c_str(&self) -> hull_sys::Result<&std::ffi::CStr> {
        std::ffi::CStr::from_bytes_until_nul(&self.0).map_err(|_| Errno::INVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn fd_path_is_the_decimal_number() {
        let file = std::fs::File::open("/dev/null").expect("open");
        let high = rustix::io::fcntl_dupfd_cloexec(&file, 120).expect("dup");
        let path = FdPath::new(high.as_fd());
        let expected = format!("/proc/self/fd/{}", high.as_raw_fd());
        assert_eq!(
            path.as_c_str().expect("text").to_str(),
            Ok(expected.as_str())
        );
    }
}

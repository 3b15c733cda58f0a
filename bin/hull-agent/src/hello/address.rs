//! IPv4 addresses of this network namespace, asked of the kernel by netlink (rtnetlink(7)).

use std::net::Ipv4Addr;

use hull_sys::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const AF_INET: u8 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;

/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_BYTES: usize = 8;
/// More than the kernel puts into one part of a dump.
const BUFFER_BYTES: usize = 32 * 1024;
/// The kernel's errors are 1 to this.
const MAX_ERRNO: i32 = 4095;
/// Parts of a dump read at most.
const MAX_PARTS: usize = 64;

/// The addresses beside the loopback's, as `172.17.0.2/16 (eth0)`.
pub(crate) fn read() -> Result<Vec<String>, Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut list = Vec::new();
    let mut buffer = vec![0u8; BUFFER_BYTES];
    for _ in 0..MAX_PARTS {
        let (count, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if part(buffer.get(..count).unwrap_or_default(), &mut list)? {
            break;
        }
    }
    Ok(list)
}

fn request() -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + ADDRESS_BYTES).unwrap_or_default();
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&RTM_GETADDR.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Sequence and port: one question on a socket of its own needs neither.
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// Reads the messages of one part; whether it is the last.
fn part(mut bytes: &[u8], list: &mut Vec<String>) -> Result<bool, Errno> {
    while let Some((length, kind)) = u32_at(bytes, 0).zip(u16_at(bytes, 4)) {
        let length = usize::try_from(length).unwrap_or(0);
        let Some(body) = bytes.get(HEADER_BYTES..length) else {
            return Err(Errno::BADMSG);
        };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(body, 0).unwrap_or(0).cast_signed();
                return match code.checked_neg() {
                    Some(0) => Ok(true),
                    Some(errno) if (1..=MAX_ERRNO).contains(&errno) => {
                        Err(Errno::from_raw_os_error(errno))
                    }
                    _ => Err(Errno::BADMSG),
                };
            }
            RTM_NEWADDR => list.extend(entry(body)),
            _ => {}
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

fn entry(body: &[u8]) -> Option<String> {
    let prefix = *body.get(1)?;
    let mut rest = body.get(ADDRESS_BYTES..)?;
    let (mut address, mut label) = (None, String::new());
    while let Some((length, kind)) = u16_at(rest, 0).zip(u16_at(rest, 2)) {
        let length = usize::from(length);
        let value = rest.get(4..length)?;
        match kind {
            // On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL is always ours.
            IFA_LOCAL => address = ipv4(value).or(address),
            IFA_ADDRESS => address = address.or(ipv4(value)),
            IFA_LABEL => {
                label = String::from_utf8_lossy(value)
                    .trim_end_matches('\0')
                    .to_owned()
            }
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    let address = address.filter(|address| !address.is_loopback())?;
    Some(format!("{address}/{prefix} ({label})"))
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_own_namespace_answers() {
        let list = read().expect("addresses");
        assert!(list.iter().all(|text| text.contains('/')), "{list:?}");
    }

    #[test]
    fn part_truncated_or_wrong_lengths_never_panic() {
        let mut message = request();
        message[4..6].copy_from_slice(&RTM_NEWADDR.to_ne_bytes());
        message.extend_from_slice(&[8, 0, 2, 0, 10, 0, 0, 7]);
        message[0] = message.len() as u8;
        let mut list = Vec::new();
        assert_eq!(part(&message, &mut list), Ok(false));
        assert_eq!(list, ["10.0.0.7/0 ()"]);
        for end in 0..message.len() {
            let _ = part(&message[..end], &mut Vec::new());
            for byte in 0..=255 {
                let mut damaged = message.clone();
                damaged[end] = byte;
                let _ = part(&damaged, &mut Vec::new());
            }
        }
    }
}

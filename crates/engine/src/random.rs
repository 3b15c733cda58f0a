//! Random ids and numbers from the kernel.

/// 64 random bits.
pub(crate) fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// 64 random hex digits whose first twelve are not all decimal digits, so that a short id is
/// never taken for a number.
pub(crate) fn id() -> String {
    loop {
        let mut bytes = [0; 32];
        fill(&mut bytes);
        let id = hull_model::Digest::from_bytes(bytes).hex();
        if id.bytes().take(12).any(|b| !b.is_ascii_digit()) {
            return id;
        }
    }
}

fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while let Some(rest @ [_, ..]) = bytes.get_mut(filled..) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            // Only a signal can interrupt it.
            Err(_) => std::thread::yield_now(),
        }
    }
}

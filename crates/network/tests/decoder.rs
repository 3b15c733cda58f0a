//! The netlink decoder meets arbitrary bytes: it may refuse them, never panic, never run on.

use hull_network::netlink::{Attributes, Messages, ipv4, text, u16_at, u32_at};

/// xorshift64: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it fits")
    }
}

fn visit(bytes: &[u8], depth: usize) -> usize {
    let mut seen = 0;
    for attribute in Attributes::new(bytes) {
        seen += 1;
        let Ok((kind, value)) = attribute else { break };
        assert!(value.len() < bytes.len());
        let _ = (
            u16_at(value, 0),
            u32_at(value, kind.into()),
            ipv4(value),
            text(value),
        );
        if depth < 8 {
            seen += visit(value, depth + 1);
        }
    }
    seen
}

fn read_all(bytes: &[u8]) {
    let mut count = 0;
    for message in Messages::new(bytes) {
        count += 1;
        assert!(
            count <= bytes.len() / 16 + 1,
            "each message takes its header at least"
        );
        let Ok(message) = message else { continue };
        assert!(message.body.len() <= bytes.len());
        visit(message.body, 0);
        let found = Attributes::after(message.body, 16).find(3);
        assert!(found.is_none_or(|value| value.len() <= bytes.len()));
    }
    assert!(visit(bytes, 0) <= bytes.len() * 9 + 1);
}

#[test]
fn decoder_of_random_bytes_never_panics() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..200_000 {
        let length = random.below(200);
        let bytes: Vec<u8> = (0..length)
            .map(|_| random.next().to_le_bytes()[3])
            .collect();
        read_all(&bytes);
    }
}

#[test]
fn decoder_of_damaged_messages_never_panics() {
    // A message with two attributes, one of which holds another, and lengths that are nearly right.
    let mut good = Vec::new();
    good.extend_from_slice(&44_u32.to_ne_bytes());
    good.extend_from_slice(&[16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    good.extend_from_slice(&[8, 0, 3, 0, b'l', b'o', 0, 0]);
    good.extend_from_slice(&[
        20, 0, 18, 128, 16, 0, 1, 0, 8, 0, 2, 0, 1, 2, 3, 4, 0, 0, 0, 0,
    ]);
    let mut random = Random(7);
    for _ in 0..200_000 {
        let mut bytes = good.repeat(1 + random.below(3));
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = random.next().to_le_bytes()[1] & [0xff, 0x1f, 0x03][random.below(3)];
        }
        bytes.truncate(random.below(bytes.len() + 1));
        read_all(&bytes);
    }
}

#[test]
fn decoder_of_zero_and_short_lengths_ends() {
    for length in 0..20_u32 {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.resize(64, 0);
        assert!(Messages::new(&bytes).take(100).count() < 100);
        assert!(Attributes::new(&bytes).take(100).count() < 100);
    }
}

//! Messages of DNS: questions of containers, replies of foreign servers.

use hull_network::dns::seam::{Made, Names, passed_on};

/// What a client without EDNS takes, and what none is sent more than, by datagram.
const CLASSIC: usize = 512;
const LARGEST: usize = 4096;

/// A question: the quick way and the other make the same of it, and the reply fits.
pub(crate) fn question(data: &[u8]) {
    let names = Names::default();
    for datagram in [true, false] {
        let made = names.ask(data, datagram);
        assert_eq!(made, names.ask_slowly(data, datagram), "{data:?}");
        let Made::Reply(reply) = made else {
            continue;
        };
        // An answer to this question, and an answer.
        assert_eq!(reply.get(..2), data.get(..2), "{data:?}");
        assert!(reply.len() >= 12 && reply[2] & 0x80 != 0, "{reply:?}");
        assert!(data.get(2).is_some_and(|flags| flags & 0x80 == 0));
        if datagram {
            // Without an additional record nobody has said that he takes more.
            let plain = data.get(10..12) == Some(&[0, 0]);
            let longest = if plain { CLASSIC } else { LARGEST };
            assert!(reply.len() <= longest, "{} bytes to {data:?}", reply.len());
        }
        // It is no question to another server of ours.
        assert_eq!(names.ask(&reply, datagram), Made::Nothing);
    }
}

/// A reply, behind the question that it answers: what is passed on fits, and is an answer.
pub(crate) fn reply(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else {
        return;
    };
    let Some((question, reply)) = rest.split_at_checked(usize::from(*length)) else {
        return;
    };
    let Some(sent) = passed_on(question, reply) else {
        return;
    };
    assert_eq!(sent.get(..2), question.get(..2));
    assert!(sent.get(2).is_some_and(|flags| flags & 0x80 != 0));
    assert!(sent.len() <= reply.len().max(LARGEST));
}

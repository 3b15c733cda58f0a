//! Tests of the frames.

use super::*;
use crate::guest::{
    GuestCall, GuestEvent, GuestMessage, GuestRequest, MAX_CALL, MAX_REPLY, Prepare,
};

fn stream(session: u32, channel: Channel) -> StreamId {
    StreamId::new(session, channel)
}

/// What a decoder said, owned.
#[derive(Debug, PartialEq)]
enum Got {
    Message(Vec<u8>),
    Data(StreamId, Vec<u8>),
    Credit(StreamId, u32),
    End(StreamId),
    Stop(StreamId),
}

fn take(decoder: &mut Decoder, got: &mut Vec<Got>) -> Result<(), WireError> {
    while let Some(frame) = decoder.next_frame()? {
        got.push(match frame {
            Frame::Message(json) => Got::Message(json.to_vec()),
            Frame::Data(stream, bytes) => Got::Data(stream, bytes.to_vec()),
            Frame::Credit(stream, bytes) => Got::Credit(stream, bytes),
            Frame::End(stream) => Got::End(stream),
            Frame::Stop(stream) => Got::Stop(stream),
        });
    }
    Ok(())
}

fn all_kinds() -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, &"text", MAX_CALL).unwrap();
    put_data(&mut out, stream(0, Channel::Stdin), b"abc");
    put_credit(&mut out, stream(7, Channel::Stdout), 4096);
    put_end(&mut out, stream(MAX_SESSIONS - 1, Channel::Stderr));
    put_stop(&mut out, stream(1, Channel::Stdin));
    out
}

#[test]
fn frames_split_at_every_byte_are_whole_again() {
    let bytes = all_kinds();
    let expected = [
        Got::Message(b"\"text\"".to_vec()),
        Got::Data(stream(0, Channel::Stdin), b"abc".to_vec()),
        Got::Credit(stream(7, Channel::Stdout), 4096),
        Got::End(stream(MAX_SESSIONS - 1, Channel::Stderr)),
        Got::Stop(stream(1, Channel::Stdin)),
    ];
    for cut in 0..bytes.len() {
        let (mut decoder, mut got) = (Decoder::new(MAX_CALL), Vec::new());
        for part in [&bytes[..cut], &bytes[cut..]] {
            decoder.push(part);
            take(&mut decoder, &mut got).unwrap();
        }
        assert_eq!(got, expected);
        assert_eq!(decoder.waiting(), 0);
    }
}

#[test]
fn put_data_long_is_several_frames() {
    let data: Vec<u8> = (0..MAX_DATA * 2 + 5).map(|n| n as u8).collect();
    let mut out = Vec::new();
    put_data(&mut out, stream(2, Channel::Stderr), &data);
    let (mut decoder, mut got) = (Decoder::new(MAX_REPLY), Vec::new());
    decoder.push(&out);
    take(&mut decoder, &mut got).unwrap();
    let mut joined = Vec::new();
    for part in &got {
        let Got::Data(from, bytes) = part else {
            panic!("{part:?}")
        };
        assert_eq!(*from, stream(2, Channel::Stderr));
        joined.extend_from_slice(bytes);
    }
    assert_eq!(got.len(), 3);
    assert!(joined == data);
    put_data(&mut out, stream(2, Channel::Stderr), b"");
    assert_eq!(out.len(), data.len() + 3 * HEADER);
}

#[test]
fn messages_are_read_as_they_were_written() {
    let call = GuestCall {
        seq: 9,
        request: GuestRequest::Prepare(Box::new(Prepare {
            clock_ns: 5,
            entropy: vec![1, 2],
            ..Prepare::default()
        })),
    };
    let event = GuestMessage::Event(GuestEvent::Ended {
        session: 3,
        code: 137,
    });
    let mut out = Vec::new();
    put_message(&mut out, &call, MAX_CALL).unwrap();
    put_message(&mut out, &event, MAX_REPLY).unwrap();
    let mut decoder = Decoder::new(MAX_CALL);
    decoder.push(&out);
    let Some(Frame::Message(json)) = decoder.next_frame().unwrap() else {
        panic!("no message")
    };
    let got: GuestCall = parse(json).unwrap();
    assert_eq!(got.seq, 9);
    assert!(matches!(got.request, GuestRequest::Prepare(prepare) if prepare.clock_ns == 5));
    let Some(Frame::Message(json)) = decoder.next_frame().unwrap() else {
        panic!("no message")
    };
    let got: GuestMessage = parse(json).unwrap();
    assert!(matches!(
        got,
        GuestMessage::Event(GuestEvent::Ended {
            session: 3,
            code: 137
        })
    ));
}

#[test]
fn put_message_too_large_leaves_what_was_there() {
    let mut out = b"before".to_vec();
    let text = "x".repeat(MAX_REPLY);
    assert!(matches!(
        put_message(&mut out, &text, MAX_REPLY),
        Err(WireError::TooLarge { .. })
    ));
    assert_eq!(out, b"before");
}

#[test]
fn header_that_breaks_a_rule_is_refused_before_its_body_comes() {
    let head = |kind: u8, stream: u32, length: u32| {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(stream.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes
    };
    let mut reserved = head(MESSAGE, 0, 1);
    reserved[2] = 1;
    for bytes in [
        head(0, 0, 0),
        head(6, 0, 0),
        head(255, 0, 0),
        reserved,
        head(MESSAGE, 1, 1),
        head(MESSAGE, 0, 0),
        head(MESSAGE, 0, MAX_REPLY as u32 + 1),
        head(MESSAGE, 0, u32::MAX),
        head(DATA, 3, 1),
        head(DATA, MAX_SESSIONS << 2, 1),
        head(DATA, u32::MAX, 1),
        head(DATA, 0, 0),
        head(DATA, 0, MAX_DATA as u32 + 1),
        head(CREDIT, 0, 3),
        head(CREDIT, 0, 5),
        head(END, 0, 1),
        head(STOP, 0, 1),
    ] {
        let mut decoder = Decoder::new(MAX_REPLY);
        decoder.push(&bytes);
        assert!(decoder.next_frame().is_err(), "{bytes:?}");
        // Nothing more is kept of one who broke a rule.
        decoder.push(&[0; 4096]);
        assert_eq!(decoder.waiting(), 0);
        assert!(matches!(decoder.next_frame(), Ok(None)));
    }
}

#[test]
fn credit_above_the_limit_stays_above_it() {
    let mut out = Vec::new();
    put_credit(&mut out, stream(1, Channel::Stdin), u32::MAX);
    let mut decoder = Decoder::new(MAX_REPLY);
    decoder.push(&out);
    let Ok(Some(Frame::Credit(id, bytes))) = decoder.next_frame() else {
        panic!("no credit")
    };
    assert!(crate::guest::Sending::default().granted(id, bytes).is_err());
}

#[test]
fn decoder_room_shrinks_after_a_large_message() {
    let mut out = Vec::new();
    put_message(&mut out, &"x".repeat(4 << 20), MAX_CALL).unwrap();
    let mut decoder = Decoder::new(MAX_CALL);
    for part in out.chunks(4096) {
        decoder.push(part);
    }
    assert!(matches!(decoder.next_frame(), Ok(Some(_))));
    decoder.push(b"");
    assert!(decoder.buffer.capacity() <= KEPT_ROOM);
}

#[test]
fn parse_noise_is_an_error() {
    for json in [
        "",
        "null",
        "[]",
        "{",
        "{\"seq\":-1,\"request\":\"stats\"}",
        "{\"seq\":1}",
    ] {
        assert!(parse::<GuestCall>(json.as_bytes()).is_err(), "{json}");
    }
    let deep = "[".repeat(100_000);
    assert!(parse::<GuestCall>(deep.as_bytes()).is_err());
}

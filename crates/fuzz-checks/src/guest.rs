//! The channel between a shim and the agent of its guest, from the side of whoever reads it.

use std::collections::BTreeMap;

use hull_proto::guest::{
    Decoder, Frame, GuestCall, GuestMessage, MAX_CALL, MAX_CREDIT, MAX_DATA, MAX_REPLY,
    MAX_SESSIONS, Receiving, Sending, StreamId, wire,
};

/// Frames: however the bytes arrive, they are the same frames, within the limits; written again
/// they are the same bytes.
pub(crate) fn frames(data: &[u8]) {
    let (whole, good) = decode(data, usize::MAX);
    let step = usize::from(data.first().copied().unwrap_or_default()) + 1;
    assert!(decode(data, step) == (whole.clone(), good));
    // Credit of four zero bytes more than the limit is cut to it: then they are not the same.
    if good.is_some() {
        assert!(data.starts_with(&whole));
    }
}

/// What was decoded, written again; none where a number was cut or the peer broke a rule.
fn decode(data: &[u8], step: usize) -> (Vec<u8>, Option<()>) {
    let mut decoder = Decoder::new(MAX_REPLY);
    let (mut out, mut good) = (Vec::new(), Some(()));
    let mut receiving = BTreeMap::<StreamId, Receiving>::new();
    let mut sending = BTreeMap::<StreamId, Sending>::new();
    for part in data.chunks(step.min(data.len().max(1))) {
        decoder.push(part);
        loop {
            let frame = match decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => {
                    assert!(decoder.waiting() == 0, "kept what is of no use");
                    return (out, None);
                }
            };
            match frame {
                Frame::Message(json) => {
                    assert!(json.len() <= MAX_REPLY && !json.is_empty());
                    header(&mut out, 1, json);
                    let _ = wire::parse::<GuestMessage>(json);
                }
                Frame::Data(stream, bytes) => {
                    assert!(bytes.len() <= MAX_DATA && !bytes.is_empty());
                    assert!(stream.session < MAX_SESSIONS);
                    wire::put_data(&mut out, stream, bytes);
                    let credit = receiving.entry(stream).or_default();
                    if credit.received(stream, bytes.len()).is_ok() {
                        let more = credit.taken(bytes.len());
                        assert!(more.is_none_or(|more| more <= MAX_CREDIT));
                    }
                }
                Frame::Credit(stream, bytes) => {
                    if bytes > MAX_CREDIT {
                        good = None;
                    }
                    wire::put_credit(&mut out, stream, bytes);
                    let credit = sending.entry(stream).or_default();
                    let accepted = credit.granted(stream, bytes).is_ok();
                    assert!(!accepted || bytes <= MAX_CREDIT);
                    assert!(credit.available() <= MAX_CREDIT as usize);
                }
                Frame::End(stream) => wire::put_end(&mut out, stream),
                Frame::Stop(stream) => wire::put_stop(&mut out, stream),
            }
        }
        assert!(decoder.waiting() <= wire::HEADER + MAX_REPLY);
    }
    (out, good)
}

fn header(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
}

/// A message written again, and what it says.
type Written = Option<(Vec<u8>, String)>;

/// Control messages of either side: what is understood is written and understood the same.
pub(crate) fn messages(data: &[u8]) {
    let reply = |json: &[u8]| -> Written {
        let message: GuestMessage = wire::parse(json).ok()?;
        let mut out = Vec::new();
        wire::put_message(&mut out, &message, MAX_REPLY).ok()?;
        Some((out, format!("{message:?}")))
    };
    let call = |json: &[u8]| -> Written {
        let call: GuestCall = wire::parse(json).ok()?;
        let mut out = Vec::new();
        wire::put_message(&mut out, &call, MAX_CALL).ok()?;
        Some((out, format!("{call:?}")))
    };
    again(data, &reply, MAX_REPLY);
    again(data, &call, MAX_CALL);
}

fn again(data: &[u8], write: &dyn Fn(&[u8]) -> Written, limit: usize) {
    let Some((out, said)) = write(data) else {
        return;
    };
    let mut decoder = Decoder::new(limit);
    decoder.push(&out);
    let Ok(Some(Frame::Message(json))) = decoder.next_frame() else {
        panic!("a message of our own is none")
    };
    let (_, again) = write(json).expect("a message of our own is understood");
    assert_eq!(said, again);
}

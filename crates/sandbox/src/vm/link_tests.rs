//! The channel with an agent made of bytes, friendly and not.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hull_proto::guest::{Channel, Hello, INITIAL_CREDIT, StreamId};

use super::*;

const PID: u32 = 77;

struct World {
    link: Link,
    poller: Poller,
    agent: UnixStream,
    buffer: Vec<u8>,
}

fn world() -> World {
    let (ours, agent) = UnixStream::pair().unwrap();
    agent.set_nonblocking(true).unwrap();
    let mut poller = Poller::new().unwrap();
    let link = Link::new(ours.into(), &mut poller).unwrap();
    World {
        link,
        poller,
        agent,
        buffer: vec![0; 32 << 10],
    }
}

fn hello() -> Vec<u8> {
    let hello = GuestMessage::Hello(Hello {
        version: VERSION,
        ..Hello::default()
    });
    message(&hello)
}

fn message(message: &GuestMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::put_message(&mut bytes, message, MAX_REPLY).unwrap();
    bytes
}

fn event(event: GuestEvent) -> Vec<u8> {
    message(&GuestMessage::Event(event))
}

impl World {
    /// The agent says this; what the link makes of it.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.agent.write_all(bytes).unwrap();
        self.turn()
    }

    fn turn(&mut self) -> Result<(), Broken> {
        self.link.flush(&self.poller)?;
        let events = self.poller.wait(Some(Duration::from_millis(20))).unwrap();
        for (token, flags) in events {
            self.link
                .ready(token, flags, &mut self.buffer, &self.poller)?;
        }
        self.link.flush(&self.poller)
    }

    /// What the agent was sent.
    fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.agent.read_to_end(&mut bytes);
        bytes
    }

    fn open(&mut self, session: u32, terminal: bool) -> Streams {
        let stdio = Stdio::Connected { stdin: true };
        self.link
            .open(session, PID + session, stdio, terminal, &mut self.poller)
            .unwrap()
    }
}

fn data(stream: StreamId, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_data(&mut out, stream, bytes);
    out
}

fn end(stream: StreamId) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_end(&mut out, stream);
    out
}

fn stdout(session: u32) -> StreamId {
    StreamId::new(session, Channel::Stdout)
}

#[test]
fn output_and_end_reach_the_pipe_and_the_session_is_free_again() {
    let mut world = world();
    world.hear(&hello()).unwrap();
    let streams = world.open(1, false);
    let mut bytes = data(stdout(1), b"hi\n");
    bytes.extend(end(stdout(1)));
    bytes.extend(end(StreamId::new(1, Channel::Stderr)));
    bytes.extend(event(GuestEvent::Ended {
        session: 1,
        code: 3,
    }));
    world.hear(&bytes).unwrap();
    let mut text = String::new();
    let mut pipe = std::fs::File::from(streams.stdout.unwrap());
    pipe.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hi\n");
    let (session, pid, code) = (1, PID + 1, 3);
    assert_eq!(world.link.news(), Some(News::Ended { session, pid, code }));
    assert_eq!(world.link.free_session(), Some(1));
}

#[test]
fn input_goes_to_the_guest_within_its_credit() {
    let mut world = world();
    world.hear(&hello()).unwrap();
    let streams = world.open(0, false);
    let mut stdin = std::fs::File::from(streams.stdin.unwrap());
    rustix::io::ioctl_fionbio(&stdin, true).unwrap();
    let mut written = 0;
    let mut taken = 0;
    for _ in 0..64 {
        written += stdin.write(&[b'x'; 8192]).unwrap_or(0);
        world.turn().unwrap();
        taken += world.sent().len();
    }
    assert!(written > INITIAL_CREDIT as usize);
    // Headers of frames come on top of what there was credit for.
    let most = INITIAL_CREDIT as usize + 64 * wire::HEADER;
    assert!((INITIAL_CREDIT as usize..=most).contains(&taken), "{taken}");
    let mut credit = Vec::new();
    wire::put_credit(&mut credit, StreamId::new(0, Channel::Stdin), 1000);
    world.hear(&credit).unwrap();
    world.turn().unwrap();
    assert!(world.sent().len() >= 1000);
}

#[test]
fn slow_reader_of_one_stream_keeps_what_there_was_credit_for_and_no_more() {
    let mut world = world();
    world.hear(&hello()).unwrap();
    let streams = world.open(1, true);
    let flood = vec![b'y'; INITIAL_CREDIT as usize];
    for part in flood.chunks(32 << 10) {
        world.hear(&data(stdout(1), part)).unwrap();
    }
    // The socket took some of it, for which there is credit again; then it is over.
    let mut rounds = 0;
    let broken = loop {
        rounds += 1;
        if let Err(broken) = world.hear(&data(stdout(1), &flood[..32 << 10])) {
            break broken;
        }
        world.sent();
        assert!(rounds < 100, "no end of it");
    };
    assert!(matches!(broken, Broken::Rule(WireError::Credit(_))));
    drop(streams);
}

#[test]
fn reader_that_is_gone_stops_the_stream() {
    let mut world = world();
    world.hear(&hello()).unwrap();
    drop(world.open(1, false));
    for _ in 0..4 {
        world.turn().unwrap();
    }
    let sent = world.sent();
    let mut decoder = Decoder::new(MAX_REPLY);
    decoder.push(&sent);
    let mut stopped = Vec::new();
    while let Some(frame) = decoder.next_frame().unwrap() {
        if let Frame::Stop(stream) = frame {
            stopped.push(stream.channel);
        }
    }
    stopped.sort_unstable();
    assert_eq!(stopped, [Channel::Stdout, Channel::Stderr]);
}

#[test]
fn agent_that_breaks_a_rule_ends_the_channel() {
    let long = (MAX_REPLY as u32 + 1).to_le_bytes();
    let mut too_long = vec![1, 0, 0, 0, 0, 0, 0, 0];
    too_long.extend(long);
    let mut twice = hello();
    twice.extend(hello());
    let other = message(&GuestMessage::Hello(Hello {
        version: VERSION + 1,
        ..Hello::default()
    }));
    let warning = event(GuestEvent::Warning("early".into()));
    for noise in [
        &[0xff; 64][..],
        &too_long,
        &twice,
        &other,
        &warning,
        &data(stdout(0), b"early"),
        b"\x01\0\0\0\0\0\0\0\x02\0\0\0{}",
    ] {
        let mut world = world();
        let _streams = world.open(0, false);
        assert!(world.hear(noise).is_err(), "{noise:?}");
    }
}

#[test]
fn agent_that_says_what_nobody_asked_for_is_not_kept() {
    let mut world = world();
    world.hear(&hello()).unwrap();
    for number in 0..2000u64 {
        let mut bytes = message(&GuestMessage::Reply {
            seq: number,
            reply: GuestReply::Done {
                warnings: vec!["x".repeat(100)],
            },
        });
        bytes.extend(event(GuestEvent::Warning("w".repeat(5000))));
        bytes.extend(event(GuestEvent::Oom { kills: number }));
        bytes.extend(event(GuestEvent::Ended {
            session: 9,
            code: 0,
        }));
        bytes.extend(data(stdout(9), b"nobody"));
        world.hear(&bytes).unwrap();
    }
    assert!(world.link.replies.is_empty());
    assert!(world.link.news.len() <= MAX_WARNINGS as usize + 1);
    let longest = world.link.news.iter().map(|news| match news {
        News::Warning(text) => text.len(),
        _ => 0,
    });
    assert!(longest.max().unwrap_or(0) <= MAX_TEXT + 4);
    assert_eq!(world.link.news.back(), Some(&News::Oom(1999)));
}

#[test]
fn call_is_answered_by_its_number_and_late_answers_are_dropped() {
    let mut world = world();
    world.hear(&hello()).unwrap();
    let (first, second) = (
        world.link.call(GuestRequest::Sync).unwrap(),
        world.link.call(GuestRequest::Sync).unwrap(),
    );
    world.link.give_up(first);
    for seq in [first, second] {
        let reply = GuestReply::Done { warnings: vec![] };
        world
            .hear(&message(&GuestMessage::Reply { seq, reply }))
            .unwrap();
    }
    assert!(world.link.reply(first).is_none());
    assert!(world.link.reply(second).is_some());
    assert!(world.link.reply(second).is_none());
}

#[test]
fn abandon_closes_the_pipes_after_what_had_come() {
    let mut world = world();
    world.hear(&hello()).unwrap();
    let streams = world.open(0, false);
    world.hear(&data(stdout(0), b"last words")).unwrap();
    assert_eq!(world.link.abandon(&world.poller), [PID]);
    let mut text = String::new();
    std::fs::File::from(streams.stdout.unwrap())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "last words");
}

#[test]
fn shorten_takes_what_moves_cursors_and_what_is_long() {
    assert_eq!(shorten("a\x1b[2Jb\r\u{7}".into()), "a [2Jb  ");
    assert!(shorten("ü".repeat(4000)).len() <= MAX_TEXT + 4);
}

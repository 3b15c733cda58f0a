//! The other end of an agent's channel, as a shim is one, and plans for it.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its own part"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hull_proto::LaunchPlan;
use hull_proto::guest::{
    Channel, Decoder, Frame, GuestCall, GuestEvent, GuestExec, GuestLaunch, GuestMessage,
    GuestReply, GuestRequest, GuestStdio, Hello, MAX_CALL, MAX_REPLY, Processes, Receiving,
    Sending, StreamId, VERSION, wire,
};
use hull_proto::plan::{
    CgroupPlan, MountKind, MountOptions, Namespaces, PlanDevice, PlanMount, ProcessPlan, RootFs,
};
use hull_sys::caps;

/// A guest that says nothing for so long is stuck: emulated ones are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shim's end of a channel.
pub struct Peer {
    stream: UnixStream,
    decoder: Decoder,
    seq: u64,
    pub hello: Option<Hello>,
    replies: BTreeMap<u64, GuestReply>,
    pub output: BTreeMap<StreamId, Vec<u8>>,
    pub over: BTreeSet<StreamId>,
    pub stopped: BTreeSet<StreamId>,
    pub ended: BTreeMap<u32, i32>,
    pub events: Vec<GuestEvent>,
    receiving: BTreeMap<StreamId, Receiving>,
    sending: BTreeMap<StreamId, Sending>,
    /// Sessions whose output is not taken: they get no credit.
    pub slow: BTreeSet<u32>,
}

impl Peer {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self {
            stream,
            decoder: Decoder::new(MAX_REPLY),
            seq: 0,
            hello: None,
            replies: BTreeMap::new(),
            output: BTreeMap::new(),
            over: BTreeSet::new(),
            stopped: BTreeSet::new(),
            ended: BTreeMap::new(),
            events: Vec::new(),
            receiving: BTreeMap::new(),
            sending: BTreeMap::new(),
            slow: BTreeSet::new(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// Reads once; false at the end of the channel.
    pub fn pump(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
            Err(error) => panic!("nothing from the agent: {error}"),
        };
        self.decoder.push(&buffer[..count]);
        let mut answer = Vec::new();
        while let Some(frame) = self.decoder.next_frame().expect("a good frame") {
            match frame {
                Frame::Message(json) => match wire::parse(json).expect("a message") {
                    GuestMessage::Hello(hello) => self.hello = Some(hello),
                    GuestMessage::Reply { seq, reply } => {
                        assert!(self.replies.insert(seq, reply).is_none());
                    }
                    GuestMessage::Event(GuestEvent::Ended { session, code }) => {
                        assert!(self.ended.insert(session, code).is_none());
                    }
                    GuestMessage::Event(event) => self.events.push(event),
                },
                Frame::Data(stream, bytes) => {
                    assert!(!self.over.contains(&stream), "data after the end");
                    let credit = self.receiving.entry(stream).or_default();
                    credit.received(stream, bytes.len()).expect("credit");
                    self.output.entry(stream).or_default().extend(bytes);
                    if !self.slow.contains(&stream.session)
                        && let Some(more) = credit.taken(bytes.len())
                    {
                        wire::put_credit(&mut answer, stream, more);
                    }
                }
                Frame::Credit(stream, bytes) => {
                    let credit = self.sending.entry(stream).or_default();
                    credit.granted(stream, bytes).expect("credit");
                }
                Frame::End(stream) => assert!(self.over.insert(stream), "ended twice"),
                Frame::Stop(stream) => drop(self.stopped.insert(stream)),
            }
        }
        self.send(&answer);
        true
    }

    /// Pumps until it holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            assert!(self.pump(), "the channel ended before: {what}");
        }
    }

    pub fn greet(&mut self) -> Hello {
        self.until("hello", |peer| peer.hello.is_some());
        let hello = self.hello.clone().expect("hello");
        assert_eq!(hello.version, VERSION);
        assert!(hello.boot.ready_ns >= hello.boot.started_ns);
        hello
    }

    /// Sends a call and returns its number.
    pub fn ask(&mut self, request: GuestRequest) -> u64 {
        self.seq += 1;
        let call = GuestCall {
            seq: self.seq,
            request,
        };
        let mut bytes = Vec::new();
        wire::put_message(&mut bytes, &call, MAX_CALL).expect("a call");
        self.send(&bytes);
        self.seq
    }

    pub fn answer(&mut self, seq: u64) -> GuestReply {
        self.until("reply", |peer| peer.replies.contains_key(&seq));
        self.replies.remove(&seq).expect("reply")
    }

    pub fn call(&mut self, request: GuestRequest) -> GuestReply {
        let seq = self.ask(request);
        self.answer(seq)
    }

    /// A call that succeeds with no more to say; its warnings.
    pub fn done(&mut self, request: GuestRequest) -> Vec<String> {
        match self.call(request) {
            GuestReply::Done { warnings } => warnings,
            other => panic!("{other:?}"),
        }
    }

    /// A call that fails; why.
    pub fn fails(&mut self, request: GuestRequest) -> (hull_model::ErrorKind, String) {
        match self.call(request) {
            GuestReply::Failed(failed) => (failed.kind, failed.message),
            other => panic!("{other:?}"),
        }
    }

    pub fn launch(&mut self, plan: LaunchPlan, stdio: GuestStdio) -> u32 {
        self.started(GuestRequest::Launch(Box::new(GuestLaunch { plan, stdio })))
    }

    pub fn exec(&mut self, session: u32, process: ProcessPlan, stdio: GuestStdio) -> u32 {
        self.started(GuestRequest::Exec(Box::new(GuestExec {
            session,
            process,
            stdio,
            ..GuestExec::default()
        })))
    }

    fn started(&mut self, request: GuestRequest) -> u32 {
        match self.call(request) {
            GuestReply::Started { pid, uptime_ns, .. } => {
                assert!(uptime_ns > 0);
                pid
            }
            other => panic!("{other:?}"),
        }
    }

    /// Writes to a session as far as there is credit, waiting for more of it.
    pub fn write(&mut self, session: u32, mut bytes: &[u8]) {
        let stream = StreamId::new(session, Channel::Stdin);
        while !bytes.is_empty() {
            let room = self.sending.entry(stream).or_default().available();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            if now.is_empty() {
                assert!(self.pump(), "the channel ended");
                continue;
            }
            self.sending.entry(stream).or_default().sent(now.len());
            let mut frames = Vec::new();
            wire::put_data(&mut frames, stream, now);
            self.send(&frames);
            bytes = rest;
        }
    }

    pub fn end_input(&mut self, session: u32) {
        let mut frames = Vec::new();
        wire::put_end(&mut frames, StreamId::new(session, Channel::Stdin));
        self.send(&frames);
    }

    /// Waits for the end of a session with all its streams; its code and output. Its number is
    /// free then.
    pub fn finish(&mut self, session: u32, channels: &[Channel]) -> (i32, String) {
        let streams: Vec<_> = channels
            .iter()
            .map(|channel| StreamId::new(session, *channel))
            .collect();
        self.until("end of a session", |peer| {
            peer.ended.contains_key(&session)
                && streams.iter().all(|stream| peer.over.contains(stream))
        });
        let mut text = Vec::new();
        for stream in streams {
            self.over.remove(&stream);
            self.receiving.remove(&stream);
            text.extend(self.output.remove(&stream).unwrap_or_default());
        }
        let input = StreamId::new(session, Channel::Stdin);
        self.sending.remove(&input);
        self.stopped.remove(&input);
        let code = self.ended.remove(&session).expect("ended");
        (code, String::from_utf8_lossy(&text).into_owned())
    }

    pub fn text(&self, session: u32) -> String {
        let stream = StreamId::new(session, Channel::Stdout);
        let bytes = self.output.get(&stream).map(Vec::as_slice);
        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
    }

    pub fn processes(&mut self) -> Processes {
        match self.call(GuestRequest::Processes) {
            GuestReply::Processes(processes) => processes,
            other => panic!("{other:?}"),
        }
    }
}

pub const BOTH: [Channel; 2] = [Channel::Stdout, Channel::Stderr];
pub const CONNECTED: GuestStdio = GuestStdio::Connected { stdin: true };

pub fn process(args: &[&str]) -> ProcessPlan {
    ProcessPlan {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        capabilities: caps::DEFAULT.map(str::to_owned).to_vec(),
        ..ProcessPlan::default()
    }
}

pub fn terminal(args: &[&str]) -> ProcessPlan {
    ProcessPlan {
        tty: true,
        console_size: Some((20, 70)),
        ..process(args)
    }
}

/// A container with a root of its own and what programs expect in it.
pub fn plan(root: RootFs, group: &str, args: &[&str]) -> LaunchPlan {
    let mount = |target: &str, kind: MountKind| PlanMount {
        target: target.to_owned(),
        kind,
        options: MountOptions {
            nosuid: true,
            ..MountOptions::default()
        },
    };
    let tmpfs = |data: &str| MountKind::Tmpfs {
        data: data.to_owned(),
    };
    let device = |name: &str, minor: u32| PlanDevice {
        path: format!("/dev/{name}"),
        block: false,
        fifo: false,
        major: 1,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    LaunchPlan {
        id: "guest".to_owned(),
        rootfs: root,
        hostname: "inside".to_owned(),
        namespaces: Namespaces::default(),
        mounts: vec![
            mount("/proc", MountKind::Proc),
            mount("/dev", tmpfs("mode=755,size=64k")),
            mount("/dev/pts", MountKind::Devpts),
            mount("/tmp", tmpfs("mode=1777")),
        ],
        devices: vec![device("null", 3), device("zero", 5)],
        cgroup: CgroupPlan {
            path: group.to_owned(),
            ..CgroupPlan::default()
        },
        process: process(args),
        ..LaunchPlan::default()
    }
}

pub const APPLETS: [&str; 15] = [
    "sh", "cat", "echo", "sleep", "stty", "dd", "wc", "hostname", "mount", "ps", "id", "true",
    "date", "ls", "touch",
];

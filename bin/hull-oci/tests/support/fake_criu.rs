//! A stand-in for CRIU that speaks its protocol: a dump remembers the command line, a restore runs
//! it anew. For hosts whose kernel CRIU does not know.
//!
//! The request is written next to the images as `request.json`, so that tests can look at it.

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use hull_sys::clone3::{Clone3, Namespaces, clone3};
use hull_sys::fdpass;
use hull_sys::proc::{StringArray, execve};

use crate::wire::{Message, Value, fields};

const DUMP: u64 = 1;
const RESTORE: u64 = 2;
const PRE_DUMP: u64 = 4;
const NOTIFY: i64 = 6;
/// Fields of the options.
const IMAGES: u64 = 1;
const PID: u64 = 2;
const LEAVE_RUNNING: u64 = 3;
const FILE_LOCKS: u64 = 8;
const SIGKILL: i32 = 9;

/// Serves the one request that comes over the descriptor with this number.
pub(crate) fn serve(number: &str) {
    let number: i32 = number.parse().expect("a number");
    let socket = hull_sys::inherited::take(number).expect("an open descriptor");
    let request = receive(&socket);
    let top = fields(&request).expect("a request");
    let Some((_, Value::Number(kind))) = top.iter().find(|(field, _)| *field == 1) else {
        panic!("no type");
    };
    let Some((_, Value::Bytes(opts))) = top.iter().find(|(field, _)| *field == 2) else {
        panic!("no options");
    };
    let opts = fields(opts).expect("options");
    let value = |wanted: u64| match opts.iter().find(|(field, _)| *field == wanted) {
        Some((_, Value::Number(number))) => Some(*number),
        _ => None,
    };
    let client = rustix::process::getppid().expect("a client");
    let fd = value(IMAGES).expect("a folder");
    let images = PathBuf::from(format!("/proc/{}/fd/{fd}", client.as_raw_nonzero()));
    let shown: Vec<String> = opts
        .iter()
        .map(|(field, value)| match value {
            Value::Number(number) => format!("{field}={number}"),
            Value::Bytes(bytes) => format!("{field}={}", printable(bytes)),
        })
        .collect();
    fs::write(images.join("request.json"), format!("{shown:?}")).expect("write");
    let mut answer = Message::default();
    answer.number(1, kind.cast_signed());
    // The way in which tests ask for a failure.
    if value(FILE_LOCKS).is_some() {
        fs::write(images.join("dump.log"), "Error (fake): no locks here\n").expect("write");
        answer.number(2, 0);
        answer.number(7, 22);
    } else {
        match *kind {
            DUMP | PRE_DUMP => dump(&images, value(PID).expect("pid"), value(LEAVE_RUNNING)),
            RESTORE => {
                let mut restored = Message::default();
                restored.number(1, i64::from(restore(&images, &socket)));
                answer.nested(4, &restored);
            }
            other => panic!("type {other}"),
        }
        answer.flag(2, true);
    }
    fdpass::send(&socket, answer.bytes(), &[]).expect("send");
}

fn printable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| {
            if (32..127).contains(byte) {
                char::from(*byte)
            } else {
                '.'
            }
        })
        .collect()
}

fn receive(socket: &OwnedFd) -> Vec<u8> {
    let mut buffer = vec![0; 65536];
    let count = fdpass::receive(socket, &mut buffer, &mut Vec::new());
    buffer.truncate(count.expect("receive"));
    buffer
}

fn dump(images: &Path, pid: u64, leave_running: Option<u64>) {
    let line = fs::read(format!("/proc/{pid}/cmdline")).expect("command line");
    fs::write(images.join("cmdline"), line).expect("write");
    if leave_running.is_none() {
        let pid = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let handle = hull_sys::pidfd::open(pid.expect("pid")).expect("open");
        hull_sys::pidfd::send_signal(&handle, SIGKILL).expect("kill");
    }
}

/// A sibling, as CRIU makes with `rst_sibling`.
fn restore(images: &Path, socket: &OwnedFd) -> i32 {
    let line = fs::read(images.join("cmdline")).expect("images");
    let arguments: Vec<CString> = line
        .split_inclusive(|byte| *byte == 0)
        .map(|part| CString::from_vec_with_nul(part.to_vec()).expect("an argument"))
        .collect();
    let program = c"/bin/sleep";
    let arguments = StringArray::new(arguments);
    let environment = StringArray::new(Vec::new());
    let args = Clone3 {
        namespaces: Namespaces::NONE,
        cgroup: None,
        sibling: true,
    };
    // Nothing is allocated between the clone and execve.
    let child = clone3(&args, || {
        let _ = execve(program, &arguments, &environment);
        127
    })
    .expect("clone");
    let pid = child.pid.as_raw_nonzero().get();
    for script in ["setup-namespaces", "post-restore"] {
        let mut notice = Message::default();
        notice.text(1, script);
        notice.number(2, i64::from(pid));
        let mut message = Message::default();
        message.number(1, NOTIFY);
        message.flag(2, true);
        message.nested(5, &notice);
        fdpass::send(socket, message.bytes(), &[]).expect("send");
        let answer = receive(socket);
        let answer = fields(&answer).expect("an answer");
        assert!(
            answer.contains(&(3, Value::Number(1))),
            "refused at {script}"
        );
    }
    pid
}

//! Terminals: handed over by a socket, their size, the container's console.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use hull_oci_tests::{Runtime, sockets};
use hull_testkit::terminal::Terminal;
use rustix::termios::tcgetwinsize;
use serde_json::json;

use super::Case;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("create.console-socket", |runtime| {
            let terminal = created(
                runtime,
                None,
                "tty; readlink /proc/self/fd/0; exec sleep 1000",
            );
            runtime.ok(&["start", "c"]);
            let text = read_until(terminal, "\n", 2);
            assert_eq!(text, "/dev/pts/0\r\n/dev/pts/0\r\n");
        }),
        Case::new("process.consoleSize", |runtime| {
            let size = json!({"height": 33, "width": 101});
            let terminal = created(runtime, Some(size), "stty size; exec sleep 1000");
            let seen = tcgetwinsize(&terminal).expect("size");
            assert_eq!((seen.ws_row, seen.ws_col), (33, 101));
            runtime.ok(&["start", "c"]);
            assert_eq!(read_until(terminal, "\n", 1), "33 101\r\n");
        }),
        Case::new("devices.console", |runtime| {
            let terminal = created(
                runtime,
                None,
                "echo to-console >/dev/console; stat -c %F /dev/console; exec sleep 1000",
            );
            runtime.ok(&["start", "c"]);
            let text = read_until(terminal, "\n", 2);
            assert_eq!(text, "to-console\r\ncharacter special file\r\n");
        }),
        Case::new("exec.console-socket", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let path = socket(runtime);
            let heard = sockets::listen(&path, false);
            runtime.ok(&[
                "exec",
                "-d",
                "--tty",
                "--console-socket",
                path.to_str().expect("text"),
                "c",
                "sh",
                "-c",
                "tty; exec sleep 1000",
            ]);
            let message = heard.join().expect("listener");
            let terminal = message.and_then(|mut message| message.fds.pop());
            let text = read_until(terminal.expect("a terminal"), "\n", 1);
            assert_eq!(text, "/dev/pts/0\r\n");
        }),
        Case::new("exec.tty", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let terminal = on_terminal(runtime, &["exec", "--tty", "c", "sh", "-c", "tty; exit 6"]);
            let (code, text) = terminal.finish();
            assert!(
                text.contains("/dev/pts/0") && code == 6,
                "ended with {code}: {text}"
            );
        }),
        Case::new("run.tty", |runtime| {
            let mut bundle = runtime.bundle(
                "c",
                &[],
                "tty; stty size; read line; echo got:$line; exit 6",
            );
            bundle.set("/process/terminal", json!(true));
            bundle.write();
            let mut terminal = on_terminal(runtime, &["run", "-b", bundle.path(), "c"]);
            terminal.expect("24 80");
            terminal.send("word\r");
            let (code, text) = terminal.finish();
            assert!(
                text.contains("got:word") && code == 6,
                "ended with {code}: {text}"
            );
        }),
        Case::new("create.console-socket-unwanted", |runtime| {
            // Without a terminal there is nothing to hand over.
            let bundle = runtime.bundle("c", &[], "true");
            let path = socket(runtime);
            let heard = sockets::listen(&path, false);
            let args = [
                "create",
                "-b",
                bundle.path(),
                "--console-socket",
                path.to_str().expect("text"),
                "c",
            ];
            let said = runtime.run(&args);
            assert!(said.code > 0, "was not refused, ended with {}", said.code);
            drop(heard);
            runtime.nothing_left();
        }),
    ]
}

fn socket(runtime: &Runtime) -> PathBuf {
    runtime.dir().join("console.sock")
}

/// Creates a container with a terminal, which comes by the socket.
#[track_caller]
fn created(runtime: &Runtime, size: Option<serde_json::Value>, script: &str) -> OwnedFd {
    let mut bundle = runtime.bundle("c", &[("/process/terminal", json!(true))], script);
    if let Some(size) = size {
        bundle.set("/process/consoleSize", size);
        bundle.write();
    }
    let path = socket(runtime);
    let heard = sockets::listen(&path, false);
    runtime.ok(&[
        "create",
        "-b",
        bundle.path(),
        "--console-socket",
        path.to_str().expect("text"),
        "c",
    ]);
    let message = heard.join().expect("listener");
    let fd = message.and_then(|mut message| message.fds.pop());
    fd.expect("no terminal came by the socket")
}

/// What a terminal says until a part has come so many times.
fn read_until(terminal: OwnedFd, part: &str, count: usize) -> String {
    let mut file = File::from(terminal);
    let (mut text, mut buffer) = (String::new(), [0; 512]);
    while text.matches(part).count() < count {
        match file.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text += &String::from_utf8_lossy(&buffer[..length]),
        }
    }
    text
}

fn on_terminal(runtime: &Runtime, args: &[&str]) -> Terminal {
    let command = runtime.command(args);
    let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    Terminal::spawn(command.get_program(), words, &[])
}

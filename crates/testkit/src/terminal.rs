//! A terminal for programs that ask for one: a pty the test types into and reads from.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::wait::wait_until;

/// A program on a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program with a terminal of 80 columns and 24 rows as its controlling one.
    ///
    /// # Panics
    /// If the terminal or the program cannot be had.
    pub fn spawn<S: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
        env: &[(String, String)],
    ) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("open a pty");
        grantpt(&master).expect("grant the pty");
        unlockpt(&master).expect("unlock the pty");
        let name = ptsname(&master, Vec::new()).expect("name the pty");
        let slave = rustix::fs::open(
            name.as_c_str(),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .expect("open the pty's other end");
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("set the size");

        let copy = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("copy a descriptor"));
        // setsid makes the pty the controlling terminal, which std cannot without unsafe code.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(program)
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .env("TERM", "xterm")
            .stdin(copy(&slave))
            .stdout(copy(&slave))
            .stderr(copy(&slave))
            .spawn()
            .expect("start on a pty");
        drop(slave);

        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut reader = master.try_clone().expect("copy the pty");
        let sink = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 4096];
            // A pty whose other end is closed reads as an error: that is its end of file.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if let (Ok(mut sink), Some(part)) = (sink.lock(), buffer.get(..count)) {
                    sink.extend_from_slice(part);
                }
            }
        });
        Self {
            master,
            child,
            seen,
        }
    }

    /// Types bytes.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.master
            .write_all(bytes.as_ref())
            .expect("type into the pty");
    }

    /// Everything shown so far.
    #[must_use]
    pub fn screen(&self) -> String {
        let seen = self
            .seen
            .lock()
            .map(|seen| seen.clone())
            .unwrap_or_default();
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Waits until a text was shown.
    ///
    /// # Panics
    /// If it is not within fifteen seconds.
    pub fn expect(&self, text: &str) {
        let shown = wait_until(Duration::from_secs(15), || self.screen().contains(text));
        assert!(
            shown,
            "{text:?} was not shown on the terminal:\n{}",
            self.screen()
        );
    }

    /// Changes the size, which signals the program.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).expect("set the size");
    }

    /// Waits for the program's end and returns its exit code.
    ///
    /// # Panics
    /// If it does not end within twenty seconds.
    pub fn finish(mut self) -> (i32, String) {
        let mut code = None;
        let ended = wait_until(Duration::from_secs(20), || match self.child.try_wait() {
            Ok(Some(status)) => {
                code = Some(status.code().unwrap_or(-1));
                true
            }
            _ => false,
        });
        assert!(
            ended,
            "the program on the terminal did not end:\n{}",
            self.screen()
        );
        // What was written last may still be on its way through the pty.
        std::thread::sleep(Duration::from_millis(20));
        (code.unwrap_or(-1), self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

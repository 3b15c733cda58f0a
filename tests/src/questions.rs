//! A load of questions on a name server: so many a second, from sockets in the networks of
//! containers, each answer counted and timed.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Numbers that one socket uses for its questions, over and over.
const NUMBERS: usize = 4096;
/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two lots of questions.
const PACE: Duration = Duration::from_millis(1);

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// Questions sent.
    pub asked: usize,
    /// Those answered without an error.
    pub answered: usize,
    /// The median of the answers' times.
    pub median: Duration,
    /// Of a hundred answers ninety-nine took no longer.
    pub p99: Duration,
    /// The slowest.
    pub longest: Duration,
}

/// A socket in the network of the process `pid`, at the server.
///
/// # Panics
/// If there is no such process, or no socket to be had.
#[must_use]
pub fn socket_within(pid: &str, server: Ipv4Addr) -> UdpSocket {
    std::thread::scope(|scope| {
        let inside = || {
            let netns = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("open");
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter");
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
            socket.connect((server, 53)).expect("connect");
            socket.set_nonblocking(true).expect("set");
            socket
        };
        scope.spawn(inside).join().expect("a thread")
    })
}

/// A question for the IPv4 addresses of a name.
#[must_use]
pub fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Asks for the names in turn, `rate` times a second, from all sockets in turn.
///
/// # Panics
/// If a socket fails.
#[must_use]
pub fn load(sockets: &[UdpSocket], names: &[&str], rate: u32, length: Duration) -> Load {
    let questions: Vec<Vec<u8>> = names.iter().map(|name| question(name)).collect();
    let start = Instant::now();
    let now = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    // When each was asked, by socket and number; zero is not under way.
    let times: Vec<AtomicU64> = (0..sockets.len() * NUMBERS)
        .map(|_| AtomicU64::new(0))
        .collect();
    let done = AtomicBool::new(false);
    let mut asked = 0;
    let mut taken: Vec<u64> = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(sockets, &times, &done, &now));
        while start.elapsed() < length {
            let due = start.elapsed().as_secs_f64() * f64::from(rate);
            while (asked as f64) < due {
                let which = asked % sockets.len();
                let number = (asked / sockets.len()) % NUMBERS;
                let mut bytes = questions[asked % questions.len()].clone();
                let id = u16::try_from(number).expect("a small number");
                bytes[..2].copy_from_slice(&id.to_be_bytes());
                times[which * NUMBERS + number].store(now().max(1), Ordering::Release);
                sockets[which].send(&bytes).ok();
                asked += 1;
            }
            std::thread::sleep(PACE);
        }
        let waited = Instant::now();
        while times.iter().any(|time| time.load(Ordering::Acquire) > 0)
            && waited.elapsed() < PATIENCE
        {
            std::thread::sleep(PACE);
        }
        done.store(true, Ordering::Release);
        receiver.join().expect("the receiver")
    });
    taken.sort_unstable();
    let at = |part: usize| {
        let index = (taken.len() * part / 100).min(taken.len().saturating_sub(1));
        Duration::from_nanos(taken.get(index).copied().unwrap_or_default())
    };
    Load {
        asked,
        answered: taken.len(),
        median: at(50),
        p99: at(99),
        longest: at(100),
    }
}

fn receive(
    sockets: &[UdpSocket],
    times: &[AtomicU64],
    done: &AtomicBool,
    now: &impl Fn() -> u64,
) -> Vec<u64> {
    let wait = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    let mut taken = Vec::new();
    let mut buffer = [0; 2048];
    while !done.load(Ordering::Acquire) {
        let mut polled: Vec<PollFd<'_>> = sockets
            .iter()
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        poll(&mut polled, Some(&wait)).expect("poll");
        let ready: Vec<usize> = (0..sockets.len())
            .filter(|index| !polled[*index].revents().is_empty())
            .collect();
        for index in ready {
            loop {
                match sockets[index].recv(&mut buffer) {
                    Ok(length) if length >= 12 => {
                        let number = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
                        let Some(time) = times.get(index * NUMBERS + number % NUMBERS) else {
                            continue;
                        };
                        let asked = time.swap(0, Ordering::AcqRel);
                        // No error, and an answer.
                        if asked > 0 && buffer[3] & 0xf == 0 && buffer[7] > 0 {
                            taken.push(now().saturating_sub(asked));
                        }
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // Nobody listened for a moment.
                    Err(_) => break,
                }
            }
        }
    }
    taken
}

//! A static program the tests put into containers: it serves, counts and tries what is forbidden.
#![allow(clippy::print_stdout, reason = "a program prints")]

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, socket};

const USAGE: &str = "\
usage: hull-probe udp-echo PORT          answer every datagram with pong
       hull-probe tcp-peer PORT          tell every client its own address
       hull-probe lines RATE SECONDS     print numbered lines at a rate, exit with 17
       hull-probe socket FAMILY          open a stream socket of a family's number
       hull-probe hold MEBIBYTES         take memory and keep it";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["udp-echo", port] => udp_echo(port),
        ["tcp-peer", port] => tcp_peer(port),
        ["lines", rate, seconds] => return lines(rate, seconds),
        ["socket", family] => open_socket(family),
        ["hold", mebibytes] => hold(mebibytes),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn udp_echo(port: &str) -> Result<(), String> {
    // Of both versions of IP where there are both.
    let socket = UdpSocket::bind(format!("[::]:{port}"))
        .or_else(|_| UdpSocket::bind(format!("0.0.0.0:{port}")))
        .map_err(|error| error.to_string())?;
    let mut buffer = [0; 2048];
    loop {
        let (_, from) = socket
            .recv_from(&mut buffer)
            .map_err(|error| error.to_string())?;
        socket
            .send_to(b"pong", from)
            .map_err(|error| error.to_string())?;
    }
}

fn tcp_peer(port: &str) -> Result<(), String> {
    let listener =
        TcpListener::bind(format!("0.0.0.0:{port}")).map_err(|error| error.to_string())?;
    for client in listener.incoming() {
        let mut client = client.map_err(|error| error.to_string())?;
        let peer = client.peer_addr().map_err(|error| error.to_string())?;
        let _ = write!(client, "{}", peer.ip());
    }
    Ok(())
}

/// Prints `RATE` lines a second, each with its number, in small batches at even times.
fn lines(rate: &str, seconds: &str) -> ExitCode {
    let (Ok(rate), Ok(seconds)) = (rate.parse::<u64>(), seconds.parse::<u64>()) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let begun = Instant::now();
    let mut out = std::io::stdout().lock();
    for number in 0..rate * seconds {
        let due = Duration::from_nanos(number * 1_000_000_000 / rate.max(1));
        if let Some(early) = due
            .checked_sub(begun.elapsed())
            .filter(|early| *early > Duration::from_millis(2))
        {
            std::thread::sleep(early);
        }
        if writeln!(out, "line {number}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::from(17)
}

fn open_socket(family: &str) -> Result<(), String> {
    let number: u16 = family.parse().map_err(|_| USAGE.to_owned())?;
    match socket(AddressFamily::from_raw(number), SocketType::STREAM, None) {
        Ok(_) => {
            println!("opened");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn hold(mebibytes: &str) -> Result<(), String> {
    let size: usize = mebibytes.parse().map_err(|_| USAGE.to_owned())?;
    let memory = vec![1_u8; size << 20];
    println!(
        "held {}",
        memory
            .iter()
            .step_by(4096)
            .map(|byte| usize::from(*byte))
            .sum::<usize>()
    );
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    std::thread::sleep(Duration::from_secs(3600));
    Ok(())
}

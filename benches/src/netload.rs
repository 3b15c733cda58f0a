//! Load for networks, made by the bench's own program inside containers: one static file is server
//! and client, so that every engine is measured with the very same code.
//!
//! ```text
//! net load serve                        serves on TCP port 7000 until it is killed
//! net load stream ADDRESS:PORT SECONDS  sends as fast as it can; prints MB/s
//! net load turns ADDRESS:PORT COUNT     one byte there and back, COUNT times; prints the median in µs
//! net load names NAME RATE SECONDS      asks the container's name server RATE times a second; prints
//!                                       how many were answered and each answer's time in µs
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Where `serve` listens.
pub const PORT: u16 = 7000;
/// What a client sends first: who sends a stream, or wants each byte back.
const STREAM: u8 = b's';
const TURNS: u8 = b't';
/// Bytes at once.
const CHUNK: usize = 128 << 10;
/// How long an answer of the name server may be waited for after the last question.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Bytes of a question's header.
const DNS_HEADER: usize = 12;

/// Does what the arguments after `load` say.
///
/// # Errors
/// If they make no sense or the peer does not answer.
pub fn main(args: &[String]) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["serve"] => serve(),
        ["stream", to, seconds] => say(stream(to, seconds.parse()?)?),
        ["turns", to, count] => say(turns(to, count.parse()?)?),
        ["names", name, rate, seconds] => names(name, rate.parse()?, seconds.parse()?),
        _ => bail!("net load takes serve, stream, turns or names"),
    }
}

fn say(figure: f64) -> Result<()> {
    writeln!(std::io::stdout(), "{figure:.3}")?;
    Ok(())
}

fn serve() -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).context("cannot listen")?;
    for client in listener.incoming() {
        let client = client?;
        std::thread::spawn(move || {
            // Who goes away in the middle is no matter of the server's.
            let _ = attend(client);
        });
    }
    Ok(())
}

fn attend(mut client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut kind = [0];
    client.read_exact(&mut kind)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = client.read(&mut buffer)?;
        if count == 0 {
            // The client waits for this: then all it sent has arrived.
            return client.write_all(&kind);
        }
        if kind == [TURNS] {
            client.write_all(buffer.get(..count).unwrap_or_default())?;
        }
    }
}

fn connect(to: &str, kind: u8) -> Result<TcpStream> {
    let mut server = TcpStream::connect(to).with_context(|| format!("cannot reach {to}"))?;
    server.set_nodelay(true)?;
    server.write_all(&[kind])?;
    Ok(server)
}

/// MB/s that arrive.
fn stream(to: &str, seconds: f64) -> Result<f64> {
    let mut server = connect(to, STREAM)?;
    let buffer = vec![0x5a; CHUNK];
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed().as_secs_f64() < seconds {
        server.write_all(&buffer)?;
        sent += buffer.len();
    }
    server.shutdown(std::net::Shutdown::Write)?;
    server.read_exact(&mut [0])?;
    Ok(sent as f64 / begun.elapsed().as_secs_f64() / 1e6)
}

/// The median time of one byte there and back, in µs.
fn turns(to: &str, count: usize) -> Result<f64> {
    let mut server = connect(to, TURNS)?;
    let mut times = Vec::with_capacity(count);
    let mut byte = [1];
    for _ in 0..count {
        let begun = Instant::now();
        server.write_all(&byte)?;
        server.read_exact(&mut byte)?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(crate::measure::median(&mut times))
}

/// The name server of /etc/resolv.conf.
fn name_server() -> Result<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").context("cannot read resolv.conf")?;
    let line = text.lines().find_map(|l| l.strip_prefix("nameserver"));
    Ok(line.context("no name server")?.trim().to_owned())
}

/// A question for an address (RFC 1035), whose number is filled in for each.
fn question(name: &str) -> Result<Vec<u8>> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len())?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    Ok(message)
}

/// Asks at a steady rate, whether or not answers come, and prints the time of each answer that
/// holds an address.
fn names(name: &str, rate: u32, seconds: u32) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect((name_server()?.as_str(), 53))?;
    let total = usize::try_from(rate * seconds)?.min(usize::from(u16::MAX));
    let gap = Duration::from_secs(1) / rate;
    let mut message = question(name)?;
    let mut asked: Vec<Option<Instant>> = vec![None; total];
    let mut times = Vec::with_capacity(total);
    let mut answer = [0; 1500];
    let begun = Instant::now();
    let mut next = 0;
    while times.len() < total {
        let now = Instant::now();
        let due = begun + gap * u32::try_from(next)?;
        if next < total && now >= due {
            let [high, low] = u16::try_from(next)?.to_be_bytes();
            message[..2].copy_from_slice(&[high, low]);
            asked[next] = Some(now);
            socket.send(&message)?;
            next += 1;
            continue;
        }
        let until = if next < total {
            due - now
        } else {
            LAST_ANSWERS
        };
        socket.set_read_timeout(Some(until.max(Duration::from_micros(50))))?;
        match socket.recv(&mut answer) {
            Ok(count) if count > DNS_HEADER && answer[7] > 0 => {
                let number = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
                if let Some(at) = asked.get_mut(number).and_then(Option::take) {
                    times.push(at.elapsed().as_micros());
                }
            }
            Ok(_) => bail!("the name server knows no address of {name}"),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if next == total {
                    break;
                }
            }
            Err(e) => return Err(e).context("cannot read an answer"),
        }
    }
    let list: Vec<String> = times.iter().map(u128::to_string).collect();
    writeln!(std::io::stdout(), "{}", list.join(" "))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_of_the_bench_answers_its_clients() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten().take(2) {
                attend(client).ok();
            }
        });
        assert!(turns(&at, 10).unwrap() > 0.0);
        assert!(stream(&at, 0.01).unwrap() > 0.0);
    }
}

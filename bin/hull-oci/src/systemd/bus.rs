//! A connection to a message bus, or to one program that speaks its protocol.
//!
//! Source: the D-Bus specification, "Message Protocol" and "Authentication Protocol".

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::value::{Reader, Value, Writer, signature_of};

/// How long an answer may take, as in runc.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long, and how often, a program is called that should answer at once.
const PING_PAUSE: Duration = Duration::from_millis(100);
const PINGS: u32 = 100;
/// Largest message taken; systemd's are small.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Longest line while authenticating.
const MAX_LINE_BYTES: usize = 512;

const CALL: u8 = 1;
const REPLY: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A message.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) serial: u32,
    pub(crate) path: String,
    pub(crate) interface: String,
    pub(crate) member: String,
    pub(crate) error: String,
    pub(crate) reply_to: u32,
    pub(crate) destination: String,
    pub(crate) sender: String,
    pub(crate) body: Vec<Value>,
}

impl Message {
    /// A call of a method.
    pub(crate) fn call(destination: &str, path: &str, interface: &str, member: &str) -> Self {
        Self {
            kind: CALL,
            path: path.to_owned(),
            interface: interface.to_owned(),
            member: member.to_owned(),
            destination: destination.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn with(mut self, body: Vec<Value>) -> Self {
        self.body = body;
        self
    }

    pub(crate) fn is_signal(&self, interface: &str, member: &str) -> bool {
        self.kind == SIGNAL && self.interface == interface && self.member == member
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        for value in &self.body {
            body.write(value);
        }
        let mut fields = Vec::new();
        let mut field = |code: u8, value: Value| {
            fields.push(Value::Struct(vec![
                Value::Byte(code),
                Value::Variant(value.into()),
            ]));
        };
        if !self.path.is_empty() {
            field(1, Value::Path(self.path.clone()));
        }
        for (code, text) in [
            (2, &self.interface),
            (3, &self.member),
            (4, &self.error),
            (6, &self.destination),
        ] {
            if !text.is_empty() {
                field(code, Value::Text(text.clone()));
            }
        }
        if self.reply_to != 0 {
            field(5, Value::U32(self.reply_to));
        }
        if !self.body.is_empty() {
            field(8, Value::Signature(signature_of(&self.body)));
        }
        let mut message = Writer::default();
        for value in [
            Value::Byte(b'l'),
            Value::Byte(self.kind),
            Value::Byte(0),
            Value::Byte(1),
            Value::U32(u32::try_from(body.0.len()).unwrap_or(u32::MAX)),
            Value::U32(self.serial),
            Value::Array("(yv)".to_owned(), fields),
        ] {
            message.write(&value);
        }
        message.align(8);
        message.0.extend_from_slice(&body.0);
        message.0
    }

    /// Reads a message from its bytes, header and body.
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader {
            bytes,
            at: 0,
            big_endian: bytes.first() == Some(&b'B'),
        };
        let header = reader.read_all("yyyyuua(yv)")?;
        let [
            _,
            Value::Byte(kind),
            _,
            _,
            _,
            Value::U32(serial),
            Value::Array(_, fields),
        ] = header.as_slice()
        else {
            bail!("a D-Bus message has no header");
        };
        let mut message = Self {
            kind: *kind,
            serial: *serial,
            ..Self::default()
        };
        let mut signature = String::new();
        for field in fields {
            let Value::Struct(pair) = field else { continue };
            let [Value::Byte(code), Value::Variant(value)] = pair.as_slice() else {
                continue;
            };
            let text = || value.as_text().unwrap_or_default().to_owned();
            match (code, value.as_ref()) {
                (1, _) => message.path = text(),
                (2, _) => message.interface = text(),
                (3, _) => message.member = text(),
                (4, _) => message.error = text(),
                (5, Value::U32(serial)) => message.reply_to = *serial,
                (6, _) => message.destination = text(),
                (7, _) => message.sender = text(),
                (8, _) => signature = text(),
                _ => {}
            }
        }
        reader.align(8);
        message.body = reader.read_all(&signature)?;
        Ok(message)
    }
}

/// The other side refused a call.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.text, self.name)
    }
}

impl std::error::Error for Refused {}

/// The connection.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while a reply was awaited.
    pub(crate) pending: Vec<Message>,
}

impl Bus {
    /// Connects to a message bus by its address, such as `unix:path=/run/dbus/system_bus_socket`.
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let mut bus = Self::authenticated(dial(address)?)?;
        let dbus = "org.freedesktop.DBus";
        let hello = Message::call(dbus, "/org/freedesktop/DBus", dbus, "Hello");
        bus.call(hello).context("the message bus does not greet")?;
        Ok(bus)
    }

    /// Connects to a program's own socket, where there is nobody to greet.
    pub(crate) fn connect_peer(path: &str) -> Result<Self> {
        let stream =
            UnixStream::connect(path).with_context(|| format!("cannot connect to {path}"))?;
        let mut bus = Self::authenticated(stream)?;
        // systemd reads what follows the last line of authenticating along with it, and then
        // looks at it only once more has come: it is called until it answers.
        bus.stream.set_read_timeout(Some(PING_PAUSE))?;
        let answered = (0..PINGS).any(|_| {
            let ping = Message::call("", "/", "org.freedesktop.DBus.Peer", "Ping");
            bus.send(ping).is_ok() && bus.receive().is_ok()
        });
        if !answered {
            bail!("{path} does not answer");
        }
        bus.stream.set_read_timeout(Some(PATIENCE))?;
        Ok(bus)
    }

    /// Over a stream on which both know each other.
    pub(crate) fn over(stream: UnixStream) -> Self {
        Self {
            stream,
            serial: 0,
            pending: Vec::new(),
        }
    }

    fn authenticated(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Self::over(stream);
        // Who we are is told by the socket: in a user namespace our own number would be wrong.
        bus.send_bytes(b"\0AUTH EXTERNAL\r\nDATA\r\n")?;
        loop {
            let line = bus.line()?;
            match line.split(' ').next() {
                Some("DATA") => {}
                Some("OK") => break,
                _ => bail!("the message bus refuses us: {line}"),
            }
        }
        bus.send_bytes(b"BEGIN\r\n")?;
        Ok(bus)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream
            .write_all(bytes)
            .context("cannot write to the message bus")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > MAX_LINE_BYTES {
                bail!("the message bus answers with a line without end");
            }
            let mut byte = [0];
            self.stream
                .read_exact(&mut byte)
                .context("cannot read from the message bus")?;
            line.extend_from_slice(&byte);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Sends a message; its serial number is returned.
    pub(crate) fn send(&mut self, mut message: Message) -> Result<u32> {
        self.serial = self.serial.wrapping_add(1).max(1);
        message.serial = self.serial;
        self.send_bytes(&message.encode())?;
        Ok(message.serial)
    }

    /// Waits for the next message.
    pub(crate) fn receive(&mut self) -> Result<Message> {
        const FIXED: usize = 16;
        let mut bytes = vec![0u8; FIXED];
        let fail = "cannot read from the message bus";
        self.stream.read_exact(&mut bytes).context(fail)?;
        let mut reader = Reader {
            bytes: &bytes,
            at: 0,
            big_endian: bytes.first() == Some(&b'B'),
        };
        let fixed = reader.read_all("yyyyuuu")?;
        let [.., Value::U32(body), _, Value::U32(fields)] = fixed.as_slice() else {
            bail!("a D-Bus message has no header");
        };
        let [body, fields] = [*body, *fields].map(|length| length as usize);
        let whole = FIXED
            .saturating_add(fields)
            .next_multiple_of(8)
            .saturating_add(body);
        if whole > MAX_MESSAGE_BYTES {
            bail!("a D-Bus message of {whole} bytes is too large");
        }
        bytes.resize(whole, 0);
        let rest = bytes.get_mut(FIXED..).unwrap_or_default();
        self.stream.read_exact(rest).context(fail)?;
        Message::decode(&bytes)
    }

    /// Calls a method and waits for its result.
    pub(crate) fn call(&mut self, message: Message) -> Result<Vec<Value>> {
        let serial = self.send(message)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let message = self.receive()?;
            match message.kind {
                REPLY if message.reply_to == serial => return Ok(message.body),
                ERROR if message.reply_to == serial => {
                    let text = message.body.first().and_then(Value::as_text);
                    return Err(anyhow!(Refused {
                        text: text.unwrap_or("refused").to_owned(),
                        name: message.error,
                    }));
                }
                SIGNAL => self.pending.push(message),
                _ => {}
            }
        }
        bail!("the message bus does not answer in time")
    }

    /// Waits for a signal.
    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&Message) -> bool) -> Result<Message> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(index) = self.pending.iter().position(&wanted) {
                return Ok(self.pending.swap_remove(index));
            }
            let message = self.receive()?;
            if message.kind == SIGNAL {
                self.pending.push(message);
            }
        }
        bail!("no answer in time")
    }
}

/// Connects to the first of the addresses that works.
fn dial(addresses: &str) -> Result<UnixStream> {
    let mut last = anyhow!("the address of the message bus names no unix socket: {addresses:?}");
    for address in addresses.split(';') {
        let Some(options) = address.strip_prefix("unix:") else {
            continue;
        };
        for option in options.split(',') {
            let connected = match option.split_once('=') {
                Some(("path", path)) => UnixStream::connect(unescape(path)),
                Some(("abstract", name)) => SocketAddr::from_abstract_name(unescape(name))
                    .and_then(|address| UnixStream::connect_addr(&address)),
                _ => continue,
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last = anyhow!(error).context(format!("cannot connect to {address}"));
                }
            }
        }
    }
    Err(last)
}

/// `%20` and the like.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        if byte == b'%'
            && let Some((high, low)) = digit().zip(digit())
        {
            out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_encoded_message_is_the_same() {
        let mut message = Message::call("a.b", "/a", "a.b.C", "Do").with(vec![
            Value::text("x"),
            Value::U64(7),
            Value::Bool(false),
        ]);
        message.serial = 9;
        assert_eq!(Message::decode(&message.encode()).expect("decode"), message);
    }

    #[test]
    fn unescape_percent_signs() {
        assert_eq!(unescape("/a%20b%2fc"), "/a b/c");
    }
}

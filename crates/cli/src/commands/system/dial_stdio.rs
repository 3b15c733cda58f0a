//! `hull system dial-stdio`: the daemon's socket on the standard streams, for whoever comes by ssh.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use clap::Args;

use crate::context::Context;
use crate::error::{CliError, io_text};
use crate::spec::{Arity, command};

/// Bytes passed on at a time.
const CHUNK: usize = 64 << 10;

/// Arguments of `hull system dial-stdio`.
#[derive(Debug, Args)]
pub(crate) struct DialArgs {}

command!(
    DialArgs,
    run,
    names = ["system dial-stdio"],
    usage = "",
    about = "Proxy the standard streams to the daemon's socket",
    arity = Arity::None,
);

async fn run(context: &Context, _args: DialArgs) -> Result<u8, CliError> {
    if context.socket.as_os_str().is_empty() {
        return Err(CliError::new(
            "system dial-stdio serves a socket of this host: name it by unix:///PATH",
        ));
    }
    // Starts the daemon where none listens.
    drop(context.client().await?);
    let fail = |error: io::Error| {
        CliError::new(format!(
            "cannot pass unix://{} on: {}",
            context.socket.display(),
            io_text(&error)
        ))
    };
    let socket = UnixStream::connect(&context.socket).map_err(fail)?;
    let mut writer = socket.try_clone().map_err(fail)?;
    // Unbuffered: what comes is to go at once.
    let dup = |fd: rustix::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    let mut input = dup(rustix::stdio::stdin()).map_err(fail)?;
    let mut output = dup(rustix::stdio::stdout()).map_err(fail)?;
    std::thread::Builder::new()
        .name("dial-input".to_owned())
        .spawn(move || {
            // Whoever stops reading has ended the connection, which the other direction notices.
            let _ = pass(&mut input, &mut writer);
            let _ = writer.shutdown(Shutdown::Write);
        })
        .map_err(fail)?;
    let mut reader = socket;
    match pass(&mut reader, &mut output) {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(fail(error)),
    }
}

fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

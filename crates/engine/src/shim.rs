//! The daemon's end of a shim: start one, find one again, call it, hear its events.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hull_model::{Error, ErrorKind, Result};
use hull_proto::message::{Call, SOCKET};
use hull_proto::{Decoder, Event, Message, Reply, Request, encode};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use crate::standby::Shims;

/// A control connection.
#[derive(Debug)]
pub(crate) struct Shim {
    /// Frames are written one after the other.
    writer: AsyncMutex<tokio::net::unix::OwnedWriteHalf>,
    pending: Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>,
    next: AtomicU64,
    /// Process id, if we started it and have to reap it.
    child: Option<rustix::process::Pid>,
}

/// What a control connection tells without being asked.
#[derive(Debug)]
pub(crate) enum Notice {
    /// An event of the shim.
    Event(Event),
    /// The connection ended: the shim is gone.
    Closed,
}

impl Shim {
    /// Has a shim serve `dir` and connects to it.
    ///
    /// The listening socket is made by us and inherited, so that connecting needs no waiting.
    pub(crate) async fn spawn(
        shims: &Shims,
        dir: &Path,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Notice>)> {
        let fail = |what: &str, e: std::io::Error| {
            Error::internal(format!("cannot {what} {}", dir.display()), e)
        };
        let socket = dir.join(SOCKET);
        let listener =
            UnixListener::bind(&socket).map_err(|e| fail("make the control socket in", e))?;
        let stream = std::os::unix::net::UnixStream::connect(&socket)
            .map_err(|e| fail("connect to the shim in", e))?;
        stream
            .set_nonblocking(true)
            .map_err(|e| fail("connect to the shim in", e))?;
        let pid = shims.start(dir, listener.as_fd())?;
        drop(listener);
        let stream = UnixStream::from_std(stream).map_err(|e| fail("connect to the shim in", e))?;
        Ok(Self::over(stream, Some(pid)))
    }

    /// Connects to the shim that serves `dir`, if it lives.
    pub(crate) async fn connect(
        dir: &Path,
    ) -> std::io::Result<(Arc<Self>, mpsc::UnboundedReceiver<Notice>)> {
        Ok(Self::over(
            UnixStream::connect(dir.join(SOCKET)).await?,
            None,
        ))
    }

    fn over(
        stream: UnixStream,
        child: Option<rustix::process::Pid>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Notice>) {
        let (reader, writer) = stream.into_split();
        let shim = Arc::new(Self {
            writer: AsyncMutex::new(writer),
            pending: Mutex::new(Some(HashMap::new())),
            next: AtomicU64::new(1),
            child,
        });
        let (sender, notices) = mpsc::unbounded_channel();
        tokio::spawn(Arc::clone(&shim).read(reader, sender));
        (shim, notices)
    }

    async fn read(
        self: Arc<Self>,
        mut reader: OwnedReadHalf,
        sender: mpsc::UnboundedSender<Notice>,
    ) {
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; 8 << 10];
        'connection: while let Ok(n @ 1..) = reader.read(&mut buffer).await {
            decoder.push(buffer.get(..n).unwrap_or_default());
            loop {
                match decoder.next_message::<Message>() {
                    Ok(Some(Message::Reply { seq, reply })) => {
                        let waiter = self.lock().as_mut().and_then(|map| map.remove(&seq));
                        if let Some(waiter) = waiter {
                            let _ = waiter.send(reply);
                        }
                    }
                    Ok(Some(Message::Event(event))) => {
                        let _ = sender.send(Notice::Event(event));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "shim sent a malformed frame");
                        break 'connection;
                    }
                }
            }
        }
        // Waiters see their channel closed.
        *self.lock() = None;
        let _ = sender.send(Notice::Closed);
        if let Some(pid) = self.child {
            // The shim exits when it closes the connection; only then is it reaped.
            let _ = tokio::task::spawn_blocking(move || {
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())
            })
            .await;
        }
    }

    /// Sends a request with descriptors and waits for its reply. `Reply::Failed` is an error.
    pub(crate) async fn call(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = encode(&Call { seq, request })
            .map_err(|e| Error::internal("cannot encode a request to the shim", e))?;
        let (sender, receiver) = oneshot::channel();
        match self.lock().as_mut() {
            Some(map) => map.insert(seq, sender),
            None => return Err(gone()),
        };
        self.write(&frame, fds)
            .await
            .map_err(|e| Error::internal("cannot write to the shim", e))?;
        match receiver.await {
            Ok(Reply::Failed(failure)) => Err(Error::new(failure.kind, failure.message)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(gone()),
        }
    }

    async fn write(&self, frame: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        let writer = self.writer.lock().await;
        let stream: &UnixStream = writer.as_ref();
        let (mut sent, mut fds) = (0, fds);
        while let Some(rest @ [_, ..]) = frame.get(sent..) {
            let step = || hull_sys::fdpass::send(stream, rest, fds).map_err(std::io::Error::from);
            stream.ready(Interest::WRITABLE).await?;
            match stream.try_io(Interest::WRITABLE, step) {
                Ok(n) => {
                    sent += n;
                    fds = &[];
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Reply>>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "the container's shim is gone")
}

/// A connected pair: one end for the shim, one for us.
pub(crate) fn stream_pair() -> Result<(OwnedFd, UnixStream)> {
    let fail = |e| Error::internal("cannot make a socket pair", e);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(fail)?;
    ours.set_nonblocking(true).map_err(fail)?;
    Ok((theirs.into(), UnixStream::from_std(ours).map_err(fail)?))
}

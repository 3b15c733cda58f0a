//! Bodies that stream: replies read piece by piece, uploads fed through a channel.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::ClientError;

/// Longest line of a stream of JSON lines.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// Pieces of an upload that may wait in the channel.
const UPLOAD_QUEUE: usize = 4;

/// The body of a reply, read as it comes.
#[derive(Debug)]
pub struct ByteStream {
    body: Incoming,
    request: String,
    buffer: BytesMut,
    ready: VecDeque<Bytes>,
}

impl ByteStream {
    pub(crate) fn new(body: Incoming, request: String) -> Self {
        Self {
            body,
            request,
            buffer: BytesMut::new(),
            ready: VecDeque::new(),
        }
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        if let Some(ready) = self.ready.pop_front() {
            return Ok(Some(ready));
        }
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
                Some(Err(source)) => {
                    return Err(ClientError::Transport {
                        request: self.request.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// Exactly `length` bytes; `None` where the stream ends before the first of them.
    pub async fn exact(&mut self, length: usize) -> Result<Option<Bytes>, ClientError> {
        while self.buffer.len() < length {
            match self.next().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(ClientError::Stream("the stream ends within a frame")),
            }
        }
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// The next line of JSON; `None` at the end.
    pub async fn next_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            let Some(line) = self.next_line().await? else {
                return Ok(None);
            };
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return serde_json::from_slice(&line)
                .map(Some)
                .map_err(|source| ClientError::Decode {
                    request: self.request.clone(),
                    source,
                });
        }
    }

    /// The next line without its end; `None` at the end of the stream.
    pub async fn next_line(&mut self) -> Result<Option<Bytes>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(position) = self
                .buffer
                .get(searched..)
                .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
            {
                let line = self.buffer.split_to(searched + position).freeze();
                self.buffer.advance(1);
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                return Err(ClientError::TooLarge {
                    request: self.request.clone(),
                    limit: MAX_LINE,
                });
            }
            match self.next().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(self.buffer.split().freeze())),
            }
        }
    }
}

/// Where the pieces of an upload are put in.
#[derive(Debug, Clone)]
pub struct UploadSender(mpsc::Sender<std::io::Result<Bytes>>);

impl UploadSender {
    /// Sends a piece from a thread that may block; false where the request is over.
    pub fn blocking_send(&self, piece: std::io::Result<Bytes>) -> bool {
        self.0.blocking_send(piece).is_ok()
    }

    /// Sends a piece; false where the request is over.
    pub async fn send(&self, piece: std::io::Result<Bytes>) -> bool {
        self.0.send(piece).await.is_ok()
    }
}

/// A channel whose far end is a request's body.
pub fn upload_channel() -> (UploadSender, crate::RequestBody) {
    let (sender, receiver) = mpsc::channel(UPLOAD_QUEUE);
    (
        UploadSender(sender),
        crate::RequestBody::Stream(ChannelBody(receiver)),
    )
}

/// A body fed through a channel.
#[derive(Debug)]
pub struct ChannelBody(mpsc::Receiver<std::io::Result<Bytes>>);

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

//! Patience: neither silence nor a trickle of bytes holds anybody up for ever.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Response;

use crate::link::chain;

/// How long a registry may keep silent, unless the settings say otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// A connection that brings less than this within the patience is broken off: it is held open on
/// purpose or by mistake.
pub(crate) const SLOWEST: u64 = 4 << 10;
/// So many times the patience may pass before an answer begins: a registry may have to ask
/// another one first.
pub(crate) const ANSWER: u32 = 2;
/// So many times the patience may pass before the answer to an upload, which a registry may have
/// to read and to copy first, and without a byte of it being taken.
pub(crate) const UPLOAD: u32 = 10;

/// An answer whose body is read with patience.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    answer: &'a mut Response,
    patience: Duration,
    since: Instant,
    seen: u64,
}

impl<'a> Watched<'a> {
    pub(crate) fn new(answer: &'a mut Response, patience: Duration) -> Self {
        Self {
            answer,
            patience,
            since: Instant::now(),
            seen: 0,
        }
    }

    /// The next bytes, none at the end; else why there will be no more.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        let next = tokio::time::timeout(self.patience, self.answer.chunk());
        let chunk = match next.await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) => return Err(chain(&error)),
            Err(_) => return Err(format!("nothing came for {}", shown(self.patience))),
        };
        self.seen += chunk.len() as u64;
        if self.since.elapsed() >= self.patience {
            if self.seen < SLOWEST {
                return Err(format!(
                    "less than {SLOWEST} bytes came within {}",
                    shown(self.patience)
                ));
            }
            (self.since, self.seen) = (Instant::now(), 0);
        }
        Ok(Some(chunk))
    }

    /// The time that the reader took is not the registry's.
    pub(crate) fn forgive(&mut self, time: Duration) {
        self.since += time;
    }

    /// Reads all of it. Nothing if it is larger than the limit.
    pub(crate) async fn whole(&mut self, limit: u64) -> Result<Option<Vec<u8>>, String> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }
}

/// Seconds, with a fraction only where there is one.
pub(crate) fn shown(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

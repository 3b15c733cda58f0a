//! Containers: attach, logs, wait, stats: what answers for as long as the container lives.
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::Uri;
use hull_api_types::container::{WaitError, WaitResponse};
use hull_engine::{LogEntry, LogOptions, Logs, WaitCondition};
use hull_model::spec::Attach;

use super::Eng;
use crate::body;
use crate::detach::DetachKeys;
use crate::error::{ApiError, ApiResult};
use crate::hijack::{self, Hijack, Relay};
use crate::params::Params;
use crate::translate::{stats, time};
use crate::version::ApiVersion;

/// Log entries sent in one chunk.
const LOG_BATCH: usize = 128;
/// Log replayed before an attachment, bytes.
const MAX_REPLAY: usize = 16 << 20;
/// Time between two readings.
const STATS_PERIOD: Duration = Duration::from_secs(1);

/// `POST /containers/{name}/wait`: the head at once, the JSON when it ended.
pub(crate) async fn wait(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    let condition = match params.get("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => {
            return Err(ApiError::bad_request(format!(
                "invalid condition: {other:?}"
            )));
        }
    };
    let ended = engine.wait(&name, condition)?;
    let (sender, stream) = body::stream();
    tokio::spawn(async move {
        let reply = tokio::select! {
            ended = ended => match ended {
                Ok(result) => WaitResponse {
                    status_code: i64::from(result.code),
                    // Why it could not be started, the start has told.
                    error: None,
                },
                Err(error) => WaitResponse {
                    status_code: 125,
                    error: Some(WaitError { message: error.chain() }),
                },
            },
            () = sender.closed() => return,
        };
        sender.send_json(&reply).await;
    });
    Ok(body::streamed("application/json", stream))
}

/// `POST /containers/{name}/attach`
pub(crate) async fn attach(
    State(engine): Eng,
    Path(name): Path<String>,
    mut request: Request,
) -> ApiResult {
    let version = ApiVersion::of(&request);
    let params = Params::of(request.uri());
    let keys = DetachKeys::parse(params.get("detachKeys"))?;
    let streams = Attach {
        stdin: params.flag("stdin"),
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
    };
    let hijack = Hijack::new(hijack::upgrade(&mut request), request.into_body());
    let replayed = if params.flag("logs") {
        let options = LogOptions {
            stdout: streams.stdout,
            stderr: streams.stderr,
            ..LogOptions::default()
        };
        Some(engine.logs(&name, options)?)
    } else {
        None
    };
    if !params.flag("stream") {
        let Some(logs) = replayed else {
            return Err(ApiError::bad_request(
                "bad parameters: choose stream=1, logs=1 or both to attach",
            ));
        };
        let content_type = hijack::content_type(logs.tty, version);
        let text = collect(logs).await;
        return hijack.farewell(text, content_type);
    }
    let stream = engine.attach(&name, streams).await?;
    let content_type = hijack::content_type(stream.tty, version);
    let keys = (stream.tty && streams.stdin).then_some(keys);
    let before = match replayed {
        Some(logs) => collect(logs).await,
        None => Vec::new(),
    };
    let relay = Relay {
        before,
        detach: keys,
        ..Relay::new(stream.socket)
    };
    Ok(hijack.relay(relay, content_type))
}

/// The log so far, as a client's stream shows it: the youngest part where it is long.
async fn collect(mut logs: Logs) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(entry) = logs.entries.recv().await {
        put(&mut text, &entry, logs.tty, false);
        if text.len() > MAX_REPLAY {
            text.clear();
        }
    }
    text
}

/// Adds an entry as the client reads it.
fn put(out: &mut Vec<u8>, entry: &LogEntry, tty: bool, timestamps: bool) {
    let stamp = if timestamps {
        stamp(&entry.time)
    } else {
        String::new()
    };
    if !tty {
        let length = u32::try_from(stamp.len() + entry.line.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&[entry.stream, 0, 0, 0]);
        out.extend_from_slice(&length.to_be_bytes());
    }
    out.extend_from_slice(stamp.as_bytes());
    out.extend_from_slice(&entry.line);
}

/// Writes a time with all nine digits of its second, so that lines stand below each other.
fn stamp(time: &str) -> String {
    let time = time.strip_suffix('Z').unwrap_or(time);
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    format!("{seconds}.{fraction:0<9}Z ")
}

/// `GET /containers/{name}/logs`
pub(crate) async fn logs(
    State(engine): Eng,
    Path(name): Path<String>,
    request: Request,
) -> ApiResult {
    let version = ApiVersion::of(&request);
    let params = Params::of(request.uri());
    let options = LogOptions {
        follow: params.flag("follow"),
        since_ns: time::timestamp("since", params.get("since"))?,
        until_ns: time::timestamp("until", params.get("until"))?,
        tail: match params.get("tail") {
            "" | "all" => None,
            // Docker shows all where the number makes no sense.
            text => text.parse().ok(),
        },
        stdout: params.flag("stdout"),
        stderr: params.flag("stderr"),
    };
    let timestamps = params.flag("timestamps");
    let Logs { tty, mut entries } = engine.logs(&name, options)?;
    let (sender, stream) = body::stream();
    tokio::spawn(async move {
        let mut batch = Vec::with_capacity(LOG_BATCH);
        loop {
            let count = tokio::select! {
                count = entries.recv_many(&mut batch, LOG_BATCH) => count,
                () = sender.closed() => return,
            };
            if count == 0 {
                return;
            }
            let mut chunk = Vec::new();
            for entry in batch.drain(..) {
                put(&mut chunk, &entry, tty, timestamps);
            }
            if !sender.send(chunk).await {
                return;
            }
        }
    });
    Ok(body::streamed(hijack::content_type(tty, version), stream))
}

/// `GET /containers/{name}/stats`
pub(crate) async fn stats(State(engine): Eng, Path(name): Path<String>, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    let first = engine.stats(&name).await?;
    if !params.flag_or("stream", true) {
        if params.flag("one-shot") || first.stats.is_none() {
            return body::reply(&stats::of(&first, None));
        }
        tokio::time::sleep(STATS_PERIOD).await;
        let second = engine.stats(&name).await?;
        return body::reply(&stats::of(&second, Some(&first)));
    }
    let (sender, stream) = body::stream();
    tokio::spawn(async move {
        let mut before = None;
        let mut now = first;
        loop {
            if !sender.send_json(&stats::of(&now, before.as_ref())).await {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(STATS_PERIOD) => {}
                () = sender.closed() => return,
            }
            // By its id: it may be renamed meanwhile, or its name given to another.
            let Ok(next) = engine.stats(&now.record.id).await else {
                return;
            };
            before = Some(std::mem::replace(&mut now, next));
        }
    });
    Ok(body::streamed("application/json", stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> LogEntry {
        LogEntry {
            stream: 2,
            time: "2026-01-01T00:00:00.5Z".into(),
            line: b"hi\n".to_vec(),
        }
    }

    #[test]
    fn entry_without_terminal_is_framed() {
        let mut out = Vec::new();
        put(&mut out, &entry(), false, false);
        assert_eq!(out, b"\x02\0\0\0\0\0\0\x03hi\n");
        out.clear();
        put(&mut out, &entry(), true, false);
        assert_eq!(out, b"hi\n");
    }

    #[test]
    fn timestamp_is_part_of_the_frame() {
        let mut out = Vec::new();
        put(&mut out, &entry(), false, true);
        assert_eq!(out.get(7), Some(&34));
        assert_eq!(
            out.get(8..),
            Some(&b"2026-01-01T00:00:00.500000000Z hi\n"[..])
        );
        assert_eq!(
            stamp("2026-01-01T00:00:00Z"),
            "2026-01-01T00:00:00.000000000Z "
        );
    }
}

//! Health checks: a probe runs in the container now and then, and its record says how it is.

use std::sync::Arc;
use std::time::Duration;

use hull_model::Result;
use hull_model::image::HealthConfig;
use hull_state::{ContainerRecord, ContainerState, HealthProbe};
use tokio::io::AsyncReadExt;

use super::attributes;
use super::entry::{Container, lock};
use super::exec::{ExecSpec, ExecStart};
use crate::Engine;
use crate::clock::now_ns;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// Probes kept in the record.
const KEPT: usize = 5;
/// Output kept of each, bytes.
const MAX_OUTPUT: usize = 4096;

/// Begins the checks of a run, if the container has any.
pub(crate) fn begin(engine: &Arc<Engine>, container: &Arc<Container>, record: &ContainerRecord) {
    let Some(config) = record.spec.healthcheck.clone() else {
        return;
    };
    let Some(command) = command(&config) else {
        return;
    };
    let task = tokio::spawn(check(
        Arc::clone(engine),
        Arc::clone(container),
        config,
        command,
        record.started_at_ns,
    ));
    if let Some(old) = lock(&container.health).replace(task.abort_handle()) {
        old.abort();
    }
}

fn command(config: &HealthConfig) -> Option<Vec<String>> {
    match config.test.split_first() {
        Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => Some(rest.to_vec()),
        Some((kind, rest)) if kind == "CMD-SHELL" && !rest.is_empty() => {
            Some(vec!["/bin/sh".into(), "-c".into(), rest.join(" ")])
        }
        _ => None,
    }
}

fn or(ns: i64, default: Duration) -> Duration {
    u64::try_from(ns)
        .ok()
        .filter(|n| *n > 0)
        .map_or(default, Duration::from_nanos)
}

async fn check(
    engine: Arc<Engine>,
    container: Arc<Container>,
    config: HealthConfig,
    command: Vec<String>,
    started_at_ns: u64,
) {
    let start_period = or(config.start_period, Duration::ZERO);
    loop {
        let starting =
            container.with(|r| r.health.as_ref().is_some_and(|h| h.status == "starting"));
        let grace = now_ns().saturating_sub(started_at_ns) < start_period.as_nanos() as u64;
        let pause = if starting && grace {
            or(config.start_interval, START_INTERVAL)
        } else {
            or(config.interval, INTERVAL)
        };
        tokio::time::sleep(pause).await;
        match container.with(|r| r.state) {
            ContainerState::Running { .. } => {}
            ContainerState::Paused { .. } => continue,
            _ => return,
        }
        let start_ns = now_ns();
        let outcome = probe(&engine, &container, &command, or(config.timeout, TIMEOUT)).await;
        let (exit_code, output) = outcome.unwrap_or_else(|error| (-1, error.chain()));
        let probe = HealthProbe {
            start_ns,
            end_ns: now_ns(),
            exit_code,
            output,
        };
        let retries = u32::try_from(config.retries)
            .ok()
            .filter(|n| *n > 0)
            .unwrap_or(RETRIES);
        if let Err(error) = record(&engine, &container, probe, retries, grace).await {
            tracing::warn!(error = %error.chain(), container = %container.id, "cannot record its health");
        }
    }
}

/// Runs the probe once: its exit code and the begin of its output.
async fn probe(
    engine: &Arc<Engine>,
    container: &Container,
    command: &[String],
    timeout: Duration,
) -> Result<(i32, String)> {
    let spec = ExecSpec {
        cmd: command.to_vec(),
        attach_stdout: true,
        attach_stderr: true,
        tty: false,
        ..ExecSpec::default()
    };
    let id = engine.exec_create(&container.id, spec)?;
    let stream = engine.exec_start(&id, ExecStart::default()).await?;
    let mut output = Vec::new();
    let run = async {
        if let Some(mut stream) = stream {
            let mut buffer = vec![0; 4096];
            let mut frames = Vec::new();
            while let Ok(n @ 1..) = stream.socket.read(&mut buffer).await {
                frames.extend_from_slice(buffer.get(..n).unwrap_or_default());
                take_payload(&mut frames, &mut output);
            }
        }
        engine.exec_wait(&id).await.unwrap_or(-1)
    };
    match tokio::time::timeout(timeout, run).await {
        Ok(code) => Ok((code, String::from_utf8_lossy(&output).into_owned())),
        Err(_) => {
            const SIGKILL: i32 = 9;
            engine.exec_kill(&id, SIGKILL).await?;
            Ok((-1, format!("Health check exceeded timeout ({timeout:?})")))
        }
    }
}

/// Strips the frames' headers, keeping the first [`MAX_OUTPUT`] bytes.
fn take_payload(frames: &mut Vec<u8>, output: &mut Vec<u8>) {
    while let Some((header, rest)) = frames.split_first_chunk::<8>() {
        let [.., a, b, c, d] = *header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(payload) = rest.get(..length) else {
            return;
        };
        let room = MAX_OUTPUT.saturating_sub(output.len());
        output.extend_from_slice(payload.get(..room).unwrap_or(payload));
        frames.drain(..8 + length);
    }
}

async fn record(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    probe: HealthProbe,
    retries: u32,
    grace: bool,
) -> Result<()> {
    let _op = container.op.lock().await;
    let mut record = container.record();
    let Some(health) = record.health.as_mut().filter(|_| record.state.is_running()) else {
        return Ok(());
    };
    let before = health.status.clone();
    if probe.exit_code == 0 {
        health.failing_streak = 0;
        health.status = "healthy".into();
    } else if !(grace && before == "starting") {
        // A failure within the grace time does not count.
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = "unhealthy".into();
        }
    }
    if health.log.len() >= KEPT {
        health.log.remove(0);
    }
    health.log.push(probe);
    let after = health.status.clone();
    container.set(record.clone());
    engine.store_soon(&record)?;
    if before != after {
        engine.events.emit(
            "container",
            format!("health_status: {after}"),
            &container.id,
            attributes(&record),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_payload_waits_for_whole_frames() {
        let (mut frames, mut output) = (vec![1, 0, 0, 0, 0, 0, 0, 2, b'o'], Vec::new());
        take_payload(&mut frames, &mut output);
        assert!(output.is_empty());
        frames.push(b'k');
        take_payload(&mut frames, &mut output);
        assert_eq!((output.as_slice(), frames.len()), (b"ok".as_slice(), 0));
    }

    #[test]
    fn command_of_shell_form_runs_a_shell() {
        let config = |test: &[&str]| HealthConfig {
            test: test.iter().map(|t| (*t).into()).collect(),
            ..HealthConfig::default()
        };
        assert_eq!(
            command(&config(&["CMD-SHELL", "a && b"])).unwrap(),
            ["/bin/sh", "-c", "a && b"]
        );
        assert_eq!(command(&config(&["CMD", "a", "b"])).unwrap(), ["a", "b"]);
        assert_eq!(command(&config(&["NONE"])), None);
    }
}

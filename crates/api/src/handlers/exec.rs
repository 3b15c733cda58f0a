//! Commands in a running container.
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use hull_api_types::exec::{
    ExecCreateRequest, ExecInspect, ExecProcessConfig, ExecStartRequest, IdResponse,
};
use hull_engine::{ExecSpec, ExecStart};
use hull_model::ErrorKind;

use super::Eng;
use super::containers::size;
use crate::body;
use crate::detach::DetachKeys;
use crate::error::ApiResult;
use crate::hijack::{self, Hijack, Relay};
use crate::params::Params;
use crate::version::ApiVersion;

/// `POST /containers/{name}/exec`
pub(crate) async fn create(
    State(engine): Eng,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let wire: ExecCreateRequest = body::json(&headers, body).await?;
    DetachKeys::parse(&wire.detach_keys)?;
    let spec = ExecSpec {
        cmd: wire.cmd,
        env: wire.env,
        user: wire.user,
        working_dir: wire.working_dir,
        tty: wire.tty,
        attach_stdin: wire.attach_stdin,
        attach_stdout: wire.attach_stdout,
        attach_stderr: wire.attach_stderr,
        privileged: wire.privileged,
        detach_keys: wire.detach_keys,
    };
    let id = engine.exec_create(&name, spec)?;
    body::reply_with(StatusCode::CREATED, &IdResponse { id })
}

/// `POST /exec/{id}/start`
pub(crate) async fn start(
    State(engine): Eng,
    Path(id): Path<String>,
    mut request: Request,
) -> ApiResult {
    let version = ApiVersion::of(&request);
    let upgrade = hijack::upgrade(&mut request);
    let (parts, request_body) = request.into_parts();
    let wire: ExecStartRequest = body::optional_json(&parts.headers, request_body).await?;
    let record = engine.exec_inspect(&id)?;
    let start = ExecStart {
        detach: wire.detach,
        console_size: wire.console_size.and_then(console_size),
    };
    let hijack = Hijack::without_body(upgrade);
    let content_type = hijack::content_type(record.spec.tty, version);
    match engine.exec_start(&id, start).await {
        Ok(None) => Ok(Response::new(Body::empty())),
        Ok(Some(stream)) => {
            let keys = if stream.tty && record.spec.attach_stdin {
                Some(DetachKeys::parse(&record.spec.detach_keys)?)
            } else {
                None
            };
            // Clients ask for the exit code once the stream has ended.
            let until = async move {
                engine.exec_wait(&id).await;
            };
            let relay = Relay {
                detach: keys,
                until: Some(Box::pin(until)),
                ..Relay::new(stream.socket)
            };
            Ok(hijack.relay(relay, content_type))
        }
        // As Docker does: the client reads why on its stream, and the exit code by inspect.
        Err(error)
            if !wire.detach
                && matches!(
                    error.kind(),
                    ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable
                ) =>
        {
            let text = format!("{}\r\n", error.chain());
            let text = if record.spec.tty {
                text.into_bytes()
            } else {
                hijack::frame(2, text.as_bytes())
            };
            hijack.farewell(text, content_type)
        }
        Err(error) => Err(error.into()),
    }
}

fn console_size([rows, cols]: [u32; 2]) -> Option<(u16, u16)> {
    let size = (u16::try_from(rows).ok()?, u16::try_from(cols).ok()?);
    (size != (0, 0)).then_some(size)
}

/// `POST /exec/{id}/resize`
pub(crate) async fn resize(State(engine): Eng, Path(id): Path<String>, uri: Uri) -> ApiResult {
    let (rows, cols) = size(&Params::of(&uri))?;
    engine.exec_resize(&id, rows, cols).await?;
    Ok(Response::new(Body::empty()))
}

/// `GET /exec/{id}/json`
pub(crate) async fn inspect(State(engine): Eng, Path(id): Path<String>) -> ApiResult {
    let record = engine.exec_inspect(&id)?;
    let spec = record.spec;
    let mut words = spec.cmd.into_iter();
    body::reply(&ExecInspect {
        id: record.id,
        running: record.running,
        exit_code: record.exit_code.map(i64::from),
        process_config: ExecProcessConfig {
            tty: spec.tty,
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            privileged: Some(spec.privileged),
            user: spec.user,
        },
        open_stdin: spec.attach_stdin,
        open_stderr: spec.attach_stderr,
        open_stdout: spec.attach_stdout,
        can_remove: false,
        container_id: record.container,
        detach_keys: String::new(),
        pid: i64::from(record.pid),
    })
}

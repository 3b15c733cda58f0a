//! Typed client of the Docker Engine API over a unix socket.
//!
//! One [`Client`] keeps an idle connection and uses it again; requests that stream or that take a
//! connection over open one of their own where the idle one is in use. Meant for a current-thread
//! tokio runtime: starting a request costs no thread.

mod archive;
mod body;
mod containers;
mod demux;
mod error;
mod exec;
mod hijack;
mod images;
mod kernels;
mod networks;
mod query;
mod registry;
mod system;
mod transport;
mod volumes;

pub use archive::CommitOptions;
pub use body::{ByteStream, UploadSender, upload_channel};
pub use containers::{
    AttachOptions, ContainerListOptions, LogsOptions, RemoveOptions, WaitCondition,
};
pub use demux::{Demux, StreamKind};
pub use error::ClientError;
pub use hijack::{HijackReader, Hijacked};
pub use images::ImportOptions;
pub use query::Query;
pub use registry::{PullOptions, PushOptions};
pub use system::GcOptions;
pub use transport::{Client, RequestBody};

/// Filters of a list, as the API takes them: name to values.
pub type Filters = std::collections::BTreeMap<String, Vec<String>>;

/// The API version put before each path.
pub const API_VERSION: &str = "v1.47";

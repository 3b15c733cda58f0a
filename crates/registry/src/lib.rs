//! Client of the OCI distribution specification and of Docker's registry version 2.
//!
//! ```text
//! Client ── hosts (certs.d, mirrors) ─┐
//!   └─ Repository ── manifest · blob ─┴─▶ Link (retry, Retry-After) ─▶ Authorizer (basic, bearer)
//!                  └ upload
//! ```
//!
//! A [`Client`] belongs to the daemon and keeps connections and tokens; a [`Repository`] is one
//! name on it with the credentials of one user. Whatever a registry sends is bounded and, where a
//! digest is known, verified.

mod auth;
mod blob;
mod challenge;
mod client;
mod credentials;
mod document;
mod download;
mod error;
mod hosts;
mod link;
mod listing;
mod platform;
mod proxy;
mod referrers;
#[doc(hidden)]
pub mod seams;
mod search;
mod tls;
mod upload;
mod watch;

pub use blob::BlobReader;
pub use client::{Client, Repository, Settings};
pub use credentials::Credentials;
pub use document::{
    Descriptor, Document, Index, Manifest, Parsed, PlatformOf, is_about_another, media,
};
pub use download::Download;
pub use error::RegistryError;
pub use platform::fits;
pub use proxy::Proxies;
pub use referrers::fallback_tag;
pub use search::SearchHit;
pub use upload::Blob;

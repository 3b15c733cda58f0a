//! The name server of each network: names of containers, their addresses, and for all else the
//! host's own name servers.
//!
//! ```text
//! container ──53──▶ bridge's address ──table──▶ our port ──▶ answer ──known──▶ reply
//!                                                              │ unknown
//!                                                              ▼
//!                                            a task of its own ──▶ upstream ──▶ reply
//! ```
//!
//! Whatever a container sends is foreign: it is parsed with every length checked, and what one
//! container asks for holds up no other. How many look-ups wait for upstream servers is bounded, in
//! all and for each container; beyond that the answer is an immediate failure.

mod answer;
mod gate;
mod probe;
mod quick;
pub mod seam;
mod server;
mod upstream;
mod zones;

pub use probe::is_served;
pub use server::{NameServer, Served};
pub use zones::{HOST_NAMES, Member, MemberLink, Zone, Zone6, Zones};

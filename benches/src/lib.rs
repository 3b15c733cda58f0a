//! Measurements against peers, side by side in one run on one machine.

pub mod docker;
pub mod measure;
pub mod memory;
pub mod oci;
pub mod report;
pub mod runc;

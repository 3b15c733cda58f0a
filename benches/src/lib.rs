//! Measurements against peers, side by side in one run on one machine.

pub mod bigimage;
pub mod docker;
pub mod hull;
pub mod measure;
pub mod memory;
pub mod netload;
pub mod netns;
pub mod oci;
pub mod podman;
pub mod registry;
pub mod report;
pub mod runc;

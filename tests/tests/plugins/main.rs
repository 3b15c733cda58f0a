//! hull-oci as the runtime of other engines: Debian's dockerd, containerd and Podman.

mod containerd;
mod cri;
mod docker;
mod kit;
mod podman;

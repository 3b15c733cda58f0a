//! What the host lacks, in a Debian guest: pure cgroup v2, users without privileges, a real systemd.

mod kit;
mod pure_v2;
mod rootless;
mod systemd;
mod systemd_cgroups;

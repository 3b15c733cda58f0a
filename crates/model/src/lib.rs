//! Names, ids, references, digests, limits, mounts, ports: plain data without I/O.

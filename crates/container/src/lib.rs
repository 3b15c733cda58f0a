//! A launch plan becomes a process.

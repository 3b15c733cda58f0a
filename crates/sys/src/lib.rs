//! System calls and the unsafe code they need.

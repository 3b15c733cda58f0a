//! Messages between daemon, shim and agent.

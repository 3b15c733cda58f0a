//! The sandbox contract and the loop that serves it.

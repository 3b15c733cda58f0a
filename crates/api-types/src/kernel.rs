//! Guest kernels, which are Hull's own.

wire! {
    /// An installed kernel.
    #[derive(Eq)]
    pub struct Kernel {
        name: String,
        /// As `uname -r` says in the guest.
        version: String,
        architecture: String,
        /// What it was built of.
        source: String,
        /// Of the file.
        digest: String,
        /// Of what it was configured with; empty if that is not known.
        config_digest: String,
        size: u64,
        created_at: String,
        /// Used where none is asked for.
        default: bool,
        path: String,
    }
}

//! Garbage collection, which is Hull's own.

wire! {
    /// Reply of `POST /hull/gc`.
    #[derive(Eq)]
    pub struct GcReport {
        /// Images, in the order in which they went.
        images: Vec<GcImage>,
        layers_deleted: u64,
        /// Documents that no image needed.
        documents_deleted: u64,
        space_reclaimed: u64,
        /// Bytes of the layers that stay.
        space_kept: u64,
        /// Nothing went; this is what would.
        dry_run: bool,
    }
}

wire! {
    /// An image that went.
    #[derive(Eq)]
    pub struct GcImage {
        id: String,
        names: Vec<String>,
        /// unnamed, idle or budget.
        reason: String,
        /// RFC 3339.
        last_used: String,
        /// Bytes that were free without it.
        size: u64,
    }
}

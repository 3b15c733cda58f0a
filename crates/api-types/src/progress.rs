//! The messages that long work (load, import, pull) streams, one JSON object a line.

wire! {
    /// A step, a line of output, or a failure.
    pub snake struct JsonMessage {
        /// Text printed as it is.
        stream!: String,
        status!: String,
        #[serde(rename = "progressDetail")]
        progress_detail?: ProgressDetail,
        /// The bar drawn by the server for old clients.
        progress!: String,
        /// What the status is about; a terminal updates its line in place.
        id!: String,
        from!: String,
        #[serde(rename = "errorDetail")]
        error_detail?: JsonError,
        error!: String,
        aux?: serde_json::Value,
    }
}

wire! {
    /// How far the work is; all zero ends a bar.
    #[derive(Eq)]
    pub snake struct ProgressDetail {
        current!: i64,
        total!: i64,
        start!: i64,
        /// "" is bytes.
        units!: String,
    }
}

wire! {
    /// A failure after the stream began.
    #[derive(Eq)]
    pub snake struct JsonError {
        code!: i64,
        message: String,
    }
}

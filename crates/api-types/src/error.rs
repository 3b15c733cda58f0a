//! The body of every reply that reports a failure.
wire! {
    /// `{"message": "…"}`.
    #[derive(Eq)]
    pub snake struct ErrorResponse {
        message: String,
    }
}

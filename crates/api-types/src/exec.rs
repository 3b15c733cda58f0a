//! Commands run in a running container.

wire! {
    /// Body of `POST /containers/{id}/exec`.
    #[derive(Eq)]
    pub struct ExecCreateRequest {
        user: String,
        privileged: bool,
        tty: bool,
        /// Height and width.
        console_size?: [u32; 2],
        attach_stdin: bool,
        attach_stderr: bool,
        attach_stdout: bool,
        detach!: bool,
        detach_keys: String,
        env: Vec<String>,
        working_dir: String,
        cmd: Vec<String>,
    }
}

wire! {
    /// Reply of `POST /containers/{id}/exec`, and of others that make one thing.
    #[derive(Eq)]
    pub struct IdResponse {
        id: String,
    }
}

wire! {
    /// Body of `POST /exec/{id}/start`.
    #[derive(Eq)]
    pub struct ExecStartRequest {
        detach: bool,
        tty: bool,
        /// Height and width.
        console_size?: [u32; 2],
    }
}

wire! {
    /// Reply of `GET /exec/{id}/json`.
    #[derive(Eq)]
    pub struct ExecInspect {
        #[serde(rename = "ID")]
        id: String,
        running: bool,
        /// `None` until it ended.
        exit_code: Option<i64>,
        process_config: ExecProcessConfig,
        open_stdin: bool,
        open_stderr: bool,
        open_stdout: bool,
        can_remove: bool,
        #[serde(rename = "ContainerID")]
        container_id: String,
        /// Base64.
        detach_keys: String,
        pid: i64,
    }
}

wire! {
    /// The command of an exec.
    #[derive(Eq)]
    pub snake struct ExecProcessConfig {
        tty: bool,
        entrypoint: String,
        arguments: Vec<String>,
        privileged?: bool,
        user!: String,
    }
}

//! How a command fails: a text for standard error and an exit code, as Docker gives them.

use hull_client::ClientError;

/// Exit code of errors of the engine or of flags, under `run` and for malformed flags.
pub(crate) const ENGINE_ERROR: u8 = 125;
/// Exit code of a command that cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code of a command that is not there.
const NOT_FOUND: u8 = 127;

/// Why a command ends other than well.
#[derive(Debug)]
pub(crate) enum CliError {
    /// A text and an exit code.
    Message {
        /// Printed to standard error as it is.
        text: String,
        /// The exit code.
        code: u8,
    },
    /// Standard output is closed; nobody wants to read more.
    ClosedPipe,
}

impl CliError {
    /// An ordinary failure, exit code 1.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Message {
            text: text.into(),
            code: 1,
        }
    }

    /// A failure with an exit code of its own.
    pub(crate) fn with_code(text: impl Into<String>, code: u8) -> Self {
        Self::Message {
            text: text.into(),
            code,
        }
    }

    /// The text.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Message { text, .. } => text,
            Self::ClosedPipe => "",
        }
    }

    /// The error as `run` and `start` report it: `hull: TEXT`, a pointer to the help, and 125, 126 or 127.
    pub(crate) fn of_start(self, command: &str) -> Self {
        let Self::Message { text, .. } = self else {
            return self;
        };
        let code = start_code(&text);
        Self::Message {
            text: help_pointer(&text, command),
            code,
        }
    }

    /// The error of a command in a running container: 126 or 127 where it cannot be executed, else 1.
    pub(crate) fn of_exec(self) -> Self {
        let Self::Message { text, .. } = self else {
            return self;
        };
        let code = match start_code(&text) {
            ENGINE_ERROR => 1,
            code => code,
        };
        Self::Message { text, code }
    }

    /// The error as `run` and `create` report wrong options: as [`Self::of_start`], but always 125.
    pub(crate) fn of_options(self, command: &str) -> Self {
        let Self::Message { text, .. } = self else {
            return self;
        };
        Self::Message {
            text: help_pointer(&text, command),
            code: ENGINE_ERROR,
        }
    }
}

fn help_pointer(text: &str, command: &str) -> String {
    format!("hull: {text}\n\nRun 'hull {command} --help' for more information")
}

/// Docker's exit code for a failed start, which it takes from the text.
fn start_code(text: &str) -> u8 {
    if text.contains("executable file not found") || text.contains("no such file or directory") {
        NOT_FOUND
    } else if text.contains("permission denied")
        || text.contains("is a directory")
        || text.contains("exec format error")
    {
        NOT_EXECUTABLE
    } else {
        ENGINE_ERROR
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Api { message, .. } => {
                Self::new(format!("Error response from daemon: {message}"))
            }
            ClientError::Connect { path, source }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Self::new(format!(
                    "permission denied while trying to connect to the Hull daemon socket at unix://{}: run as root or join the socket's group",
                    path.display()
                ))
            }
            ClientError::Connect { path, .. } => Self::new(format!(
                "Cannot connect to the Hull daemon at unix://{}. Is the hull daemon running?",
                path.display()
            )),
            _ => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    let cause_text = cause.to_string();
                    if !text.ends_with(&cause_text) {
                        text.push_str(": ");
                        text.push_str(&cause_text);
                    }
                    source = cause.source();
                }
                Self::new(text)
            }
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        Self::new(io_text(&error))
    }
}

impl From<crate::template::TemplateError> for CliError {
    fn from(error: crate::template::TemplateError) -> Self {
        Self::new(format!("template parsing error: {error}"))
    }
}

/// The kernel's words for an error, as Go prints them: lower case, without the number.
pub(crate) fn io_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        std::io::ErrorKind::AlreadyExists => "file exists".to_owned(),
        _ => {
            let text = error.to_string();
            match text.find(" (os error") {
                Some(end) => text[..end].to_lowercase(),
                None => text,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_code_follows_the_text() {
        assert_eq!(
            start_code("exec: \"foo\": executable file not found in $PATH: unknown"),
            127
        );
        assert_eq!(
            start_code("exec: \"/etc/passwd\": permission denied: unknown"),
            126
        );
        assert_eq!(start_code("exec: \"/etc\": is a directory"), 126);
        assert_eq!(start_code("Conflict. The container name is in use"), 125);
    }
}

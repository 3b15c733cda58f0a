//! Who asks.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// Credentials for one registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// None.
    #[default]
    Anonymous,
    /// Name and password.
    Basic {
        /// Name.
        user: String,
        /// Password or access token.
        password: String,
    },
    /// A refresh token of OAuth 2.
    Identity(String),
    /// A bearer token, used as it is.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets do not go into logs.
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { user, .. } => write!(f, "Basic({user})"),
            Self::Identity(_) => f.write_str("Identity"),
            Self::Token(_) => f.write_str("Token"),
        }
    }
}

/// Docker's `AuthConfig`.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct AuthConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    password: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    auth: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    identitytoken: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    registrytoken: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    serveraddress: String,
}

impl Credentials {
    /// Reads the `X-Registry-Auth` header of Docker's API: base64url of JSON. Empty is anonymous.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_header(header: &str) -> Result<Self, String> {
        let header = header.trim();
        if header.is_empty() {
            return Ok(Self::Anonymous);
        }
        let bytes = URL_SAFE
            .decode(header)
            .or_else(|_| URL_SAFE_NO_PAD.decode(header))
            .or_else(|_| STANDARD.decode(header))
            .map_err(|_| "X-Registry-Auth is not base64".to_owned())?;
        if bytes.is_empty() {
            return Ok(Self::Anonymous);
        }
        Self::from_json(&bytes)
    }

    /// Reads Docker's `AuthConfig` in JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let config: AuthConfig = serde_json::from_slice(bytes)
            .map_err(|error| format!("credentials are not valid JSON: {error}"))?;
        if !config.identitytoken.is_empty() {
            return Ok(Self::Identity(config.identitytoken));
        }
        if !config.registrytoken.is_empty() {
            return Ok(Self::Token(config.registrytoken));
        }
        if !config.auth.is_empty() && config.username.is_empty() {
            return Self::from_pair(&config.auth);
        }
        if config.username.is_empty() && config.password.is_empty() {
            return Ok(Self::Anonymous);
        }
        Ok(Self::Basic {
            user: config.username,
            password: config.password,
        })
    }

    /// Reads base64 of `user:password`, as Docker's config.json keeps it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_pair(text: &str) -> Result<Self, String> {
        let wrong = || "stored credentials are not base64 of user:password".to_owned();
        let bytes = STANDARD.decode(text.trim()).map_err(|_| wrong())?;
        let pair = String::from_utf8(bytes).map_err(|_| wrong())?;
        let (user, password) = pair.split_once(':').ok_or_else(wrong)?;
        Ok(Self::Basic {
            user: user.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        })
    }

    /// The `X-Registry-Auth` header for these.
    pub fn to_header(&self) -> String {
        let mut config = AuthConfig::default();
        match self {
            Self::Anonymous => {}
            Self::Basic { user, password } => {
                config.username.clone_from(user);
                config.password.clone_from(password);
            }
            Self::Identity(token) => config.identitytoken.clone_from(token),
            Self::Token(token) => config.registrytoken.clone_from(token),
        }
        URL_SAFE.encode(serde_json::to_vec(&config).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_goes_back_and_forth() {
        for credentials in [
            Credentials::Anonymous,
            Credentials::Basic {
                user: "u".into(),
                password: "p:ö".into(),
            },
            Credentials::Identity("i".into()),
        ] {
            let back = Credentials::from_header(&credentials.to_header());
            assert_eq!(back, Ok(credentials));
        }
        assert_eq!(Credentials::from_header(""), Ok(Credentials::Anonymous));
        assert!(Credentials::from_header("!").is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!(
            "{:?}",
            Credentials::Basic {
                user: "u".into(),
                password: "secret".into()
            }
        );
        assert!(!shown.contains("secret"));
    }
}

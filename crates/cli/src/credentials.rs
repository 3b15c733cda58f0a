//! Credentials for registries, kept where Docker keeps them: `config.json` of `$DOCKER_CONFIG` or
//! `~/.docker`, or a helper program named there (`docker-credential-NAME`).

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::CliError;

/// Under which Docker Hub is kept.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// User name by which a helper says that its secret is a token.
const TOKEN_USER: &str = "<token>";

/// Docker's `AuthConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Auth {
    /// Name.
    pub(crate) username: String,
    /// Password.
    pub(crate) password: String,
    /// Refresh token instead of both.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) identitytoken: String,
    /// The registry.
    pub(crate) serveraddress: String,
}

impl Auth {
    /// As the header `X-Registry-Auth`.
    pub(crate) fn header(&self) -> String {
        URL_SAFE.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// The file, with all that it holds besides credentials kept as it is.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    config: Map<String, Value>,
}

/// The key of a registry: its host, or Docker Hub's.
pub(crate) fn key(registry: &str) -> String {
    let host = registry
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB_KEY.to_owned(),
        host => host.to_owned(),
    }
}

/// Docker's folder of what belongs to the user.
pub(crate) fn config_dir() -> PathBuf {
    match std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
            .join(".docker"),
    }
}

impl Store {
    /// Reads the file; a missing one is empty.
    pub(crate) fn open() -> Result<Self, CliError> {
        Self::read(config_dir().join("config.json"))
    }

    fn read(path: PathBuf) -> Result<Self, CliError> {
        let config = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                CliError::new(format!("{} is not valid: {error}", path.display()))
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => Map::new(),
            Err(error) => {
                return Err(CliError::new(format!(
                    "cannot read {}: {error}",
                    path.display()
                )));
            }
        };
        Ok(Self { path, config })
    }

    /// What is known of a registry; nothing is no error.
    pub(crate) fn get(&self, registry: &str) -> Result<Option<Auth>, CliError> {
        let key = key(registry);
        if let Some(helper) = self.helper(&key) {
            return from_helper(&helper, &key);
        }
        self.stored(key)
    }

    /// What the file itself has under a key.
    fn stored(&self, key: String) -> Result<Option<Auth>, CliError> {
        let Some(entry) = self.config.get("auths").and_then(|auths| {
            let auths = auths.as_object()?;
            auths.get(&key).or_else(|| {
                auths
                    .iter()
                    .find(|(name, _)| self::key(name) == key)
                    .map(|(_, e)| e)
            })
        }) else {
            return Ok(None);
        };
        let mut auth: Auth = serde_json::from_value(entry.clone()).unwrap_or_default();
        if let Some(pair) = entry
            .get("auth")
            .and_then(Value::as_str)
            .filter(|p| !p.is_empty())
        {
            let decoded = STANDARD.decode(pair.trim()).ok();
            let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            let (user, password) = text
                .as_deref()
                .and_then(|text| text.split_once(':'))
                .ok_or_else(|| {
                    CliError::new(format!(
                        "{}: credentials of {key} are not base64 of user:password",
                        self.path.display()
                    ))
                })?;
            auth.username = user.to_owned();
            auth.password = password.trim_end_matches('\0').to_owned();
        }
        auth.serveraddress = key;
        Ok(Some(auth))
    }

    /// Keeps credentials. Returns a warning where they lie unencrypted.
    pub(crate) fn put(&mut self, auth: &Auth) -> Result<Option<String>, CliError> {
        let key = auth.serveraddress.clone();
        if let Some(helper) = self.helper(&key) {
            let (user, secret) = if auth.identitytoken.is_empty() {
                (auth.username.as_str(), auth.password.as_str())
            } else {
                (TOKEN_USER, auth.identitytoken.as_str())
            };
            let request = json!({"ServerURL": key, "Username": user, "Secret": secret});
            run_helper(&helper, "store", request.to_string().as_bytes())?;
            return Ok(None);
        }
        let mut entry = json!({
            "auth": STANDARD.encode(format!("{}:{}", auth.username, auth.password))
        });
        if !auth.identitytoken.is_empty() {
            entry = json!({
                "auth": STANDARD.encode(format!("{}:", auth.username)),
                "identitytoken": auth.identitytoken
            });
        }
        self.auths().insert(key, entry);
        self.write()?;
        Ok(Some(format!(
            "WARNING! Your credentials are stored unencrypted in '{}'.",
            self.path.display()
        )))
    }

    /// Forgets credentials; false if there were none.
    pub(crate) fn remove(&mut self, registry: &str) -> Result<bool, CliError> {
        let key = key(registry);
        if let Some(helper) = self.helper(&key) {
            run_helper(&helper, "erase", key.as_bytes())?;
            return Ok(true);
        }
        let known = self.auths().remove(&key).is_some();
        if known {
            self.write()?;
        }
        Ok(known)
    }

    fn auths(&mut self) -> &mut Map<String, Value> {
        let auths = self.config.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        match auths {
            Value::Object(map) => map,
            _ => unreachable!("it was made an object"),
        }
    }

    fn helper(&self, key: &str) -> Option<String> {
        let own = self
            .config
            .get("credHelpers")
            .and_then(|helpers| helpers.get(key));
        own.or_else(|| self.config.get("credsStore"))
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
    }

    /// The file is absent, old or new, and readable by its owner alone.
    fn write(&self) -> Result<(), CliError> {
        let fail = |error: std::io::Error| {
            CliError::new(format!("cannot write {}: {error}", self.path.display()))
        };
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(fail)?;
        let fresh = self
            .path
            .with_extension(format!("json.{}", std::process::id()));
        let text = serde_json::to_vec_pretty(&self.config).unwrap_or_default();
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&fresh, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written.map_err(fail)
    }
}

/// Where fuzzers reach this: user, password and token that a config.json has for a registry, none
/// if it is malformed or has none. No helper runs.
#[doc(hidden)]
pub fn seam(config: &[u8], registry: &str) -> Option<(String, String, String)> {
    let store = Store {
        path: PathBuf::new(),
        config: serde_json::from_slice(config).ok()?,
    };
    let auth = store.stored(key(registry)).ok()??;
    // A header is made of all that was accepted.
    let _ = auth.header();
    Some((auth.username, auth.password, auth.identitytoken))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

fn from_helper(helper: &str, key: &str) -> Result<Option<Auth>, CliError> {
    let Some(output) = run_helper(helper, "get", key.as_bytes())? else {
        return Ok(None);
    };
    let answer: Answer = serde_json::from_slice(&output).map_err(|error| {
        CliError::new(format!(
            "docker-credential-{helper} answered no JSON: {error}"
        ))
    })?;
    let mut auth = Auth {
        serveraddress: key.to_owned(),
        ..Auth::default()
    };
    if answer.username == TOKEN_USER {
        auth.identitytoken = answer.secret;
    } else {
        (auth.username, auth.password) = (answer.username, answer.secret);
    }
    Ok(Some(auth))
}

/// Runs a helper; none if it says that it knows nothing.
fn run_helper(helper: &str, verb: &str, input: &[u8]) -> Result<Option<Vec<u8>>, CliError> {
    if helper.contains('/') {
        return Err(CliError::new(format!(
            "credential helper {helper:?} is no name of a program"
        )));
    }
    let program = format!("docker-credential-{helper}");
    let fail = |error: std::io::Error| CliError::new(format!("cannot run {program}: {error}"));
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input says by its exit what it wants.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(fail)?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let words = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if verb != "store" && words.contains("credentials not found") {
        return Ok(None);
    }
    Err(CliError::new(format!("{program} {verb} failed: {words}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(config: &str) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("config.json");
        fs::write(&path, config).expect("write");
        let store = Store::read(path).expect("read");
        (dir, store)
    }

    #[test]
    fn key_of_docker_hub_is_the_old_address() {
        assert_eq!(key("docker.io"), HUB_KEY);
        assert_eq!(key(HUB_KEY), HUB_KEY);
        assert_eq!(key("https://reg.example:5000/v2/"), "reg.example:5000");
    }

    #[test]
    fn put_get_remove_keep_the_rest_of_the_file() {
        let (_dir, mut store) = store(r#"{"detachKeys":"ctrl-x","auths":{}}"#);
        let auth = Auth {
            username: "u".into(),
            password: "p:q".into(),
            serveraddress: "reg.example".into(),
            ..Auth::default()
        };
        store.put(&auth).expect("put");
        let mut again = Store::read(store.path.clone()).expect("read");
        assert_eq!(again.get("https://reg.example/").expect("get"), Some(auth));
        assert_eq!(again.config.get("detachKeys"), Some(&json!("ctrl-x")));
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(&again.path)
            .expect("stat")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(again.remove("reg.example").expect("remove"));
        assert_eq!(again.get("reg.example").expect("get"), None);
    }

    #[test]
    fn get_damaged_pair_names_the_registry() {
        let (_dir, store) = store(r#"{"auths":{"r.example":{"auth":"!!"}}}"#);
        assert!(store.get("r.example").is_err());
    }
}

//! Lists under way, in the user's folder and in Docker's form:
//! `~/.docker/manifests/LIST/MANIFEST`, one JSON document for each manifest.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_api_types::image::{Descriptor, ManifestDocument};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::credentials::config_dir;
use crate::error::{CliError, io_text};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest of a list, as Docker's command line keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    /// Its full name.
    #[serde(rename = "Ref")]
    pub(super) name: String,
    /// What goes into the list.
    pub(super) descriptor: Descriptor,
    /// Its bytes, base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) raw: String,
    /// Its content, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema_v2_manifest: Option<Value>,
    /// The same of the other family.
    #[serde(
        default,
        rename = "OCIManifest",
        skip_serializing_if = "Option::is_none"
    )]
    oci_manifest: Option<Value>,
}

impl Entry {
    /// An entry of what a registry has.
    pub(super) fn new(name: &str, document: &ManifestDocument) -> Self {
        let bytes = STANDARD.decode(&document.raw).unwrap_or_default();
        let content: Option<Value> = serde_json::from_slice(&bytes).ok();
        let oci = document.descriptor.media_type == OCI_MANIFEST;
        Self {
            name: name.to_owned(),
            descriptor: document.descriptor.clone(),
            raw: document.raw.clone(),
            schema_v2_manifest: content.clone().filter(|_| !oci),
            oci_manifest: content.filter(|_| oci),
        }
    }

    /// The manifest's own bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        STANDARD.decode(&self.raw).unwrap_or_default()
    }
}

/// Media type of a list: OCI's if all that is in it is.
fn list_type(entries: &[Entry]) -> &'static str {
    let oci = |entry: &Entry| entry.descriptor.media_type == OCI_MANIFEST;
    if entries.iter().all(oci) {
        OCI_INDEX
    } else {
        DOCKER_LIST
    }
}

/// The document that the entries make, and its media type.
pub(super) fn document(entries: &[Entry]) -> (String, &'static str) {
    let media_type = list_type(entries);
    let manifests: Vec<&Descriptor> = entries.iter().map(|entry| &entry.descriptor).collect();
    let list = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": manifests,
    });
    (pretty(&list, b"   "), media_type)
}

/// JSON for people, by this indentation.
pub(super) fn pretty(value: &impl Serialize, indent: &[u8]) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // What is written was read as JSON.
    let _ = value.serialize(&mut serializer);
    String::from_utf8_lossy(&out).into_owned()
}

/// A document's bytes for people: its own order of members is kept.
pub(super) fn indented(bytes: &[u8], indent: &[u8]) -> String {
    match serde_json::from_slice::<crate::template::Value>(bytes) {
        Ok(_) => reindent(bytes, indent),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Go's `json.Indent`: white space alone is changed.
fn reindent(bytes: &[u8], indent: &[u8]) -> String {
    let (mut out, mut depth) = (Vec::with_capacity(bytes.len() * 2), 0usize);
    let (mut in_string, mut escaped) = (false, false);
    let mut bytes = bytes
        .iter()
        .copied()
        .filter({
            let (mut quoted, mut escape) = (false, false);
            move |byte| {
                let keep = quoted || !byte.is_ascii_whitespace();
                if quoted {
                    match byte {
                        _ if escape => escape = false,
                        b'\\' => escape = true,
                        b'"' => quoted = false,
                        _ => {}
                    }
                } else if *byte == b'"' {
                    quoted = true;
                }
                keep
            }
        })
        .peekable();
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        for _ in 0..depth {
            out.extend_from_slice(indent);
        }
    };
    while let Some(byte) = bytes.next() {
        if in_string {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => {
                in_string = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                out.push(byte);
                if matches!(bytes.peek(), Some(b'}' | b']')) {
                    out.extend(bytes.next());
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The user's lists.
#[derive(Debug)]
pub(super) struct Lists(PathBuf);

/// As Docker names files: no colon, no slash.
fn file_name(name: &str) -> String {
    name.replace(':', "-").replace('/', "_")
}

impl Lists {
    pub(super) fn open() -> Self {
        Self(config_dir().join("manifests"))
    }

    fn dir(&self, list: &str) -> PathBuf {
        self.0.join(file_name(list))
    }

    /// The entries of a list by their names; none if there is no such list.
    pub(super) fn get(&self, list: &str) -> Result<Vec<Entry>, CliError> {
        let dir = self.dir(list);
        let fail = |error: std::io::Error| {
            CliError::new(format!(
                "cannot read {}: {}",
                dir.display(),
                io_text(&error)
            ))
        };
        let listing = match fs::read_dir(&dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fail(error)),
        };
        let mut files: Vec<PathBuf> = listing
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(fail)?;
        files.sort();
        let mut entries = Vec::new();
        for file in files {
            let bytes = fs::read(&file).map_err(fail)?;
            let entry = serde_json::from_slice(&bytes).map_err(|error| {
                CliError::new(format!("{} is not valid: {error}", file.display()))
            })?;
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Puts an entry into a list, in the place of the one of the same name.
    pub(super) fn put(&self, list: &str, entry: &Entry) -> Result<(), CliError> {
        let dir = self.dir(list);
        let file = dir.join(file_name(&entry.name));
        // Not in the list's folder, whose files all are entries.
        let fresh = self.0.join(format!(".{}.tmp", std::process::id()));
        let text = serde_json::to_vec(entry).unwrap_or_default();
        let written = fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&fresh, text))
            .and_then(|()| fs::rename(&fresh, &file));
        written.map_err(|error| {
            let _ = fs::remove_file(&fresh);
            CliError::new(format!(
                "cannot write {}: {}",
                file.display(),
                io_text(&error)
            ))
        })
    }

    /// Removes a list; false if there is none.
    pub(super) fn remove(&self, list: &str) -> Result<bool, CliError> {
        let dir = self.dir(list);
        match fs::remove_dir_all(&dir) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(CliError::new(format!(
                "cannot remove {}: {}",
                dir.display(),
                io_text(&error)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, media_type: &str) -> Entry {
        Entry::new(
            name,
            &ManifestDocument {
                descriptor: Descriptor {
                    media_type: media_type.to_owned(),
                    ..Descriptor::default()
                },
                raw: STANDARD.encode(r#"{"schemaVersion":2}"#),
            },
        )
    }

    #[test]
    fn put_get_remove_go_by_full_names() {
        let dir = tempfile::tempdir().unwrap();
        let lists = Lists(dir.path().join("manifests"));
        assert!(lists.get("docker.io/library/x:1").unwrap().is_empty());
        for name in ["reg:5000/b:1", "reg:5000/a:1", "reg:5000/b:1"] {
            lists
                .put("docker.io/library/x:1", &entry(name, OCI_MANIFEST))
                .unwrap();
        }
        let found = lists.get("docker.io/library/x:1").unwrap();
        let names: Vec<_> = found.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["reg:5000/a:1", "reg:5000/b:1"]);
        assert!(dir.path().join("manifests/docker.io_library_x-1").is_dir());
        assert!(lists.remove("docker.io/library/x:1").unwrap());
        assert!(!lists.remove("docker.io/library/x:1").unwrap());
    }

    #[test]
    fn document_is_of_the_family_of_its_entries() {
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let (text, media_type) = document(&[entry("a", OCI_MANIFEST)]);
        assert_eq!(media_type, OCI_INDEX);
        assert!(text.contains("\n   \"schemaVersion\": 2"), "{text}");
        let (_, media_type) = document(&[entry("a", OCI_MANIFEST), entry("b", docker)]);
        assert_eq!(media_type, DOCKER_LIST);
    }

    #[test]
    fn indented_changes_white_space_alone() {
        let text = br#"{"b" : [1, {}],"a":"x \" {y}, z:"}"#;
        assert_eq!(
            indented(text, b"\t"),
            "{\n\t\"b\": [\n\t\t1,\n\t\t{}\n\t],\n\t\"a\": \"x \\\" {y}, z:\"\n}"
        );
        assert_eq!(indented(b"no json", b"\t"), "no json");
    }
}

//! `--mount type=…,source=…,target=…,…`.

use std::path::Path;

use hull_api_types::host_config::{
    BindOptions, DriverConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions,
};

use super::scalar::{go_bool, size};

/// Reads one `--mount`; `directory` is what relative sources of binds start from.
pub(crate) fn parse(spec: &str, directory: &Path) -> Result<Mount, String> {
    let mut mount = Mount {
        kind: "volume".to_owned(),
        ..Mount::default()
    };
    let mut bind = BindOptions::default();
    let mut volume = VolumeOptions::default();
    let mut image = ImageOptions::default();
    let mut tmpfs = TmpfsOptions::default();
    for field in fields(spec)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        let key = key.to_ascii_lowercase();
        // These may stand alone.
        let truth = |name: &str| match value {
            None => Ok(true),
            Some(value) => go_bool(value).map_err(|_| format!("invalid value for {name}: {value}")),
        };
        match key.as_str() {
            "readonly" | "ro" => {
                mount.read_only = truth(&key)?;
                continue;
            }
            "volume-nocopy" => {
                volume.no_copy = truth(&key)?;
                continue;
            }
            "bind-nonrecursive" => {
                bind.non_recursive = truth(&key)?;
                continue;
            }
            "bind-create-src" | "bind-create-mountpoint" => {
                bind.create_mountpoint = truth(&key)?;
                continue;
            }
            _ => {}
        }
        let Some(value) = value else {
            return Err(format!("invalid field '{field}' must be a key=value pair"));
        };
        match key.as_str() {
            "type" => mount.kind = value.to_ascii_lowercase(),
            "source" | "src" => {
                mount.source = if value == "."
                    || value.starts_with("./")
                    || value.starts_with("../")
                    || value == ".."
                {
                    super::volume::absolute(value, directory)
                } else {
                    value.to_owned()
                };
            }
            "target" | "dst" | "destination" => mount.target = value.to_owned(),
            "consistency" => mount.consistency = value.to_ascii_lowercase(),
            "bind-propagation" => bind.propagation = value.to_ascii_lowercase(),
            "bind-recursive" => match value {
                "enabled" => {}
                "disabled" => bind.non_recursive = true,
                "writable" => bind.read_only_non_recursive = true,
                "readonly" => bind.read_only_force_recursive = true,
                _ => {
                    return Err(format!(
                        "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                    ));
                }
            },
            "volume-subpath" => volume.subpath = value.to_owned(),
            "volume-driver" => {
                volume
                    .driver_config
                    .get_or_insert_with(DriverConfig::default)
                    .name = value.to_owned()
            }
            "volume-label" => {
                let (name, text) = value.split_once('=').unwrap_or((value, ""));
                volume.labels.insert(name.to_owned(), text.to_owned());
            }
            "volume-opt" => {
                let (name, text) = value.split_once('=').unwrap_or((value, ""));
                volume
                    .driver_config
                    .get_or_insert_with(DriverConfig::default)
                    .options
                    .insert(name.to_owned(), text.to_owned());
            }
            "image-subpath" => image.subpath = value.to_owned(),
            "tmpfs-size" => {
                tmpfs.size_bytes =
                    size(value).map_err(|_| format!("invalid value for {key}: {value}"))?
            }
            "tmpfs-mode" => {
                tmpfs.mode = u32::from_str_radix(value, 8)
                    .map_err(|_| format!("invalid value for {key}: {value}"))?
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let mix = |options: &str| {
        format!(
            "cannot mix '{options}' options with mount type '{}'",
            mount.kind
        )
    };
    if bind != BindOptions::default() {
        if mount.kind != "bind" {
            return Err(mix("bind-*"));
        }
        if bind.read_only_non_recursive && !mount.read_only {
            return Err("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction".to_owned());
        }
        if bind.read_only_force_recursive {
            if !mount.read_only {
                return Err("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction".to_owned());
            }
            if bind.propagation != "rprivate" {
                return Err("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction".to_owned());
            }
        }
        mount.bind_options = Some(bind);
    }
    if volume != VolumeOptions::default() {
        if mount.kind != "volume" {
            return Err(mix("volume-*"));
        }
        mount.volume_options = Some(volume);
    }
    if image != ImageOptions::default() {
        if mount.kind != "image" {
            return Err(mix("image-*"));
        }
        mount.image_options = Some(image);
    }
    if tmpfs != TmpfsOptions::default() {
        if mount.kind != "tmpfs" {
            return Err(mix("tmpfs-*"));
        }
        mount.tmpfs_options = Some(tmpfs);
    }
    Ok(mount)
}

/// Fields of one CSV record: a field may be quoted, a quote within is doubled.
pub(crate) fn fields(record: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut field = String::new();
    let mut chars = record.chars().peekable();
    let mut quoted = chars.next_if_eq(&'"').is_some();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted => {
                if chars.next_if_eq(&'"').is_some() {
                    field.push('"');
                } else {
                    quoted = false;
                    if chars.peek().is_some_and(|next| *next != ',') {
                        return Err(
                            "parse error: extraneous or missing \" in quoted-field".to_owned()
                        );
                    }
                }
            }
            '"' => return Err("parse error: bare \" in non-quoted-field".to_owned()),
            ',' if !quoted => {
                out.push(std::mem::take(&mut field));
                quoted = chars.next_if_eq(&'"').is_some();
            }
            c => field.push(c),
        }
    }
    if quoted {
        return Err("parse error: extraneous or missing \" in quoted-field".to_owned());
    }
    out.push(field);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: &str) -> Result<Mount, String> {
        super::parse(spec, Path::new("/cwd"))
    }

    #[test]
    fn parse_bind_volume_and_tmpfs() {
        let bind = parse("type=bind,src=./x,dst=/y,readonly,bind-propagation=rshared").unwrap();
        assert_eq!(
            (
                bind.kind.as_str(),
                bind.source.as_str(),
                bind.target.as_str(),
                bind.read_only
            ),
            ("bind", "/cwd/x", "/y", true)
        );
        assert_eq!(bind.bind_options.unwrap().propagation, "rshared");
        let volume = parse("source=v,target=/d,volume-nocopy=true,volume-label=a=b").unwrap();
        assert_eq!(volume.kind, "volume");
        assert!(volume.volume_options.unwrap().no_copy);
        let tmpfs = parse("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770")
            .unwrap()
            .tmpfs_options
            .unwrap();
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (64 << 20, 0o1770));
        assert_eq!(
            parse("type=bind,\"src=/a,b\",dst=/y").unwrap().source,
            "/a,b"
        );
    }

    #[test]
    fn parse_errors_are_dockers() {
        assert_eq!(parse("type=foo,src=a").unwrap_err(), "target is required");
        assert_eq!(
            parse("type=bind,src").unwrap_err(),
            "invalid field 'src' must be a key=value pair"
        );
        assert_eq!(
            parse("type=bind,foo=1,dst=/x").unwrap_err(),
            "unexpected key 'foo' in 'foo=1'"
        );
        assert_eq!(
            parse("type=tmpfs,dst=/x,volume-nocopy").unwrap_err(),
            "cannot mix 'volume-*' options with mount type 'tmpfs'"
        );
        assert_eq!(
            parse("type=bind,dst=/x,readonly=maybe").unwrap_err(),
            "invalid value for readonly: maybe"
        );
        assert!(parse("\"type=bind").is_err());
    }
}

//! `--device HOST[:CONTAINER][:PERMISSIONS]`.

use hull_api_types::host_config::DeviceMapping;

/// Reads one `--device`.
pub(crate) fn parse(spec: &str) -> Result<DeviceMapping, String> {
    let bad = || format!("bad format for path: {spec}");
    let parts: Vec<&str> = spec.split(':').collect();
    let (host, inside, permissions) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, mode] => {
            if !is_mode(mode) {
                return Err(format!("bad mode specified: {mode}"));
            }
            (*host, *inside, *mode)
        }
        _ => return Err(bad()),
    };
    if host.is_empty() || inside.is_empty() {
        return Err(bad());
    }
    if !host.starts_with('/') {
        return Err(format!("{host} is not an absolute path"));
    }
    if !inside.starts_with('/') {
        return Err(format!("{inside} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: permissions.to_owned(),
    })
}

/// Letters of `rwm`, each at most once.
fn is_mode(text: &str) -> bool {
    !text.is_empty()
        && text.chars().enumerate().all(|(index, c)| {
            "rwm".contains(c) && !text.chars().take(index).any(|before| before == c)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_forms() {
        let got = parse("/dev/null").unwrap();
        assert_eq!(
            (
                got.path_in_container.as_str(),
                got.cgroup_permissions.as_str()
            ),
            ("/dev/null", "rwm")
        );
        assert_eq!(parse("/dev/null:r").unwrap().cgroup_permissions, "r");
        assert_eq!(
            parse("/dev/null:/dev/x:rw").unwrap().path_in_container,
            "/dev/x"
        );
        assert!(parse("/dev/null:/dev/x:rr").is_err());
        assert!(parse("dev/null").is_err());
        assert!(parse("a:b:c:d").is_err());
    }
}

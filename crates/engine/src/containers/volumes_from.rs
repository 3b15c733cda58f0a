//! `--volumes-from`: the mounts of another container are taken over.

use hull_model::spec::ContainerSpec;
use hull_model::{Error, Result};
use hull_state::MountPoint;

use crate::Engine;

impl Engine {
    /// The mounts that the containers named by `--volumes-from` have, the last of one place
    /// counting. What is in memory is not shared.
    pub(super) fn mounts_of_others(&self, spec: &ContainerSpec) -> Result<Vec<MountPoint>> {
        let mut points: Vec<MountPoint> = Vec::new();
        for wish in &spec.volumes_from {
            let (name, writable) = parse(wish)?;
            let other = self.containers.find(name)?.record();
            let mounts = other.mounts.into_iter();
            for mut point in mounts.filter(|m| m.kind == "bind" || m.kind == "volume") {
                point.rw &= writable;
                // It goes with the container for which it was made.
                point.anonymous = false;
                points.retain(|known| known.target != point.target);
                points.push(point);
            }
        }
        Ok(points)
    }
}

/// `NAME`, `NAME:ro` or `NAME:rw`; marks of SELinux say nothing here.
fn parse(wish: &str) -> Result<(&str, bool)> {
    let (name, mode) = wish.split_once(':').unwrap_or((wish, "rw"));
    if name.is_empty() {
        return Err(Error::invalid(
            "invalid empty volume source of --volumes-from",
        ));
    }
    let mut writable = true;
    for word in mode.split(',') {
        match word {
            "ro" => writable = false,
            "rw" | "z" | "Z" => {}
            _ => {
                return Err(Error::invalid(format!(
                    "invalid mode of --volumes-from {wish:?}: use ro or rw"
                )));
            }
        }
    }
    Ok((name, writable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_of_volumes_from_is_read() {
        assert_eq!(parse("db").unwrap(), ("db", true));
        assert_eq!(parse("db:ro").unwrap(), ("db", false));
        assert_eq!(parse("db:z,rw").unwrap(), ("db", true));
        assert!(parse(":ro").is_err() && parse("db:x").is_err() && parse("db:").is_err());
    }
}

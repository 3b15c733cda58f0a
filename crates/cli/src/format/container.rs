//! Containers in lists: placeholders of `hull ps --format`.

use hull_api_types::container::ContainerSummary;

use crate::template::{Map, Value};

use super::list::Listing;
use super::{human, ports};

/// The list of containers.
pub(crate) const LISTING: Listing<'static> = Listing {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    quiet: "{{.ID}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Names", "NAMES"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Ports", "PORTS"),
        ("State", "STATE"),
        ("Status", "STATUS"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
        ("Platform", "PLATFORM"),
        ("Isolation", "ISOLATION"),
    ],
};

/// The list with sizes.
pub(crate) const LISTING_WITH_SIZE: Listing<'static> = Listing {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    ..LISTING
};

/// Width of commands.
const COMMAND_WIDTH: usize = 20;
/// Width of one mount's name.
const MOUNT_WIDTH: usize = 15;

/// One container's placeholders. Values are in the order of their names, as Docker prints them as JSON.
pub(crate) fn row(container: &ContainerSummary, no_trunc: bool, now: i64) -> Value {
    let mut map = Map::of_type("*formatter.ContainerContext");
    let command = if no_trunc {
        container.command.clone()
    } else {
        human::ellipsis(&container.command, COMMAND_WIDTH)
    };
    map.push("Command", human::quote(&command));
    map.push("CreatedAt", human::timestamp(container.created));
    map.push(
        "ID",
        if no_trunc {
            container.id.clone()
        } else {
            human::short_id(&container.id)
        },
    );
    map.push("Image", image(container, no_trunc));
    map.push("Labels", labels(container.labels.iter()));
    map.push(
        "LocalVolumes",
        container
            .mounts
            .iter()
            .filter(|mount| mount.driver == "local")
            .count()
            .to_string(),
    );
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(|mount| {
            let name = if mount.name.is_empty() {
                &mount.source
            } else {
                &mount.name
            };
            if no_trunc {
                name.clone()
            } else {
                human::ellipsis(name, MOUNT_WIDTH)
            }
        })
        .collect();
    map.push("Mounts", mounts.join(","));
    map.push("Names", names(container, no_trunc));
    map.push(
        "Networks",
        container
            .network_settings
            .networks
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(","),
    );
    map.push("Platform", Value::Nil);
    map.push("Ports", ports::display(&container.ports));
    map.push("RunningFor", human::ago(container.created, now));
    map.push("Size", size(container));
    map.push("State", container.state.clone());
    map.push("Status", container.status.clone());
    map.labels = container
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Value::Map(map)
}

/// `key=value,…`.
pub(crate) fn labels<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

fn image(container: &ContainerSummary, no_trunc: bool) -> String {
    if container.image.is_empty() {
        return "<no image>".to_owned();
    }
    if no_trunc {
        return container.image.clone();
    }
    // An image without a name is shown by its id, as short as ids are shown.
    if human::short_id(&container.image_id) == human::short_id(&container.image) {
        return human::short_id(&container.image);
    }
    match container.image.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => container.image.clone(),
    }
}

fn names(container: &ContainerSummary, no_trunc: bool) -> String {
    let names: Vec<&str> = container
        .names
        .iter()
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        // A name with a slash is a link's; the short form leaves those out.
        .filter(|name| no_trunc || !name.contains('/'))
        .collect();
    names.join(",")
}

fn size(container: &ContainerSummary) -> String {
    let own = human::size(container.size_rw.unwrap_or(0));
    match container.size_root_fs {
        Some(total) if total > 0 => format!("{own} (virtual {})", human::size(total)),
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::render;
    use super::*;

    fn sample() -> ContainerSummary {
        serde_json::from_str(
            r#"{"Id":"0123456789abcdef0123","Names":["/web","/other/alias"],"Image":"nginx:1","ImageID":"sha256:ffff","Command":"/docker-entrypoint.sh nginx","Created":1700000000,
            "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}],"Labels":{"a.b":"1"},"State":"running","Status":"Up 5 seconds",
            "NetworkSettings":{"Networks":{"bridge":{}}},"Mounts":[{"Type":"volume","Name":"data","Driver":"local","Source":"/x","Destination":"/d"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn row_prints_dockers_table() {
        let rows = [row(&sample(), false, 1_700_000_005)];
        let text = render(&LISTING, &rows, None, false).unwrap();
        assert_eq!(
            text,
            "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS                  NAMES\n\
             0123456789ab   nginx:1   \"/docker-entrypoint.…\"   5 seconds ago   Up 5 seconds   0.0.0.0:8080->80/tcp   web\n"
        );
    }

    #[test]
    fn row_placeholders() {
        let rows = [row(&sample(), false, 1_700_000_005)];
        let text = |format: &str| render(&LISTING, &rows, Some(format), false).unwrap();
        assert_eq!(
            text("{{.Names}} {{.Mounts}} {{.Networks}} {{.Labels}} {{.LocalVolumes}}"),
            "web data bridge a.b=1 1\n"
        );
        assert_eq!(text("{{.Label \"a.b\"}}"), "1\n");
        assert_eq!(text("table {{.Label \"a.my-key\"}}"), "my key\n\n");
        assert_eq!(text("{{.CreatedAt}}"), "2023-11-14 22:13:20 +0000 UTC\n");
        assert_eq!(
            render(&LISTING, &rows, None, true).unwrap(),
            "0123456789ab\n"
        );
    }
}

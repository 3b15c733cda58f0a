//! Lists of containers with Docker's filters.

use hull_model::spec::Isolation;
use hull_model::{Error, Result};
use hull_state::{ContainerRecord, ContainerState};

use super::create::parse_port;
use crate::Engine;
use crate::filters::Filters;

const FILTERS: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "label!",
];
const STATES: [&str; 7] = [
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
];

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Those that do not run, too.
    pub all: bool,
    /// The youngest so many, whatever their state.
    pub limit: Option<usize>,
    /// Filters.
    pub filters: Filters,
}

impl Engine {
    /// The containers that match, the youngest first.
    ///
    /// # Errors
    /// For an unknown filter or a malformed value.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<ContainerRecord>> {
        let filters = &options.filters;
        filters.allow_only(&FILTERS)?;
        for state in filters.values("status") {
            if !STATES.contains(&state.as_str()) {
                return Err(Error::invalid(format!("invalid filter 'status={state}'")));
            }
        }
        let exited: Vec<i32> = filters
            .values("exited")
            .iter()
            .map(|v| {
                v.parse()
                    .map_err(|_| Error::invalid(format!("invalid filter 'exited={v}'")))
            })
            .collect::<Result<_>>()?;
        let bound = |name: &str| -> Result<Option<u64>> {
            let times = filters
                .values(name)
                .iter()
                .map(|key| Ok(self.containers.find(key)?.with(|r| r.created_at_ns)));
            Ok(times.collect::<Result<Vec<_>>>()?.into_iter().max())
        };
        let (before, since) = (bound("before")?, bound("since")?);
        // Looked up before any container is locked.
        let ancestors: Vec<Option<hull_model::Digest>> = filters
            .values("ancestor")
            .iter()
            .map(|name| self.images.resolve(name).ok().map(|image| image.id))
            .collect();
        // A filter by state or exit looks at those that do not run without being asked.
        let all = options.all
            || options.limit.is_some()
            || !filters.values("status").is_empty()
            || !exited.is_empty();
        let mut list: Vec<ContainerRecord> = self
            .containers
            .all()
            .iter()
            .filter(|c| {
                c.with(|r| {
                    (all || r.state.is_running() || r.state == ContainerState::Restarting)
                        && before.is_none_or(|t| r.created_at_ns < t)
                        && since.is_none_or(|t| r.created_at_ns > t)
                        && (exited.is_empty()
                            || (r.state == ContainerState::Exited && exited.contains(&r.exit_code)))
                        && self.matches(r, filters, &ancestors)
                })
            })
            .map(|c| c.record())
            .collect();
        list.sort_by_key(|record| std::cmp::Reverse(record.created_at_ns));
        if let Some(limit) = options.limit {
            list.truncate(limit);
        }
        Ok(list)
    }

    fn matches(
        &self,
        r: &ContainerRecord,
        filters: &Filters,
        ancestors: &[Option<hull_model::Digest>],
    ) -> bool {
        let port = |v: &str, wanted: &dyn Fn(hull_model::spec::Port) -> bool| {
            let (range, protocol) = v.split_once('/').unwrap_or((v, "tcp"));
            let (low, high) = range.split_once('-').unwrap_or((range, range));
            match (
                parse_port(&format!("{low}/{protocol}")),
                parse_port(&format!("{high}/{protocol}")),
            ) {
                (Some(low), Some(high)) => (low.number..=high.number).any(|number| {
                    wanted(hull_model::spec::Port {
                        number,
                        protocol: low.protocol,
                    })
                }),
                _ => false,
            }
        };
        let published = || r.published();
        filters.match_labels(&r.spec.labels)
            && filters.matches("status", |v| v == r.state.as_str())
            && filters.matches("id", |v| r.id.starts_with(v))
            && filters.matches("name", |v| {
                r.name.contains(v.trim_matches(['/', '^', '$'])) && anchored(v, &r.name)
            })
            && filters.matches("health", |v| {
                v == r.health.as_ref().map_or("none", |h| h.status.as_str())
            })
            && filters.matches("ancestor", |v| {
                r.spec.image == v
                    || v.parse::<hull_model::Reference>().ok()
                        == r.spec.image.parse::<hull_model::Reference>().ok()
                    || ancestors.iter().flatten().any(|id| Some(*id) == r.image_id)
            })
            && filters.matches("volume", |v| {
                r.mounts
                    .iter()
                    .any(|m| m.name == v || m.source == v || m.target == v)
            })
            && filters.matches("network", |v| match &r.joins {
                Some(joins) => joins
                    .iter()
                    .any(|j| j.name == v || j.network.starts_with(v)),
                None => super::network_name(&r.spec.network) == v,
            })
            && filters.matches("expose", |v| {
                port(v, &|p| {
                    let ranges = &r.spec.published;
                    r.spec.exposed_ports.contains(&p) || ranges.iter().any(|q| q.covers(p))
                })
            })
            && filters.matches("publish", |v| {
                port(v, &|p| {
                    let four = published().map(|q| (q.host_port..=q.host_port_end(), q.container));
                    let six = r.published6();
                    let six = six.map(|q| (q.host_port..=q.host_port_end(), q.container));
                    let mut all = four.chain(six);
                    all.any(|(span, q)| span.contains(&p.number) && q.protocol == p.protocol)
                })
            })
            && filters.matches("isolation", |v| match r.spec.isolation {
                Isolation::Container => v == "container",
                Isolation::Vm => v == "vm",
            })
            && filters.matches("is-task", |v| v == "false")
    }
}

/// `^` and `$` in a name filter, which Docker takes as a regular expression.
fn anchored(pattern: &str, name: &str) -> bool {
    let text = pattern
        .trim_start_matches('^')
        .trim_end_matches('$')
        .trim_start_matches('/');
    (!pattern.starts_with('^') || name.starts_with(text))
        && (!pattern.ends_with('$') || name.ends_with(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchored_name_matches_whole_name_only() {
        assert!(anchored("^/web$", "web"));
        assert!(!anchored("^web$", "web1"));
        assert!(anchored("we", "web1"));
    }
}

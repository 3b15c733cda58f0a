//! `events`: what a container uses, at intervals, and when its memory runs out.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hull_container::Host;
use hull_sys::cgroup::{self, Cgroup, CgroupError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::print;
use crate::cli::Events;
use crate::state::{Status, Store};
use crate::usage::{self, Event};

/// How often a kill is looked for after the kernel has told that memory ran out, and how far apart.
const LOOKS: u32 = 40;
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn events(args: &Events, store: &Store) -> Result<()> {
    let interval = duration(&args.interval)
        .filter(|interval| !interval.is_zero())
        .with_context(|| {
            format!(
                "--interval {:?} is no duration above zero such as 5s or 500ms",
                args.interval
            )
        })?;
    let (entry, record) = store.open(&args.id)?;
    let host = Host::detect()?;
    if matches!(record.status(&entry, &host)?, Status::Stopped) {
        bail!("container with id {} is not running", args.id);
    }
    if record.cgroup.is_empty() {
        return Err(CgroupError::NotAllowed)
            .context("nothing is counted: the container has no control group");
    }
    let group = record
        .open_cgroup(&host)?
        .context("the container's control group is gone")?;
    if args.stats {
        return stats(&args.id, group.as_ref());
    }
    let process = record.process().context("the container is not running")?;
    follow(&args.id, group.as_ref(), &process, interval)
}

fn stats(id: &str, group: &dyn Cgroup) -> Result<()> {
    line(&Event {
        kind: "stats",
        id,
        data: Some(usage::read(&group.views())),
    })
}

fn line(event: &Event<'_>) -> Result<()> {
    let text = serde_json::to_string(event).context("cannot write the event")?;
    print(&format!("{text}\n"))
}

/// Tells events until the container has ended.
fn follow(id: &str, group: &dyn Cgroup, process: &OwnedFd, interval: Duration) -> Result<()> {
    // Without the memory controller nothing is told of it.
    let watch = group.watch_oom().ok();
    let mut seen = group.oom_kills().unwrap_or(0);
    let mut next = Instant::now() + interval;
    // The kernel (v1) tells before it kills: a kill that is not counted yet is looked for again.
    let (mut again, mut looks) = (None::<Instant>, 0);
    loop {
        let until = again.map_or(next, |at| at.min(next));
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = vec![PollFd::new(process, PollFlags::IN)];
        fds.extend(watch.iter().map(|watch| PollFd::new(watch, PollFlags::IN)));
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("cannot wait for events"),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let ended = ready.next().unwrap_or(false);
        let ran_out = ready.next().unwrap_or(false);
        drop(fds);
        if let Some(watch) = watch.as_ref().filter(|_| ran_out) {
            cgroup::drain(watch.as_fd());
        }
        if ran_out {
            looks = LOOKS;
        }
        if ran_out || ended || again.is_some_and(|at| at <= Instant::now()) {
            again = None;
            // The descriptor tells of other changes, and of the end of the group, too.
            let kills = group.oom_kills().unwrap_or(seen);
            if kills > seen || (ran_out && is_under_oom(group)) {
                seen = kills;
                line(&Event {
                    kind: "oom",
                    id,
                    data: None,
                })?;
            } else if looks > 0 {
                looks -= 1;
                again = Some(Instant::now() + LOOK);
            }
        }
        if ended {
            return Ok(());
        }
        if next <= Instant::now() {
            stats(id, group)?;
            next = Instant::now() + interval;
        }
    }
}

/// Whether processes wait for memory since nothing may be killed (v1 alone).
fn is_under_oom(group: &dyn Cgroup) -> bool {
    group.views().iter().any(|view| {
        let text = std::fs::read_to_string(view.path.join("memory.oom_control"));
        text.is_ok_and(|text| text.lines().any(|line| line == "under_oom 1"))
    })
}

/// A duration as Go writes it: numbers, each with its unit.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at_checked(digits)?;
        let letters = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, remaining) = after.split_at_checked(letters)?;
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let value: f64 = value.parse().ok()?;
        let part = Duration::try_from_secs_f64(value * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = remaining;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_units_add_up() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        for bad in ["", "5", "s", "5x", "-1s", "5s5"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}

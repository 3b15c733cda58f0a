//! The container's processes, as lists show them.

use std::fs;

use hull_proto::guest::{GuestProcess, MAX_COMMAND, MAX_PROCESSES, MAX_REPLY, Processes};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};

use super::uptime_ns;

const SECOND: u64 = 1_000_000_000;
/// What an entry takes in the answer besides its command line, at most.
const ENTRY: usize = 400;
/// JSON writes some characters as six.
const ESCAPED: usize = 6;

/// Lists them; those that ended meanwhile are left out.
pub(super) fn list(pids: &[u32]) -> Processes {
    let mut list = Vec::new();
    let mut room = MAX_REPLY - MAX_REPLY / 8;
    let mut truncated = false;
    for pid in pids {
        let Some(process) = read(*pid) else { continue };
        let length = (process.command.len() + process.name.len()) * ESCAPED + ENTRY;
        if list.len() >= MAX_PROCESSES || length > room {
            truncated = true;
            break;
        }
        room -= length;
        list.push(process);
    }
    let now = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let rest = u64::try_from(now.tv_nsec).unwrap_or_default();
    let now = seconds.saturating_mul(SECOND).saturating_add(rest);
    let info = rustix::system::sysinfo();
    Processes {
        booted_at_ns: now.saturating_sub(uptime_ns()),
        memory: info.totalram.saturating_mul(u64::from(info.mem_unit)),
        list,
        truncated,
    }
}

fn read(pid: u32) -> Option<GuestProcess> {
    let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
    let status = String::from_utf8_lossy(&file("status")?).into_owned();
    let stat = String::from_utf8_lossy(&file("stat")?).into_owned();
    let command = file("cmdline").unwrap_or_default();
    parse(pid, &stat, &status, &command)
}

fn parse(pid: u32, stat: &str, status: &str, command: &[u8]) -> Option<GuestProcess> {
    // The name is in brackets and may have any character in it.
    let (_, name) = stat.split_once('(')?;
    let (name, rest) = name.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Numbered as in proc_pid_stat(5), where the state is 3.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let number = |at: usize| field(at).parse::<u64>().unwrap_or_default();
    let small = |at: usize| field(at).parse::<i64>().unwrap_or_default();
    let id = |at: usize| u32::try_from(small(at)).unwrap_or_default();
    let ticks = |count: u64| {
        let per_second = clock_ticks_per_second().max(1);
        (count / per_second).saturating_mul(SECOND) + count % per_second * SECOND / per_second
    };
    // Real, effective, …
    let effective = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let cut = command.get(..MAX_COMMAND).unwrap_or(command);
    let cut = cut.strip_suffix(b"\0").unwrap_or(cut);
    let command: String = String::from_utf8_lossy(cut)
        .chars()
        .map(|c| if c == '\0' { ' ' } else { c })
        .collect();
    Some(GuestProcess {
        pid,
        ppid: id(4),
        pgid: id(5),
        sid: id(6),
        uid: effective("Uid:")?,
        gid: effective("Gid:")?,
        state: field(3).chars().next()?,
        tty: id(7),
        nice: i32::try_from(small(19)).unwrap_or_default(),
        threads: id(20),
        cpu_ns: ticks(number(14).saturating_add(number(15))),
        started_ns: ticks(number(22)),
        virtual_bytes: number(23),
        resident_bytes: number(24).saturating_mul(page_size() as u64),
        name: name.to_owned(),
        command,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_name_with_brackets_and_blanks() {
        let stat = "7 (a) b (c) S 1 7 7 34816 7 4194560 1 2 3 4 150 50 0 0 20 -5 3 0 200 4096 2 0";
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
        let process = parse(7, stat, status, b"a\0b c\0").expect("parsed");
        assert_eq!(process.name, "a) b (c");
        assert_eq!(process.command, "a b c");
        assert_eq!((process.ppid, process.sid, process.tty), (1, 7, 34816));
        assert_eq!((process.uid, process.gid), (2, 6));
        assert_eq!((process.state, process.nice, process.threads), ('S', -5, 3));
        assert_eq!(process.cpu_ns, 2 * SECOND);
        assert_eq!(process.started_ns, 2 * SECOND);
        assert_eq!(process.virtual_bytes, 4096);
        assert_eq!(process.resident_bytes, 2 * page_size() as u64);
        for noise in ["", "7", "7 (", "7 (x", "7 (x)"] {
            assert_eq!(parse(7, noise, status, b""), None, "{noise}");
        }
    }

    #[test]
    fn list_long_command_lines_fit_an_answer() {
        let own = std::process::id();
        let found = list(&vec![own; MAX_PROCESSES + 10]);
        assert!(found.truncated && !found.list.is_empty());
        assert!(found.booted_at_ns > 0 && found.memory > 0);
        let json = serde_json::to_vec(&found).expect("JSON");
        assert!(json.len() < MAX_REPLY);
        assert!(list(&[u32::MAX]).list.is_empty());
    }
}

//! The processes of a guest as `ps` would show them, which nobody runs: the host's would not see
//! them, and the guest's is the guest's.

use hull_model::{Error, Result};
use hull_proto::guest::{GuestProcess, Processes};
use hull_proto::{Reply, Request};

use super::entry::Container;
use super::observe::Top;
use crate::Engine;
use crate::clock::now_ns;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400;
/// Longest text of a guest's in a table, characters.
const MAX_TEXT: usize = 4096;
/// Major number of pseudo terminals.
const PTS: u32 = 136;

/// What a column shows.
type Show = fn(&GuestProcess, &Around) -> String;

/// Facts of the whole that columns need.
struct Around {
    now_ns: u64,
    booted_at_ns: u64,
    memory: u64,
}

const FULL: &str = "user,pid,ppid,c,stime,tty,time,args";
const USERS: &str = "euser,pid,pcpu,pmem,vsz,rss,tt,stat,start,bsdtime,command";

/// Column by its name for `-o`: title and content.
fn column(name: &str) -> Option<(&'static str, Show)> {
    Some(match name {
        "pid" => ("PID", |p, _| p.pid.to_string()),
        "ppid" => ("PPID", |p, _| p.ppid.to_string()),
        "pgid" | "pgrp" => ("PGID", |p, _| p.pgid.to_string()),
        "sid" | "sess" => ("SID", |p, _| p.sid.to_string()),
        "user" => ("UID", |p, _| user(p.uid)),
        "euser" => ("USER", |p, _| user(p.uid)),
        "uid" | "euid" => ("UID", |p, _| p.uid.to_string()),
        "gid" | "egid" => ("GID", |p, _| p.gid.to_string()),
        "c" => ("C", |p, a| (share(p, a) as u64).min(99).to_string()),
        "pcpu" | "%cpu" => ("%CPU", |p, a| format!("{:.1}", share(p, a))),
        "pmem" | "%mem" => ("%MEM", |p, a| {
            format!(
                "{:.1}",
                p.resident_bytes as f64 * 100.0 / a.memory.max(1) as f64
            )
        }),
        "stime" | "start" => (if name == "start" { "START" } else { "STIME" }, started),
        "etime" => ("ELAPSED", |p, a| clock(age(p, a))),
        "tty" => ("TTY", |p, _| terminal(p.tty)),
        "tt" => ("TT", |p, _| terminal(p.tty)),
        "time" => ("TIME", |p, _| clock(p.cpu_ns / SECOND)),
        "bsdtime" => ("TIME", |p, _| {
            let seconds = p.cpu_ns / SECOND;
            format!("{}:{:02}", seconds / 60, seconds % 60)
        }),
        "s" | "stat" => (if name == "s" { "S" } else { "STAT" }, |p, _| {
            shown(&p.state.to_string())
        }),
        "ni" | "nice" => ("NI", |p, _| p.nice.to_string()),
        "nlwp" | "thcount" => ("NLWP", |p, _| p.threads.to_string()),
        "vsz" => ("VSZ", |p, _| (p.virtual_bytes / 1024).to_string()),
        "rss" => ("RSS", |p, _| (p.resident_bytes / 1024).to_string()),
        "comm" | "ucmd" => ("COMMAND", |p, _| shown(&p.name)),
        "args" | "cmd" => ("CMD", |p, _| command(p)),
        "command" => ("COMMAND", |p, _| command(p)),
        _ => return None,
    })
}

fn user(uid: u32) -> String {
    match uid {
        0 => "root".into(),
        other => other.to_string(),
    }
}

/// The guest's text in one field of one line.
fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(MAX_TEXT).map(clean).collect()
}

fn command(process: &GuestProcess) -> String {
    if process.command.is_empty() {
        format!("[{}]", shown(&process.name))
    } else {
        shown(&process.command)
    }
}

fn age(process: &GuestProcess, around: &Around) -> u64 {
    let born = around.booted_at_ns.saturating_add(process.started_ns);
    around.now_ns.saturating_sub(born) / SECOND
}

fn share(process: &GuestProcess, around: &Around) -> f64 {
    let lived = age(process, around).max(1) as f64;
    process.cpu_ns as f64 / SECOND as f64 * 100.0 / lived
}

fn started(process: &GuestProcess, around: &Around) -> String {
    let born = around.booted_at_ns.saturating_add(process.started_ns) / SECOND;
    format!("{:02}:{:02}", born % DAY / 3600, born % 3600 / 60)
}

fn clock(seconds: u64) -> String {
    let (days, rest) = (seconds / DAY, seconds % DAY);
    let time = format!(
        "{:02}:{:02}:{:02}",
        rest / 3600,
        rest % 3600 / 60,
        rest % 60
    );
    if days > 0 {
        format!("{days}-{time}")
    } else {
        time
    }
}

/// `dev_t` of a terminal, as proc_pid_stat(5) has it.
fn terminal(number: u32) -> String {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match major {
        0 => "?".into(),
        PTS..144 => format!("pts/{}", (major - PTS) << 8 | minor),
        _ => format!("{major}:{minor}"),
    }
}

/// The columns that arguments ask for.
fn columns(args: &str) -> Result<Vec<(&'static str, Show)>> {
    let refused = || {
        Error::invalid(format!(
            "ps arguments {args:?} are not known for a virtual machine: use -ef, aux, or -o with names of columns"
        ))
    };
    let list = match args.trim() {
        "" | "-ef" | "-f" | "-eF" => FULL.to_owned(),
        "aux" | "-aux" | "u" => USERS.to_owned(),
        other => {
            let words: Vec<&str> = other.split_whitespace().collect();
            match words.as_slice() {
                ["-o" | "o" | "-eo", names] | ["-e", "-o", names] => (*names).to_owned(),
                _ => return Err(refused()),
            }
        }
    };
    let columns: Option<Vec<_>> = list.split(',').map(column).collect();
    let columns = columns.ok_or_else(refused)?;
    if columns.iter().any(|(title, _)| *title == "PID") {
        Ok(columns)
    } else {
        Err(Error::invalid(
            "Couldn't find PID field in ps output: choose arguments that show it",
        ))
    }
}

fn table(processes: &Processes, args: &str, now_ns: u64) -> Result<Top> {
    let columns = columns(args)?;
    let around = Around {
        now_ns,
        booted_at_ns: processes.booted_at_ns,
        memory: processes.memory,
    };
    let row = |process: &GuestProcess| {
        columns
            .iter()
            .map(|(_, show)| show(process, &around))
            .collect()
    };
    Ok(Top {
        titles: columns
            .iter()
            .map(|(title, _)| (*title).to_owned())
            .collect(),
        processes: processes.list.iter().map(row).collect(),
    })
}

impl Engine {
    /// Lists the processes of a guest.
    pub(super) async fn top_guest(&self, container: &Container, args: &str) -> Result<Top> {
        // Refused before anybody is asked.
        columns(args)?;
        let idle = || Error::conflict(format!("container {} is not running", container.id));
        if !container.with(|r| r.state.is_running()) {
            return Err(idle());
        }
        let shim = container.shim().ok_or_else(idle)?;
        match shim.call(Request::Processes, &[]).await? {
            Reply::Processes(processes) => table(&processes, args, now_ns()),
            _ => Err(Error::internal(
                "the shim did not list processes",
                std::io::Error::other("protocol error"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> GuestProcess {
        GuestProcess {
            pid: 7,
            ppid: 1,
            state: 'S',
            tty: 34816,
            cpu_ns: 61 * SECOND,
            started_ns: 100 * SECOND,
            resident_bytes: 1 << 20,
            name: "sh".into(),
            command: "sh -c a\u{1b}[2Jb".into(),
            ..GuestProcess::default()
        }
    }

    #[test]
    fn table_is_that_of_ps() {
        let processes = Processes {
            booted_at_ns: 0,
            memory: 1 << 30,
            list: vec![process()],
            truncated: false,
        };
        let top = table(&processes, "", 200 * SECOND).unwrap();
        assert_eq!(
            top.titles,
            ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        );
        assert_eq!(
            top.processes,
            [[
                "root",
                "7",
                "1",
                "61",
                "00:01",
                "pts/0",
                "00:01:01",
                "sh -c a?[2Jb"
            ]]
        );
        let own = table(&processes, "-o pid,comm,rss", 0).unwrap();
        assert_eq!(own.processes, [["7", "sh", "1024"]]);
        assert_eq!(table(&processes, "aux", 0).unwrap().titles.len(), 11);
    }

    #[test]
    fn columns_unknown_or_without_the_id_are_refused() {
        for args in ["-o comm", "-o pid,nope", "-Z", "-o"] {
            assert!(columns(args).is_err(), "{args}");
        }
    }
}

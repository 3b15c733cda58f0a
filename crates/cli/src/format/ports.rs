//! The ports column of `hull ps`: `0.0.0.0:8080->80/tcp, 443/tcp`, neighbours joined into ranges.

use std::cmp::Ordering;
use std::net::IpAddr;

use hull_api_types::container::Port;

/// Ports that follow each other, bound alike.
struct Run {
    address: String,
    kind: String,
    private: (u16, u16),
    public: (u16, u16),
}

/// All ports as one text.
pub(crate) fn display(ports: &[Port]) -> String {
    let mut sorted: Vec<&Port> = ports.iter().collect();
    sorted.sort_by(|a, b| compare(a, b));
    let mut runs: Vec<Run> = Vec::new();
    let mut singles: Vec<String> = Vec::new();
    for port in sorted {
        // Docker joins only bindings whose two ports move alike: equal, or unpublished.
        if port.public_port != 0 && port.public_port != port.private_port {
            singles.push(format!(
                "{}:{}->{}/{}",
                host(&port.ip),
                port.public_port,
                port.private_port,
                port.kind
            ));
            continue;
        }
        let next = port.private_port;
        let joined = runs.iter_mut().rev().find(|run| {
            run.address == port.ip
                && run.kind == port.kind
                && (run.public.0 != 0) == (port.public_port != 0)
        });
        match joined {
            Some(run) if run.private.1.checked_add(1) == Some(next) => {
                run.private.1 = next;
                if port.public_port != 0 {
                    run.public.1 = port.public_port;
                }
            }
            Some(run) if run.private.1 == next => {}
            _ => runs.push(Run {
                address: port.ip.clone(),
                kind: port.kind.clone(),
                private: (next, next),
                public: (port.public_port, port.public_port),
            }),
        }
    }
    let mut out: Vec<String> = runs.iter().map(text).collect();
    out.extend(singles);
    out.join(", ")
}

fn text(run: &Run) -> String {
    let range = |(start, end): (u16, u16)| {
        if start == end {
            start.to_string()
        } else {
            format!("{start}-{end}")
        }
    };
    if run.public.0 == 0 {
        format!("{}/{}", range(run.private), run.kind)
    } else {
        format!(
            "{}:{}->{}/{}",
            host(&run.address),
            range(run.public),
            range(run.private),
            run.kind
        )
    }
}

fn host(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

fn compare(a: &Port, b: &Port) -> Ordering {
    let ip = |port: &Port| port.ip.parse::<IpAddr>().ok();
    a.private_port
        .cmp(&b.private_port)
        .then_with(|| ip(a).cmp(&ip(b)))
        .then_with(|| a.public_port.cmp(&b.public_port))
        .then_with(|| a.kind.cmp(&b.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, private: u16, public: u16, kind: &str) -> Port {
        Port {
            ip: ip.into(),
            private_port: private,
            public_port: public,
            kind: kind.into(),
        }
    }

    #[test]
    fn display_published_and_exposed() {
        assert_eq!(
            display(&[port("0.0.0.0", 80, 8080, "tcp"), port("", 443, 0, "tcp")]),
            "443/tcp, 0.0.0.0:8080->80/tcp"
        );
        assert_eq!(display(&[port("::", 80, 8080, "tcp")]), "[::]:8080->80/tcp");
        assert_eq!(display(&[]), "");
    }

    #[test]
    fn display_joins_ranges() {
        assert_eq!(
            display(&[
                port("", 80, 0, "tcp"),
                port("", 81, 0, "tcp"),
                port("", 82, 0, "tcp")
            ]),
            "80-82/tcp"
        );
        assert_eq!(
            display(&[
                port("0.0.0.0", 80, 80, "tcp"),
                port("0.0.0.0", 81, 81, "tcp")
            ]),
            "0.0.0.0:80-81->80-81/tcp"
        );
        assert_eq!(
            display(&[port("", 80, 0, "tcp"), port("", 80, 0, "udp")]),
            "80/tcp, 80/udp"
        );
    }
}

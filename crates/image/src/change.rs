//! Dockerfile instructions that change an image's configuration: `--change` of import and commit.

use hull_model::image::{Empty, HealthConfig, RunConfig};

use crate::archive::LoadError;

/// Shell of commands that are not written as a JSON list.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies one instruction, such as `CMD ["sh"]`.
///
/// # Errors
/// [`LoadError::Change`] if the instruction is unknown or malformed.
pub fn apply(config: &mut RunConfig, text: &str) -> Result<(), LoadError> {
    apply_instruction(config, text).map_err(|why| LoadError::Change {
        change: text.to_owned(),
        why,
    })
}

fn apply_instruction(config: &mut RunConfig, text: &str) -> Result<(), String> {
    let text = text.trim();
    let (instruction, rest) = text
        .split_once(char::is_whitespace)
        .map_or((text, ""), |(i, rest)| (i, rest.trim()));
    let instruction = instruction.to_ascii_uppercase();
    let single = || match rest {
        "" => Err(format!("{instruction} needs a value")),
        rest => Ok(rest.to_owned()),
    };
    match instruction.as_str() {
        "CMD" => config.cmd = command(config, rest),
        "ENTRYPOINT" => config.entrypoint = command(config, rest),
        "SHELL" => config.shell = list(rest).ok_or("SHELL needs a JSON list")?,
        "ENV" => {
            for (key, value) in pairs(rest)? {
                let prefix = format!("{key}=");
                // In its place: what is read first may count for what is read later.
                let known = config.env.iter_mut().find(|e| e.starts_with(&prefix));
                match known {
                    Some(known) => *known = prefix + &value,
                    None => config.env.push(prefix + &value),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for port in single()?.split_whitespace() {
                for port in ports(port)? {
                    config.exposed_ports.insert(port, Empty {});
                }
            }
        }
        "USER" => config.user = single()?,
        "WORKDIR" => {
            let dir = single()?;
            config.working_dir = if dir.starts_with('/') {
                dir
            } else {
                format!("{}/{dir}", config.working_dir.trim_end_matches('/'))
            };
        }
        "VOLUME" => {
            let paths =
                list(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            if paths.is_empty() || paths.iter().any(String::is_empty) {
                return Err("VOLUME needs a path".into());
            }
            let empty = paths.into_iter().map(|path| (path, Empty {}));
            config.volumes.extend(empty);
        }
        "STOPSIGNAL" => config.stop_signal = Some(single()?),
        "HEALTHCHECK" => config.healthcheck = Some(health(config, rest)?),
        "ONBUILD" => config.on_build.push(single()?),
        other => return Err(format!("{other} is not a valid change command")),
    }
    Ok(())
}

/// A JSON list of texts.
fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn command(config: &RunConfig, text: &str) -> Vec<String> {
    match list(text) {
        Some(list) => list,
        None if text.is_empty() => Vec::new(),
        None => {
            let mut command: Vec<String> = if config.shell.is_empty() {
                SHELL.map(str::to_owned).to_vec()
            } else {
                config.shell.clone()
            };
            command.push(text.to_owned());
            command
        }
    }
}

/// `K=V K2="V 2"`, or the old `K V…` with one pair.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    let Some(first) = words.first() else {
        return Err("want NAME=VALUE".into());
    };
    if !first.contains('=') {
        return match text.split_once(char::is_whitespace) {
            Some((key, value)) => Ok(vec![(key.to_owned(), value.trim().to_owned())]),
            None => Err("want NAME=VALUE".into()),
        };
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!("want NAME=VALUE, not {word:?}")),
        })
        .collect()
}

/// Splits at white space outside quotes; quotes and backslashes are taken off.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or("ends in a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

/// `80`, `80/udp` or `8000-8010/tcp` as single ports with protocol.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{text:?} is no port: want PORT[-PORT][/tcp|udp|sctp]");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|&p| p > 0)
            .ok_or_else(wrong)
    };
    let (from, to) = (port(from)?, port(to)?);
    if from > to {
        return Err(wrong());
    }
    Ok((from..=to).map(|p| format!("{p}/{protocol}")).collect())
}

fn health(config: &RunConfig, text: &str) -> Result<HealthConfig, String> {
    let mut health = HealthConfig::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .unwrap_or((option, ""));
        let (name, value) = option.split_once('=').ok_or("an option needs =VALUE")?;
        let time = || duration(value).ok_or_else(|| format!("{value:?} is no duration"));
        match name {
            "interval" => health.interval = time()?,
            "timeout" => health.timeout = time()?,
            "start-period" => health.start_period = time()?,
            "start-interval" => health.start_interval = time()?,
            "retries" => {
                health.retries = value.parse().map_err(|_| "retries needs a number")?;
            }
            other => return Err(format!("unknown option --{other}")),
        }
        rest = after.trim();
    }
    let (kind, rest) = rest
        .split_once(char::is_whitespace)
        .map_or((rest, ""), |(kind, rest)| (kind, rest.trim()));
    health.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" => vec!["NONE".into()],
        "CMD" if !rest.is_empty() => match list(rest) {
            Some(list) => [vec!["CMD".into()], list].concat(),
            None if config.shell.is_empty() => vec!["CMD-SHELL".into(), rest.into()],
            None => [
                vec!["CMD".into()],
                config.shell.clone(),
                vec![rest.to_owned()],
            ]
            .concat(),
        },
        _ => return Err("want HEALTHCHECK NONE or HEALTHCHECK [OPTIONS] CMD COMMAND".into()),
    };
    Ok(health)
}

/// Go's notation (`1m30s`, `500ms`) in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let mut total = 0i64;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit_len = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let factor = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let part = number.parse::<i64>().ok()?.checked_mul(factor)?;
        total = total.checked_add(part)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> RunConfig {
        let mut config = RunConfig::default();
        for change in changes {
            apply(&mut config, change).unwrap();
        }
        config
    }

    #[test]
    fn changes_of_every_kind_are_applied() {
        let c = changed(&[
            "CMD [\"nginx\",\"-g\",\"daemon off;\"]",
            "entrypoint exec /start",
            "ENV A=1 B=\"two words\"",
            "ENV A=3",
            "EXPOSE 80 443/udp 8000-8001",
            "LABEL x=y",
            "USER www:www",
            "VOLUME [\"/data\"]",
            "VOLUME /a /b",
            "WORKDIR /srv",
            "WORKDIR app",
            "STOPSIGNAL SIGQUIT",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f localhost",
            "ONBUILD RUN true",
        ]);
        assert_eq!(c.cmd, ["nginx", "-g", "daemon off;"]);
        assert_eq!(c.entrypoint, ["/bin/sh", "-c", "exec /start"]);
        assert_eq!(c.env, ["A=3", "B=two words"]);
        let ports: Vec<&String> = c.exposed_ports.keys().collect();
        assert_eq!(ports, ["443/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!(c.volumes.len(), 3);
        assert_eq!(c.working_dir, "/srv/app");
        let health = c.healthcheck.unwrap();
        assert_eq!(health.test, ["CMD-SHELL", "curl -f localhost"]);
        assert_eq!((health.interval, health.retries), (90_000_000_000, 2));
    }

    #[test]
    fn changes_that_are_malformed_are_refused() {
        for bad in [
            "",
            "RUN x",
            "ENV",
            "ENV A",
            "ENV A=\"x",
            "EXPOSE 0",
            "EXPOSE 9-8",
            "EXPOSE 1/icmp",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=5 CMD x",
            "WORKDIR",
            "VOLUME",
        ] {
            assert!(apply(&mut RunConfig::default(), bad).is_err(), "{bad:?}");
        }
    }
}

//! `--ulimit NAME=SOFT[:HARD]`.

use hull_api_types::host_config::Ulimit;

const NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads one `--ulimit`.
pub(crate) fn parse(spec: &str) -> Result<Ulimit, String> {
    let (name, limits) = spec
        .split_once('=')
        .ok_or_else(|| format!("invalid ulimit argument: {spec}"))?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| super::scalar::go_int(text);
    let (soft, hard) = match limits.split(':').collect::<Vec<_>>().as_slice() {
        [soft] => {
            let soft = number(soft)?;
            (soft, soft)
        }
        [soft, hard] => (number(soft)?, number(hard)?),
        _ => {
            return Err(format!(
                "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
            ));
        }
    };
    if hard != -1 {
        if soft == -1 {
            return Err(format!(
                "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
            ));
        }
        if soft > hard {
            return Err(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            ));
        }
    }
    Ok(Ulimit {
        name: name.to_owned(),
        hard,
        soft,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_forms_and_errors() {
        let got = parse("nofile=1024:2048").unwrap();
        assert_eq!((got.soft, got.hard), (1024, 2048));
        assert_eq!(parse("core=0").unwrap().hard, 0);
        assert_eq!(parse("memlock=-1").unwrap().soft, -1);
        assert_eq!(parse("a").unwrap_err(), "invalid ulimit argument: a");
        assert_eq!(parse("foo=1").unwrap_err(), "invalid ulimit type: foo");
        assert!(parse("nofile=2:1").unwrap_err().contains("2 > 1"));
        assert!(parse("nofile=1:2:3").is_err());
    }
}

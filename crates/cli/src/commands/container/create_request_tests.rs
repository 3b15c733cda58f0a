//! Flags of `create` against the request they make and the messages they give.

use std::path::Path;

use hull_api_types::container::CreateRequest;

use super::create_request::build;
use crate::spec::Spec;

use clap::FromArgMatches;

fn request(args: &[&str]) -> Result<CreateRequest, String> {
    static SPEC: &Spec = &super::create::SPEC;
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    match crate::parse::parse(SPEC, "create", &args).map_err(|error| error.text().to_owned())? {
        crate::parse::Parsed::Matches(matches) => {
            let args = super::create::CreateArgs::from_arg_matches(&matches)
                .map_err(|error| error.to_string())?;
            let (image, command) = args.args.split_first().ok_or("no image")?;
            build(&args.flags, image, command, Path::new("/cwd"))
        }
        crate::parse::Parsed::Help(_) => Err("help".to_owned()),
    }
}

#[test]
fn build_flags_stop_at_the_image() {
    let got = request(&[
        "-it",
        "--rm",
        "-e",
        "A=1",
        "busybox",
        "sh",
        "-c",
        "echo -it --rm",
    ])
    .unwrap();
    assert_eq!(got.config.image, "busybox");
    assert_eq!(got.config.cmd.unwrap().0, ["sh", "-c", "echo -it --rm"]);
    assert!(
        got.config.tty
            && got.config.open_stdin
            && got.config.stdin_once
            && got.host_config.auto_remove
    );
    assert_eq!(got.config.env, ["A=1"]);
}

#[test]
fn build_short_forms_and_overrides() {
    let got = request(&[
        "-p80:81",
        "-m=64m",
        "--name",
        "x",
        "--name=y",
        "--rm=false",
        "-hweb",
        "--tty=true",
        "--memory-swap",
        "-1",
        "--cpus",
        "1.5",
        "i",
    ])
    .unwrap();
    assert_eq!(got.host_config.resources.memory, 64 << 20);
    assert_eq!(got.host_config.resources.memory_swap, -1);
    assert_eq!(got.host_config.resources.nano_cpus, 1_500_000_000);
    assert_eq!(got.config.hostname, "web");
    assert!(got.config.tty && !got.host_config.auto_remove);
    assert!(got.host_config.port_bindings.contains_key("81/tcp"));
    assert!(got.config.exposed_ports.contains_key("81/tcp"));
}

#[test]
fn build_volumes_networks_and_entrypoint() {
    let got = request(&[
        "-v",
        "./a:/b:ro",
        "-v",
        "/anon",
        "--network",
        "container:x",
        "--entrypoint",
        "",
        "--tmpfs",
        "/t:size=1m",
        "i",
    ])
    .unwrap();
    assert_eq!(got.host_config.binds.unwrap(), ["/cwd/a:/b:ro"]);
    assert!(got.config.volumes.unwrap().contains_key("/anon"));
    assert_eq!(got.host_config.network_mode, "container:x");
    assert!(got.networking_config.endpoints_config.is_empty());
    assert_eq!(got.config.entrypoint.unwrap().0, [""]);
    assert_eq!(got.host_config.tmpfs["/t"], "size=1m");
}

#[test]
fn build_health_and_conflicts() {
    let got = request(&["--health-cmd", "true", "--health-interval", "5s", "i"])
        .unwrap()
        .config
        .healthcheck
        .unwrap();
    assert_eq!(got.test, ["CMD-SHELL", "true"]);
    assert_eq!(got.interval, 5_000_000_000);
    assert_eq!(
        request(&["--rm", "--restart=always", "i"]).unwrap_err(),
        "conflicting options: cannot specify both --restart and --rm"
    );
    assert_eq!(
        request(&["--no-healthcheck", "--health-cmd=x", "i"]).unwrap_err(),
        "--no-healthcheck conflicts with --health-* options"
    );
    assert_eq!(
        request(&["-p", "99999:1", "i"]).unwrap_err(),
        "invalid hostPort: 99999"
    );
}

#[test]
fn build_wrong_flags_read_as_dockers() {
    let tail = "\n\nUsage:  hull create [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'hull create --help' for more information";
    let error = |args: &[&str]| request(args).unwrap_err();
    assert_eq!(error(&["--foo", "x"]), format!("unknown flag: --foo{tail}"));
    assert_eq!(
        error(&["-Z"]),
        format!("unknown shorthand flag: 'Z' in -Z{tail}")
    );
    assert_eq!(
        error(&["-p"]),
        format!("flag needs an argument: 'p' in -p{tail}")
    );
    assert_eq!(
        error(&["--name"]),
        format!("flag needs an argument: --name{tail}")
    );
    assert_eq!(
        error(&["--memory=abc", "x"]),
        format!("invalid argument \"abc\" for \"-m, --memory\" flag: invalid size: 'abc'{tail}")
    );
    assert_eq!(
        error(&["--rm=foo", "x"]),
        format!(
            "invalid argument \"foo\" for \"--rm\" flag: strconv.ParseBool: parsing \"foo\": invalid syntax{tail}"
        )
    );
    assert_eq!(
        error(&["--cpu-shares=abc", "x"]),
        format!(
            "invalid argument \"abc\" for \"-c, --cpu-shares\" flag: strconv.ParseInt: parsing \"abc\": invalid syntax{tail}"
        )
    );
    assert_eq!(
        error(&["--mount", "type=foo,src=a", "x"]),
        format!(
            "invalid argument \"type=foo,src=a\" for \"--mount\" flag: target is required{tail}"
        )
    );
    assert!(error(&[]).starts_with("hull: 'hull create' requires at least 1 argument\n\nUsage:  hull create [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nSee "));
}

//! Small profiles of one purpose each, and many made up ones against the naive reading.

use super::interpreter::run;
use super::{Call, Numbers, env, naive, program};
use crate::{Arch, CompileError, Profile};

fn parse(json: &str) -> Profile {
    Profile::parse(json.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

fn one_test(op: &str, value: u64, value_two: u64) -> Profile {
    // "readahead" takes a 64 bit offset as its second argument.
    parse(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["readahead"],"action":"SCMP_ACT_LOG",
            "args":[{{"index":1,"value":{value},"valueTwo":{value_two},"op":"{op}"}}]}}]}}"#
    ))
}

#[test]
fn compile_each_operator_compares_64_bits() {
    let env = env(Arch::X86_64, &[]);
    let edges = [
        0,
        1,
        2,
        0xffff_fffe,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        0x2_0000_0000,
        0x2_0000_0001,
        0xffff_ffff_0000_0000,
        u64::MAX - 1,
        u64::MAX,
    ];
    for value in edges {
        for arg in edges {
            let mut call = Call::new(Arch::X86_64, "readahead", &[]);
            call.args[1] = arg;
            for (op, holds) in [
                ("SCMP_CMP_NE", arg != value),
                ("SCMP_CMP_LT", arg < value),
                ("SCMP_CMP_LE", arg <= value),
                ("SCMP_CMP_EQ", arg == value),
                ("SCMP_CMP_GE", arg >= value),
                ("SCMP_CMP_GT", arg > value),
                ("SCMP_CMP_MASKED_EQ", arg & value == 1),
            ] {
                let answer = run(&program(&one_test(op, value, 1), &env), &call);
                let wanted = if holds { 0x7ffc_0000 } else { 0x7fff_0000 };
                assert_eq!(answer, wanted, "{arg:#x} {op} {value:#x}");
            }
        }
    }
}

#[test]
fn compile_every_action_returns_its_value() {
    for (action, errno, wanted) in [
        ("SCMP_ACT_ALLOW", 0, 0x7fff_0000),
        ("SCMP_ACT_ERRNO", 13, 0x0005_000d),
        ("SCMP_ACT_KILL", 0, 0),
        ("SCMP_ACT_KILL_THREAD", 0, 0),
        ("SCMP_ACT_KILL_PROCESS", 0, 0x8000_0000_u32),
        ("SCMP_ACT_TRAP", 0, 0x0003_0000),
        ("SCMP_ACT_LOG", 0, 0x7ffc_0000),
        ("SCMP_ACT_TRACE", 7, 0x7ff0_0007),
        ("SCMP_ACT_NOTIFY", 0, 0x7fc0_0000),
    ] {
        let profile = parse(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"{action}","errnoRet":{errno}}}]}}"#
        ));
        let program = program(&profile, &env(Arch::X86_64, &[]));
        assert_eq!(
            run(&program, &Call::new(Arch::X86_64, "read", &[])),
            wanted,
            "{action}"
        );
        assert_eq!(program.needs_listener(), action == "SCMP_ACT_NOTIFY");
    }
}

#[test]
fn resolve_flags_become_bits() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW","SECCOMP_FILTER_FLAG_TSYNC"]}"#,
    );
    assert_eq!(program(&profile, &env(Arch::X86_64, &[])).flags(), 0b110);
    let alone = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
    );
    assert!(alone.resolve(&env(Arch::X86_64, &[])).is_err());
}

#[test]
fn resolve_oci_profile_without_architectures_kills_foreign_calls() {
    let profile = parse(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}"#);
    let program = program(&profile, &env(Arch::X86_64, &[]));
    assert_eq!(
        run(&program, &Call::new(Arch::X86_64, "read", &[])),
        0x7fff_0000
    );
    assert_eq!(
        run(&program, &Call::new(Arch::X86, "read", &[])),
        0x8000_0000
    );
    assert_eq!(
        run(&program, &Call::new(Arch::X32, "read", &[])),
        0x8000_0000
    );
}

#[test]
fn resolve_allowing_default_hides_no_new_calls() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO"}]}"#,
    );
    let program = program(&profile, &env(Arch::X86_64, &[]));
    let call = Call {
        arch: Arch::X86_64.audit(),
        number: 5000,
        args: [0; 6],
    };
    assert_eq!(run(&program, &call), 0x7fff_0000);
}

#[test]
fn resolve_unknown_names_are_passed_over() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["no_such_call","read"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    let program = program(&profile, &env(Arch::X86_64, &[]));
    assert_eq!(
        run(&program, &Call::new(Arch::X86_64, "read", &[])),
        0x7fff_0000
    );
}

#[test]
fn resolve_socket_rule_without_arguments_reaches_socketcall() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[
            {"names":["bind"],"action":"SCMP_ACT_ALLOW"},
            {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    let program = program(&profile, &env(Arch::X86_64, &[]));
    assert_eq!(
        run(&program, &Call::new(Arch::X86, "socketcall", &[2])),
        0x7fff_0000,
        "SYS_BIND"
    );
    assert_eq!(
        run(&program, &Call::new(Arch::X86, "socketcall", &[1])),
        0x0005_0001,
        "SYS_SOCKET"
    );
}

#[test]
fn compile_too_many_rules_is_refused_by_name() {
    let args: Vec<String> = (0..3000_u64)
        .map(|value| {
            format!(
                r#"{{"index":1,"value":{},"op":"SCMP_CMP_EQ"}}"#,
                value << 20
            )
        })
        .collect();
    let profile = parse(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["readahead"],"action":"SCMP_ACT_ALLOW","args":[{}]}}]}}"#,
        args.join(",")
    ));
    let filter = profile.resolve(&env(Arch::X86_64, &[])).expect("resolved");
    assert!(matches!(filter.compile(), Err(CompileError::TooLong)));
}

#[test]
fn compile_made_up_profiles_match_naive_reading() {
    let mut numbers = Numbers::new(7);
    let names: Vec<&str> = Arch::X86_64.syscall_names().collect();
    let actions = ["ALLOW", "ERRNO", "KILL_PROCESS", "TRAP", "LOG", "TRACE"];
    let ops = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let values = [
        0,
        1,
        5,
        0xffff_ffff,
        0x1_0000_0000,
        0xffff_ffff_ffff_fffe,
        0x8000_0000,
        0xffff_ffff_8000_0000,
    ];
    for _ in 0..60 {
        let mut pick = |list: &[&str]| list[numbers.below(list.len() as u64) as usize].to_owned();
        let default = pick(&["ERRNO", "ALLOW", "KILL_PROCESS"]);
        let mut rules = Vec::new();
        for _ in 0..60 {
            let name = if numbers.below(4) == 0 {
                "socket"
            } else {
                names[numbers.below(names.len() as u64) as usize]
            };
            let action = actions[numbers.below(6) as usize];
            let args: Vec<String> = (0..numbers.below(3))
                .map(|_| {
                    let (index, op) = (numbers.below(6), ops[numbers.below(7) as usize]);
                    let value = values[numbers.below(8) as usize];
                    let two = values[numbers.below(8) as usize];
                    format!(r#"{{"index":{index},"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}"#)
                })
                .collect();
            let errno = numbers.below(3);
            rules.push(format!(
                r#"{{"names":["{name}"],"action":"SCMP_ACT_{action}","errnoRet":{errno},"args":[{}]}}"#,
                args.join(",")
            ));
        }
        let profile = parse(&format!(
            r#"{{"defaultAction":"SCMP_ACT_{default}","architectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[{}]}}"#,
            rules.join(",")
        ));
        let env = env(Arch::X86_64, &[]);
        let program = program(&profile, &env);
        for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
            for name in names
                .iter()
                .filter(|name| arch.syscall_number(name).is_some())
            {
                for _ in 0..4 {
                    let mut call = Call::new(arch, name, &[]);
                    for arg in &mut call.args {
                        *arg = values[numbers.below(8) as usize];
                    }
                    let wanted = naive::evaluate(&profile, &env, &call).to_return_value();
                    assert_eq!(run(&program, &call), wanted, "{call:x?} {name} {profile:?}");
                }
            }
        }
    }
}

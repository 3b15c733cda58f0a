//! Arguments, and what is refused.

use std::os::fd::{AsRawFd, OwnedFd};

use super::*;
use crate::machine::{Disk, Nic, Share};

fn fd() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

fn machine() -> Machine {
    Machine {
        kernel: "/k".into(),
        initrd: Some("/i".into()),
        command_line: "console=ttyS0 quiet".into(),
        processors: 2,
        memory: 256 << 20,
        disks: vec![
            Disk {
                file: fd(),
                read_only: true,
                serial: "image".into(),
            },
            Disk {
                file: fd(),
                read_only: false,
                serial: String::new(),
            },
        ],
        nics: vec![Nic {
            tap: fd(),
            mac: "02:42:ac:11:00:02".into(),
            mtu: Some(1400),
        }],
        shares: Vec::new(),
        console: fd(),
        channel: fd(),
        channel_name: "hull.agent".into(),
    }
}

fn values<'a>(args: &'a [String], name: &str) -> Vec<&'a str> {
    args.windows(2)
        .filter(|pair| pair[0] == name)
        .map(|pair| pair[1].as_str())
        .collect()
}

#[test]
fn build_names_each_descriptor_by_its_number() {
    let (machine, monitor) = (machine(), fd());
    let args = args::build(&machine, Accelerator::Emulation, monitor.as_fd());
    let all = args.join(" ");
    for (what, fd) in [
        ("socket,id=monitor,fd=", &monitor),
        ("socket,id=console,fd=", &machine.console),
        ("socket,id=channel,fd=", &machine.channel),
        ("tap,id=nic0,fd=", &machine.nics[0].tap),
    ] {
        let wanted = format!("{what}{}", fd.as_raw_fd());
        assert!(all.contains(&wanted), "{wanted} in {all}");
    }
    let sets = values(&args, "-add-fd");
    let wanted = format!("fd={},set=2", machine.disks[1].file.as_raw_fd());
    assert_eq!(sets[1], wanted);
    assert!(
        values(&args, "-device")
            .contains(&"virtio-blk-device,drive=disk0,werror=report,rerror=report,serial=image")
    );
    assert!(
        values(&args, "-device")
            .contains(&"virtio-blk-device,drive=disk1,werror=report,rerror=report")
    );
    assert!(values(&args, "-blockdev")[0].contains("read-only=on"));
    assert!(values(&args, "-blockdev")[1].contains("discard=unmap"));
    assert!(values(&args, "-append")[0].starts_with("console=ttyS0 quiet"));
    assert_eq!(values(&args, "-kernel"), [args::KERNEL]);
}

#[test]
fn build_for_kvm_uses_the_processor_as_it_is() {
    let args = args::build(&machine(), Accelerator::Kvm, fd().as_fd());
    assert_eq!(values(&args, "-accel"), ["kvm"]);
    assert_eq!(values(&args, "-cpu"), ["host"]);
    assert!(!args.join(" ").contains("memfd"));
}

#[test]
fn build_with_shares_has_memory_that_can_be_shared() {
    let mut machine = machine();
    machine.shares.push(Share {
        server: fd(),
        tag: "data".into(),
    });
    let args = args::build(&machine, Accelerator::Emulation, fd().as_fd());
    assert!(values(&args, "-M")[0].ends_with("memory-backend=memory"));
    assert!(values(&args, "-object")[0].contains("size=256M,share=on"));
}

#[test]
fn check_values_that_could_be_taken_for_options_are_refused() {
    let refused = |change: fn(&mut Machine)| {
        let mut machine = machine();
        change(&mut machine);
        args::check(&machine).unwrap_err().to_string()
    };
    args::check(&machine()).unwrap();
    assert!(refused(|m| m.memory = 1 << 20).contains("memory"));
    assert!(refused(|m| m.processors = 0).contains("processors"));
    assert!(refused(|m| m.disks[0].serial = "a,drive=x".into()).contains("serial"));
    assert!(refused(|m| m.nics[0].mac = "02:42:ac:11:00".into()).contains("hardware"));
    assert!(refused(|m| m.nics[0].mac = "02:42:ac:11:00:02,x=y".into()).contains("hardware"));
    assert!(refused(|m| m.channel_name = "a b".into()).contains("channel"));
    assert!(refused(|m| m.command_line = "a\nb".into()).contains("command line"));
    assert!(refused(|m| m.command_line = "x".repeat(4000)).contains("command line"));
    assert!(
        refused(|m| {
            for _ in 0..40 {
                m.disks.push(Disk {
                    file: fd(),
                    read_only: true,
                    serial: String::new(),
                });
            }
        })
        .contains("fit")
    );
}

#[test]
fn can_is_honest() {
    let qemu = Qemu::new("/q".into(), Accelerator::Kvm);
    assert!(qemu.can(Ability::MemoryWithinBoot));
    assert!(!qemu.can(Ability::MemoryBeyondBoot));
    assert!(!qemu.can(Ability::Processors));
}

#[test]
fn build_emulated_kernel_is_told_how_fast_its_clock_runs() {
    let (machine, monitor) = (machine(), fd());
    let words = |accelerator| {
        let args = args::build(&machine, accelerator, monitor.as_fd());
        values(&args, "-append").join(" ")
    };
    assert_eq!(words(Accelerator::Kvm), "console=ttyS0 quiet");
    let emulated = words(Accelerator::Emulation);
    assert!(emulated.starts_with("console=ttyS0 quiet"), "{emulated}");
    #[cfg(target_arch = "x86_64")]
    assert!(emulated.contains(" tsc_early_khz="), "{emulated}");
}

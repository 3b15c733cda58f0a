//! A machine as QEMU's arguments.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::machine::{BootError, Machine};
use crate::probe::Accelerator;

/// The kernel's path in the cell.
pub(super) const KERNEL: &str = "/machine/kernel";
/// The initrd's.
pub(super) const INITRD: &str = "/machine/initrd";
/// Translated code is kept in so many MiB: QEMU's own default is an eighth of the host's memory.
const TRANSLATED: u64 = 64;
/// A disk's serial number is at most so long (virtio).
const MAX_SERIAL: usize = 20;
/// A share's tag, likewise.
const MAX_TAG: usize = 36;
/// Devices beside the fixed three; a microvm has 24 places.
const MAX_DEVICES: usize = 20;
const MIN_MEMORY: u64 = 32 << 20;
const MAX_PROCESSORS: u32 = 255;
/// The kernel takes so much.
const MAX_COMMAND_LINE: usize = 1800;

/// Bytes of translated code.
pub(super) fn translated(accelerator: Accelerator) -> u64 {
    match accelerator {
        Accelerator::Kvm => 0,
        Accelerator::Emulation => TRANSLATED << 20,
    }
}

/// Refuses what QEMU would refuse in words of its own, or take for an option of its own.
pub(super) fn check(machine: &Machine) -> Result<(), BootError> {
    let invalid = |text: String| Err(BootError::Invalid(text));
    if machine.memory < MIN_MEMORY {
        return invalid(format!(
            "{} MiB of memory: a guest needs {} at least",
            machine.memory >> 20,
            MIN_MEMORY >> 20
        ));
    }
    if machine.processors == 0 || machine.processors > MAX_PROCESSORS {
        return invalid(format!(
            "{} processors: from 1 to {MAX_PROCESSORS} can be",
            machine.processors
        ));
    }
    let devices = machine.disks.len() + machine.nics.len() + machine.shares.len();
    if devices > MAX_DEVICES {
        return invalid(format!(
            "{devices} disks, interfaces and shares: {MAX_DEVICES} fit"
        ));
    }
    if machine.command_line.len() > MAX_COMMAND_LINE
        || machine.command_line.chars().any(char::is_control)
    {
        return invalid("the kernel's command line is too long or not one line".into());
    }
    let word = |text: &str, limit| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        text.len() <= limit && text.chars().all(fits)
    };
    if let Some(disk) = machine
        .disks
        .iter()
        .find(|disk| !word(&disk.serial, MAX_SERIAL))
    {
        return invalid(format!("serial number {:?} of a disk", disk.serial));
    }
    if let Some(share) = machine
        .shares
        .iter()
        .find(|share| share.tag.is_empty() || !word(&share.tag, MAX_TAG))
    {
        return invalid(format!("tag {:?} of a share", share.tag));
    }
    if let Some(nic) = machine.nics.iter().find(|nic| !is_mac(&nic.mac)) {
        return invalid(format!("hardware address {:?}", nic.mac));
    }
    if machine.channel_name.is_empty() || !word(&machine.channel_name, MAX_TAG) {
        return invalid(format!("name {:?} of the channel", machine.channel_name));
    }
    Ok(())
}

fn is_mac(text: &str) -> bool {
    let mut count = 0;
    text.split(':').all(|part| {
        count += 1;
        part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit())
    }) && count == 6
}

/// The arguments after the program's name. Descriptors are named by the numbers they have here.
pub(super) fn build(
    machine: &Machine,
    accelerator: Accelerator,
    monitor: BorrowedFd<'_>,
) -> Vec<String> {
    let mut args = Args::default();
    let shared = !machine.shares.is_empty();
    let backend = if shared { ",memory-backend=memory" } else { "" };
    // Without KVM's clock a kernel asks the clock chip for the time, and waits for one that is not
    // there for up to a second.
    let rtc = match accelerator {
        Accelerator::Kvm => "off",
        Accelerator::Emulation => "on",
    };
    args.pair(
        "-M",
        format!("microvm,x-option-roms=off,rtc={rtc},acpi=off{backend}"),
    );
    match accelerator {
        Accelerator::Kvm => {
            args.pair("-accel", "kvm".into());
            args.pair("-cpu", "host".into());
        }
        Accelerator::Emulation => {
            args.pair("-accel", format!("tcg,tb-size={TRANSLATED}"));
            args.pair("-cpu", "max".into());
        }
    }
    let mib = machine.memory >> 20;
    args.pair("-m", format!("{mib}M"));
    if shared {
        // What another process is to read and write must be a file.
        // Who speaks with another process speaks as virtio 1.0 has it.
        args.pair("-global", "virtio-mmio.force-legacy=false".into());
        args.pair(
            "-object",
            format!("memory-backend-memfd,id=memory,size={mib}M,share=on"),
        );
    }
    args.pair("-smp", machine.processors.to_string());
    for flag in ["-no-user-config", "-nodefaults", "-no-reboot"] {
        args.0.push(flag.into());
    }
    args.pair("-display", "none".into());
    // Its own filter, inside ours: it starts no process and changes no user.
    args.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".into(),
    );
    args.socket("monitor", monitor.as_raw_fd());
    args.pair("-mon", "chardev=monitor,mode=control".into());
    args.socket("console", machine.console.as_raw_fd());
    args.pair("-serial", "chardev:console".into());
    args.pair("-kernel", KERNEL.into());
    if machine.initrd.is_some() {
        args.pair("-initrd", INITRD.into());
    }
    args.pair("-append", command_line(machine, accelerator));
    args.socket("channel", machine.channel.as_raw_fd());
    args.pair("-device", "virtio-serial-device,max_ports=2".into());
    args.pair(
        "-device",
        format!(
            "virtserialport,chardev=channel,name={}",
            machine.channel_name
        ),
    );
    args.pair(
        "-device",
        "virtio-balloon-device,free-page-reporting=on,deflate-on-oom=on".into(),
    );
    args.devices(machine);
    args.0
}

/// Of our own kernel (CONFIG_HZ_100); with another's the pauses of drivers are too long.
const MS_PER_JIFFY: u64 = 10;
/// An emulated timer works, and an emulated processor does not speculate.
const EMULATED: &str = "no_timer_check mitigations=off";

/// The words for the kernel, and how fast its clock runs: an emulated counter is the host's own, and
/// a guest that had to measure it, without a timer it could trust, would fall back to ticks of
/// 10 ms, or take as long to find out.
fn command_line(machine: &Machine, accelerator: Accelerator) -> String {
    let words = &machine.command_line;
    let speed = match accelerator {
        Accelerator::Kvm => None,
        Accelerator::Emulation => hull_sys::tsc::khz(),
    };
    match speed {
        Some(khz) => {
            // Else each processor but the first measures for up to a second how fast it counts.
            let loops = match machine.processors {
                0 | 1 => String::new(),
                _ => format!(" lpj={}", khz * MS_PER_JIFFY),
            };
            format!("{words} tsc_early_khz={khz} tsc=reliable{loops} {EMULATED}")
        }
        None => words.clone(),
    }
}

#[derive(Default)]
struct Args(Vec<String>);

impl Args {
    fn pair(&mut self, name: &str, value: String) {
        self.0.push(name.into());
        self.0.push(value);
    }

    fn socket(&mut self, id: &str, fd: i32) {
        self.pair("-chardev", format!("socket,id={id},fd={fd}"));
    }

    fn devices(&mut self, machine: &Machine) {
        for (index, disk) in machine.disks.iter().enumerate() {
            let (fd, set) = (disk.file.as_raw_fd(), index + 1);
            self.pair("-add-fd", format!("fd={fd},set={set}"));
            // Who may use a file was decided when it was opened; what the guest frees is freed.
            let access = if disk.read_only {
                "read-only=on"
            } else {
                "read-only=off,discard=unmap,detect-zeroes=unmap"
            };
            self.pair(
                "-blockdev",
                format!(
                    "driver=raw,node-name=disk{index},{access},file.driver=file,file.locking=off,file.filename=/dev/fdset/{set}"
                ),
            );
            let serial = if disk.serial.is_empty() {
                String::new()
            } else {
                format!(",serial={}", disk.serial)
            };
            self.pair(
                "-device",
                // A full disk of the host's is the guest's failed write, not a guest that stands.
                format!("virtio-blk-device,drive=disk{index},werror=report,rerror=report{serial}"),
            );
        }
        for (index, nic) in machine.nics.iter().enumerate() {
            let fd = nic.tap.as_raw_fd();
            self.pair("-netdev", format!("tap,id=nic{index},fd={fd},vhost=off"));
            let mtu = nic
                .mtu
                .map(|mtu| format!(",host_mtu={mtu}"))
                .unwrap_or_default();
            self.pair(
                "-device",
                format!("virtio-net-device,netdev=nic{index},mac={}{mtu}", nic.mac),
            );
        }
        for (index, share) in machine.shares.iter().enumerate() {
            self.socket(&format!("share{index}"), share.server.as_raw_fd());
            self.pair(
                "-device",
                format!(
                    "vhost-user-fs-device,chardev=share{index},tag={},queue-size=1024",
                    share.tag
                ),
            );
        }
    }
}

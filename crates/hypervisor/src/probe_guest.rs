//! A guest of 64 KiB that does what a kernel does in its first milliseconds.
//!
//! A KVM that is itself nested may let only small guests through: the outer hypervisor leaves it
//! to emulate each instruction of a guest's kernel, and its emulator knows few. A stock kernel
//! then hangs or dies at the first atomic exchange of 16 bytes, at saving the vector registers or
//! at a breakpoint of its self-test. This guest executes just those, telling by a byte to a port
//! how far it came, and so a host is known in milliseconds instead of by a boot that never ends.

use std::sync::mpsc;
use std::time::Duration;

use hull_sys::Errno;
use hull_sys::kvm::{Kvm, LongMode, Stop};

use crate::probe::Unusable;

const API_VERSION: i32 = 12;
/// How long the guest may run; it needs microseconds.
const LIMIT: Duration = Duration::from_millis(400);
/// How long all of it may take, should the kernel itself hang.
const HANG: Duration = Duration::from_millis(900);

const MEMORY: usize = 0x10000;
const PML4: usize = 0x1000;
const PDPT: usize = 0x2000;
const DIRECTORY: usize = 0x3000;
const GDT: usize = 0x4000;
const IDT: usize = 0x5000;
const CODE: usize = 0x6000;
const BREAKPOINT: usize = 0x6100;
const FAULT: usize = 0x6200;
// At 0x7000 the vector registers are saved, at 0x8000 lie the 16 bytes to exchange.

const PORT: u16 = 0x10;
/// What the guest is about to do after so many bytes of [`SAID`].
const STEPS: [&str; 5] = [
    "its first instruction in 64-bit mode",
    "cmpxchg16b",
    "xsetbv, xsave and xrstor",
    "int3",
    "iretq",
];
/// All that it says, one byte after each step.
const SAID: &[u8] = b"abcde";
const FAULTED: u8 = b'x';

#[rustfmt::skip]
const PROGRAM: [u8; 61] = [
    0xB0, b'a', 0xE6, 0x10,                   // mov al, 'a'; out 0x10, al
    0x31, 0xC0, 0x31, 0xD2,                   // xor eax, eax; xor edx, edx
    0x31, 0xDB, 0x31, 0xC9,                   // xor ebx, ebx; xor ecx, ecx
    0xBF, 0x00, 0x80, 0x00, 0x00,             // mov edi, 0x8000
    0xF0, 0x48, 0x0F, 0xC7, 0x0F,             // lock cmpxchg16b [rdi]
    0xB0, b'b', 0xE6, 0x10,
    0x31, 0xC9, 0x31, 0xD2,                   // xor ecx, ecx; xor edx, edx
    0xB8, 0x03, 0x00, 0x00, 0x00,             // mov eax, 3
    0x0F, 0x01, 0xD1,                         // xsetbv
    0xBF, 0x00, 0x70, 0x00, 0x00,             // mov edi, 0x7000
    0x48, 0x0F, 0xAE, 0x27,                   // xsave64 [rdi]
    0x48, 0x0F, 0xAE, 0x2F,                   // xrstor64 [rdi]
    0xB0, b'c', 0xE6, 0x10,
    0xCC,                                     // int3
    0xB0, b'e', 0xE6, 0x10,
    0xF4,                                     // hlt
];
/// out 'd'; iretq
const ON_BREAKPOINT: [u8; 6] = [0xB0, b'd', 0xE6, 0x10, 0x48, 0xCF];
/// out 'x'; hlt
const ON_FAULT: [u8; 5] = [0xB0, FAULTED, 0xE6, 0x10, 0xF4];

/// Whether an ordinary kernel has a chance.
pub(crate) fn check() -> Result<(), Unusable> {
    let (sender, receiver) = mpsc::channel();
    // A thread of its own, because signals are blocked in it, and because it may hang.
    let started = std::thread::Builder::new()
        .name("kvm-probe".into())
        .spawn(move || sender.send(run()));
    if started.is_err() {
        return Err(Unusable::Failed {
            step: "start a thread for a probe",
            errno: Errno::AGAIN,
        });
    }
    receiver.recv_timeout(HANG).unwrap_or_else(|_| {
        Err(Unusable::Incapable {
            what: "made the kernel hang".into(),
            at: "its start",
        })
    })
}

fn run() -> Result<(), Unusable> {
    let failed = |step| move |errno| Unusable::Failed { step, errno };
    let kvm = Kvm::open().map_err(|errno| match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => Unusable::Missing,
        Errno::ACCESS | Errno::PERM => Unusable::NoPermission,
        errno => failed("open it")(errno),
    })?;
    let version = kvm.api_version().map_err(failed("ask for its version"))?;
    if version != API_VERSION {
        return Err(failed("speak its version")(Errno::PROTO));
    }
    let mut machine = kvm.create(MEMORY).map_err(|errno| match errno {
        Errno::BUSY => Unusable::Held,
        errno => failed("make a machine")(errno),
    })?;
    load(&mut |address, bytes| machine.write(address, bytes))
        .map_err(failed("fill the memory of a machine"))?;
    let start = LongMode {
        page_table: PML4 as u64,
        gdt: GDT as u64,
        idt: IDT as u64,
        entry: CODE as u64,
        stack: MEMORY as u64,
    };
    let mut processor = machine.processor(&start).map_err(|errno| match errno {
        Errno::BUSY => Unusable::Held,
        errno => failed("make a processor")(errno),
    })?;
    let mut said = Vec::new();
    let stop = processor
        .run(LIMIT, |port, byte| {
            if port == PORT && said.len() <= SAID.len() {
                said.push(byte);
            }
        })
        .map_err(failed("run a processor"))?;
    judge(&said, stop)
}

type Write<'a> = dyn FnMut(usize, &[u8]) -> hull_sys::Result<()> + 'a;

/// Page tables that map the first 2 MiB to themselves, descriptors, handlers, and the program.
fn load(write: &mut Write<'_>) -> hull_sys::Result<()> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let mut word = |address: usize, value: u64| write(address, &value.to_le_bytes());
    word(PML4, PDPT as u64 | PRESENT_WRITABLE)?;
    word(PDPT, DIRECTORY as u64 | PRESENT_WRITABLE)?;
    word(DIRECTORY, LARGE | PRESENT_WRITABLE)?;
    // Code of 64 bits, and data.
    word(GDT + 8, 0x00AF_9B00_0000_FFFF)?;
    word(GDT + 16, 0x00CF_9300_0000_FFFF)?;
    for vector in 0..32 {
        let handler = if vector == 3 { BREAKPOINT } else { FAULT };
        // Interrupt gate: offset, selector 8, kind, rest of the offset.
        word(IDT + 16 * vector, handler as u64 | 8 << 16 | 0x8E << 40)?;
    }
    write(CODE, &PROGRAM)?;
    write(BREAKPOINT, &ON_BREAKPOINT)?;
    write(FAULT, &ON_FAULT)
}

fn judge(said: &[u8], stop: Stop) -> Result<(), Unusable> {
    if said == SAID && stop == Stop::Halted {
        return Ok(());
    }
    let done = said.iter().zip(SAID).take_while(|(a, b)| a == b).count();
    let what = match stop {
        Stop::Halted if said.last() == Some(&FAULTED) => "got a fault".into(),
        Stop::Halted => "went astray".into(),
        Stop::InternalError(1) => "could not be emulated further (KVM_EXIT_INTERNAL_ERROR)".into(),
        Stop::InternalError(code) => format!("ended in KVM_EXIT_INTERNAL_ERROR {code}"),
        Stop::Shutdown => "shut down".into(),
        Stop::FailedEntry(code) => format!("could not be entered (hardware reason {code:#x})"),
        Stop::TimeUp => format!("gave no answer within {} ms", LIMIT.as_millis()),
        Stop::Other(number) => format!("stopped with exit {number}"),
    };
    Err(Unusable::Incapable {
        what,
        at: STEPS.get(done).copied().unwrap_or("its end"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judge_guest_that_came_through_is_fit() {
        assert_eq!(judge(SAID, Stop::Halted), Ok(()));
    }

    #[test]
    fn judge_guest_that_stopped_names_the_instruction() {
        for (said, stop, at) in [
            (&b""[..], Stop::FailedEntry(0x8000_0021), STEPS[0]),
            (b"a", Stop::InternalError(1), "cmpxchg16b"),
            (b"ab", Stop::TimeUp, STEPS[2]),
            (b"abc", Stop::Shutdown, "int3"),
            (b"abcx", Stop::Halted, "int3"),
            (b"abcd", Stop::Other(7), "iretq"),
            (b"abcde", Stop::Shutdown, "its end"),
        ] {
            let reason = judge(said, stop).unwrap_err().to_string();
            assert!(reason.ends_with(at), "{reason}");
        }
    }

    #[test]
    fn load_guest_fits_its_memory() {
        let mut highest = 0;
        load(&mut |address, bytes| {
            highest = highest.max(address + bytes.len());
            Ok(())
        })
        .unwrap();
        assert!(highest <= 0x7000, "{highest:#x}");
    }
}

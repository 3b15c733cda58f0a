//! The kernel's virtual machines (KVM), as much of them as a machine with one processor needs.
//!
//! Numbers and layouts are those of Linux's `kvm.h` for x86-64, which never change.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::signal::{self, SignalSet};
use crate::{Errno, Result, check};

const GET_API_VERSION: libc::c_ulong = 0xAE00;
const CREATE_VM: libc::c_ulong = 0xAE01;
const GET_VCPU_MMAP_SIZE: libc::c_ulong = 0xAE04;
const GET_SUPPORTED_CPUID: libc::c_ulong = 0xC008_AE05;
const CREATE_VCPU: libc::c_ulong = 0xAE41;
const SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_AE46;
const RUN: libc::c_ulong = 0xAE80;
const SET_REGS: libc::c_ulong = 0x4090_AE82;
const GET_SREGS: libc::c_ulong = 0x8138_AE83;
const SET_SREGS: libc::c_ulong = 0x4138_AE84;
const SET_SIGNAL_MASK: libc::c_ulong = 0x4004_AE8B;
const SET_CPUID2: libc::c_ulong = 0x4008_AE90;

const EXIT_IO: u32 = 2;
const EXIT_HLT: u32 = 5;
const EXIT_SHUTDOWN: u32 = 8;
const EXIT_FAIL_ENTRY: u32 = 9;
const EXIT_INTR: u32 = 10;
const EXIT_INTERNAL_ERROR: u32 = 17;

/// Offsets in the page that the kernel shares with who runs a processor.
const EXIT_REASON: usize = 8;
const EXIT_DATA: usize = 32;
const IO_DIRECTION_OUT: u8 = 1;

/// Entries of a processor's description; hosts have some 50.
const CPUID_ENTRIES: usize = 256;
const CPUID_ENTRY: usize = 40;

/// The signal that ends a run whose time is up. It is blocked while it is of use, so that nobody
/// has to handle it.
const KICK: i32 = libc::SIGUSR2;

/// A way to make virtual machines.
#[derive(Debug)]
pub struct Kvm(OwnedFd);

/// Memory of ours that is unmapped with its owner.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is memory of the process, which any thread may use.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(length: usize, fd: RawFd, flags: libc::c_int) -> Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = check(unsafe {
            libc::syscall(
                libc::SYS_mmap,
                std::ptr::null::<u8>(),
                length,
                protection,
                flags,
                fd,
                0,
            )
        })?;
        let start = NonNull::new(start as *mut u8).ok_or(Errno::NOMEM)?;
        Ok(Self { start, length })
    }

    /// A copy of some bytes; zeros beyond the end.
    fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        if at.checked_add(N).is_some_and(|end| end <= self.length) {
            // SAFETY: the range lies in the mapping, and the kernel writes to it only in a call
            // that this thread makes.
            unsafe {
                let from = self.start.as_ptr().add(at);
                std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), N);
            }
        }
        bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference into it is ever given out.
        unsafe { libc::syscall(libc::SYS_munmap, self.start.as_ptr(), self.length) };
    }
}

/// A machine that has memory and no processor yet.
#[derive(Debug)]
pub struct Machine {
    // Closed before the memory goes, for the machine uses it.
    fd: OwnedFd,
    memory: Mapping,
    kvm: Kvm,
}

/// The processor of a machine.
#[derive(Debug)]
pub struct Processor {
    run: Mapping,
    fd: OwnedFd,
    _machine: Machine,
}

/// Where a processor begins in 64-bit mode.
#[derive(Debug, Clone, Copy)]
pub struct LongMode {
    /// Physical address of the topmost page table.
    pub page_table: u64,
    /// Address of the descriptor table; entry 1 is its code segment, entry 2 the data segment.
    pub gdt: u64,
    /// Address of the interrupt table, 256 entries.
    pub idt: u64,
    /// First instruction.
    pub entry: u64,
    /// End of the stack.
    pub stack: u64,
}

/// Why a processor stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It waits for an interrupt.
    Halted,
    /// KVM cannot go on, with its code of the reason: 1 is an instruction that it has to emulate
    /// and cannot.
    InternalError(u32),
    /// A fault while a fault was delivered.
    Shutdown,
    /// The processor refused its state, with the hardware's reason.
    FailedEntry(u64),
    /// The time was up.
    TimeUp,
    /// An exit of this number.
    Other(u32),
}

fn ioctl(fd: &OwnedFd, request: libc::c_ulong, value: usize) -> Result<libc::c_long> {
    let fd = fd.as_raw_fd();
    // SAFETY: called with requests whose argument is an integer, or the address of a structure of
    // the size that is part of the request and that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_ioctl, fd, request, value) })
}

fn owned(number: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for the caller just now.
    unsafe { OwnedFd::from_raw_fd(number as RawFd) }
}

impl Kvm {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// `ENOENT` or `ENODEV` without KVM, `EACCES` or `EPERM` without the right to use it.
    pub fn open() -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(c"/dev/kvm", flags, Mode::empty()).map(Self)
    }

    /// Version of the interface; 12 is the only one in use.
    ///
    /// # Errors
    /// `ENOTTY` if that is not KVM.
    pub fn api_version(&self) -> Result<i32> {
        ioctl(&self.0, GET_API_VERSION, 0).map(|version| version as i32)
    }

    /// Makes a machine with so many bytes of memory from address 0, a multiple of 4096.
    ///
    /// # Errors
    /// `EBUSY` if another hypervisor has the processor's virtualisation.
    pub fn create(self, bytes: usize) -> Result<Machine> {
        let fd = owned(retry(|| ioctl(&self.0, CREATE_VM, 0))?);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let memory = Mapping::new(bytes, -1, flags)?;
        let address = memory.start.as_ptr() as u64;
        // Slot and flags, guest address, size, address of ours.
        let region = [0u64, 0, bytes as u64, address];
        ioctl(&fd, SET_USER_MEMORY_REGION, region.as_ptr() as usize)?;
        Ok(Machine {
            fd,
            memory,
            kvm: self,
        })
    }
}

impl Machine {
    /// Puts bytes at an address; those beyond the memory are an error.
    ///
    /// # Errors
    /// `EFAULT` beyond the memory.
    pub fn write(&mut self, address: usize, bytes: &[u8]) -> Result<()> {
        let end = address.checked_add(bytes.len()).ok_or(Errno::FAULT)?;
        if end > self.memory.length {
            return Err(Errno::FAULT);
        }
        // SAFETY: the range lies in the mapping, which nobody else uses before there is a
        // processor, and that takes the machine.
        unsafe {
            let to = self.memory.start.as_ptr().add(address);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        Ok(())
    }

    /// Gives the machine its processor, with all that the host's can do.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn processor(self, start: &LongMode) -> Result<Processor> {
        let length = ioctl(&self.kvm.0, GET_VCPU_MMAP_SIZE, 0)? as usize;
        let fd = owned(ioctl(&self.fd, CREATE_VCPU, 0)?);
        let run = Mapping::new(length, fd.as_raw_fd(), libc::MAP_SHARED)?;
        // Eight-byte words for the alignment: a count, then the entries.
        let mut cpuid = vec![0u64; 1 + CPUID_ENTRIES * CPUID_ENTRY / 8];
        cpuid[0] = CPUID_ENTRIES as u64;
        ioctl(
            &self.kvm.0,
            GET_SUPPORTED_CPUID,
            cpuid.as_mut_ptr() as usize,
        )?;
        ioctl(&fd, SET_CPUID2, cpuid.as_ptr() as usize)?;
        set_registers(&fd, start)?;
        Ok(Processor {
            run,
            fd,
            _machine: self,
        })
    }
}

/// Calls again what was interrupted: making a machine takes long enough for that.
fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// `struct kvm_segment`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Segment {
    base: u64,
    limit: u32,
    selector: u16,
    kind: u8,
    present: u8,
    dpl: u8,
    db: u8,
    s: u8,
    l: u8,
    g: u8,
    avl: u8,
    unusable: u8,
    padding: u8,
}

/// `struct kvm_dtable`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Table {
    base: u64,
    limit: u16,
    padding: [u16; 3],
}

/// `struct kvm_sregs`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct SpecialRegisters {
    cs: Segment,
    ds: Segment,
    es: Segment,
    fs: Segment,
    gs: Segment,
    ss: Segment,
    tr: Segment,
    ldt: Segment,
    gdt: Table,
    idt: Table,
    cr0: u64,
    cr2: u64,
    cr3: u64,
    cr4: u64,
    cr8: u64,
    efer: u64,
    apic_base: u64,
    interrupts: [u64; 4],
}

const _: () = assert!(size_of::<SpecialRegisters>() == 0x138);

/// Protection, numeric errors, write protection, paging.
const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// PAE, SSE with its exceptions, xsave.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 18;
/// Long mode, enabled and active.
const EFER: u64 = 1 << 8 | 1 << 10;
/// Reserved bit of the flags that is always set.
const FLAGS: u64 = 2;

fn set_registers(fd: &OwnedFd, start: &LongMode) -> Result<()> {
    let mut special = SpecialRegisters::default();
    ioctl(fd, GET_SREGS, &raw mut special as usize)?;
    let segment = Segment {
        limit: u32::MAX,
        present: 1,
        s: 1,
        g: 1,
        ..Segment::default()
    };
    special.cs = Segment {
        selector: 8,
        kind: 11,
        l: 1,
        ..segment
    };
    let data = Segment {
        selector: 16,
        kind: 3,
        db: 1,
        ..segment
    };
    (special.ds, special.es, special.ss) = (data, data, data);
    special.gdt = Table {
        base: start.gdt,
        limit: 3 * 8 - 1,
        padding: [0; 3],
    };
    special.idt = Table {
        base: start.idt,
        limit: 256 * 16 - 1,
        padding: [0; 3],
    };
    (special.cr0, special.cr3, special.cr4) = (CR0, start.page_table, CR4);
    special.efer = EFER;
    ioctl(fd, SET_SREGS, &raw const special as usize)?;
    // Sixteen general registers (the stack's is the seventh), instruction, flags.
    let mut registers = [0u64; 18];
    (registers[6], registers[16], registers[17]) = (start.stack, start.entry, FLAGS);
    ioctl(fd, SET_REGS, registers.as_ptr() as usize).map(drop)
}

impl Processor {
    /// Runs until it stops, at most so long; `output` gets what it writes to a port, byte by byte.
    /// Input reads as it may.
    ///
    /// To be called from a thread that does nothing else meanwhile: one signal is blocked there.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn run(&mut self, limit: Duration, mut output: impl FnMut(u16, u8)) -> Result<Stop> {
        let alarm = Alarm::start(limit)?;
        // All signals are let in while it runs that were before, and the alarm.
        let mask = alarm.open_mask();
        let mask = [8u32, mask as u32, (mask >> 32) as u32];
        ioctl(&self.fd, SET_SIGNAL_MASK, mask.as_ptr() as usize)?;
        loop {
            match ioctl(&self.fd, RUN, 0) {
                Err(Errno::INTR) if alarm.rang() => return Ok(Stop::TimeUp),
                Err(Errno::INTR | Errno::AGAIN) => continue,
                result => result?,
            };
            let data = u64::from_ne_bytes(self.run.read(EXIT_DATA));
            match u32::from_ne_bytes(self.run.read(EXIT_REASON)) {
                EXIT_IO => self.hand_out(&mut output),
                EXIT_HLT => return Ok(Stop::Halted),
                EXIT_SHUTDOWN => return Ok(Stop::Shutdown),
                EXIT_FAIL_ENTRY => return Ok(Stop::FailedEntry(data)),
                EXIT_INTERNAL_ERROR => return Ok(Stop::InternalError(data as u32)),
                EXIT_INTR if alarm.rang() => return Ok(Stop::TimeUp),
                EXIT_INTR => {}
                other => return Ok(Stop::Other(other)),
            }
        }
    }

    /// Direction, size, port, count, and where the data is.
    fn hand_out(&self, output: &mut impl FnMut(u16, u8)) {
        let [direction, size, port @ ..] = self.run.read::<4>(EXIT_DATA);
        let count = u32::from_ne_bytes(self.run.read(EXIT_DATA + 4));
        let offset = u64::from_ne_bytes(self.run.read(EXIT_DATA + 8)) as usize;
        if direction == IO_DIRECTION_OUT {
            for at in 0..(usize::from(size) * count as usize).min(self.run.length) {
                let [byte] = self.run.read::<1>(offset.saturating_add(at));
                output(u16::from_ne_bytes(port), byte);
            }
        }
    }
}

/// A timer that interrupts the thread's calls from its time on, again and again.
struct Alarm {
    timer: libc::timer_t,
    before: SignalSet,
    at: std::time::Instant,
}

impl Alarm {
    fn start(limit: Duration) -> Result<Self> {
        const PERIOD: libc::timespec = libc::timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let at = std::time::Instant::now() + limit;
        let before = signal::set_blocked(SignalSet::ALL)?;
        // SAFETY: all zeroes is a value of the plain C structure.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = KICK;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let mut timer: libc::timer_t = std::ptr::null_mut();
        let failed = |errno| {
            let _ = signal::set_blocked(before);
            Err(errno)
        };
        // SAFETY: both pointers are valid for the length of the call.
        let made =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        if made != 0 {
            return failed(crate::last_errno());
        }
        let alarm = Self { timer, before, at };
        let times = libc::itimerspec {
            it_interval: PERIOD,
            it_value: libc::timespec {
                tv_sec: limit.as_secs() as libc::time_t,
                tv_nsec: libc::c_long::from(limit.subsec_nanos()).max(1),
            },
        };
        // SAFETY: the timer is ours, the times outlive the call.
        let set = unsafe { libc::timer_settime(timer, 0, &raw const times, std::ptr::null_mut()) };
        if set != 0 {
            return Err(crate::last_errno());
        }
        Ok(alarm)
    }

    /// What is blocked while the processor runs: everything but the alarm.
    fn open_mask(&self) -> u64 {
        !(1 << (KICK - 1))
    }

    fn rang(&self) -> bool {
        std::time::Instant::now() >= self.at
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and deleted once.
        unsafe { libc::timer_delete(self.timer) };
        // What it sent and nobody took must not reach the thread once it is open to it.
        let set: u64 = 1 << (KICK - 1);
        let none = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: a kernel sigset of 8 bytes as the size says, no place for the details, no time.
        let take = || unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                &raw const set,
                std::ptr::null_mut::<libc::siginfo_t>(),
                &raw const none,
                8,
            )
        };
        while take() > 0 {}
        let _ = signal::set_blocked(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarm_rings_and_leaves_the_thread_as_it_was() {
        let before = signal::set_blocked(SignalSet::EMPTY).unwrap();
        let alarm = Alarm::start(Duration::from_millis(1)).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        assert!(alarm.rang());
        // Dropped with a signal pending: it would end the process.
        drop(alarm);
        assert_eq!(signal::set_blocked(before).unwrap(), SignalSet::EMPTY);
    }

    #[test]
    fn write_beyond_the_memory_is_refused() {
        let Ok(kvm) = Kvm::open() else { return };
        let Ok(mut machine) = kvm.create(8192) else {
            return;
        };
        assert_eq!(machine.write(8190, b"abc"), Err(Errno::FAULT));
        assert_eq!(machine.write(usize::MAX, b"abc"), Err(Errno::FAULT));
        machine.write(8189, b"abc").unwrap();
    }
}

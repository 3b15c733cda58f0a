//! Giving memory back that a long-lived, mostly idle process does not need any more.

/// Returns free heap to the kernel, of every thread's arena. The allocator keeps by itself whatever
/// lies below something still in use.
pub fn trim() {
    // SAFETY: malloc_trim touches free memory of the allocator only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Returns free heap to the kernel and unmaps the pages of the program's own code until they are
/// used again (they stay in the page cache: coming back costs a fault without I/O).
///
/// For a process that did much once and then waits for long: hundreds of such monitors run on a
/// host. Costs about 50 µs.
pub fn give_back() {
    trim();
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    let Ok(program) = std::fs::read_link("/proc/self/exe") else {
        return;
    };
    let program = program.to_string_lossy();
    for line in maps.lines() {
        if let Some((start, length)) = code(line, &program) {
            // SAFETY: the range is a private mapping of the program's file without write
            // permission, and one that the loader does not write to either (see `code`): its
            // pages are those of the file, which the kernel maps again on the next access.
            unsafe {
                libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
            }
        }
    }
}

/// Unmaps the pages of the program's code and constants until they are used again. They stay in the
/// page cache and come back by a fault without I/O, each with its neighbours.
///
/// For a short-lived program that goes through phases: it holds what one of them needs, and not
/// the sum. Costs a system call for each segment.
pub fn unmap_code() {
    for (start, length) in unwritten_segments() {
        // SAFETY: a segment of the program's file that is mapped privately and without write
        // permission from the start: its pages are those of the file, which the kernel maps again
        // on the next access, be it of this very code.
        unsafe {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Whole pages of the segments that nobody writes to, not even the loader.
#[cfg(target_pointer_width = "64")]
fn unwritten_segments() -> impl Iterator<Item = (usize, usize)> {
    const PAGE: usize = 4096;
    // SAFETY: they read the vector that the kernel gave the process.
    let (at, count) = unsafe {
        (
            libc::getauxval(libc::AT_PHDR) as usize,
            libc::getauxval(libc::AT_PHNUM) as usize,
        )
    };
    let headers: &[libc::Elf64_Phdr] = if at == 0 {
        &[]
    } else {
        // SAFETY: the kernel says that so many headers are mapped there, for as long as the
        // process runs, and nobody writes to them.
        unsafe { std::slice::from_raw_parts(at as *const libc::Elf64_Phdr, count) }
    };
    // Where the program was moved to, if it can be.
    let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR);
    let moved = own.map_or(0, |header| at.wrapping_sub(header.p_vaddr as usize));
    headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
        .map(move |header| {
            let start = moved.wrapping_add(header.p_vaddr as usize);
            let end = start.wrapping_add(header.p_filesz as usize) & !(PAGE - 1);
            let start = start & !(PAGE - 1);
            (start, end.saturating_sub(start))
        })
}

#[cfg(not(target_pointer_width = "64"))]
fn unwritten_segments() -> impl Iterator<Item = (usize, usize)> {
    std::iter::empty()
}

/// Start and length of a mapping of the program's code, or of the constants at the begin of its
/// file. Those after the code are left alone: the loader writes to some (RELRO) before it makes
/// them read-only.
fn code(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, mode, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let unwritten = mode == "r-xp" || (mode == "r--p" && offset.bytes().all(|b| b == b'0'));
    if !unwritten || fields.nth(2)? != program {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (
        usize::from_str_radix(start, 16).ok()?,
        usize::from_str_radix(end, 16).ok()?,
    );
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_mappings_are_told_from_data() {
        let line = |text: &str| format!("{text} fe:00 7014178   /bin/x");
        for (text, wanted) in [
            ("00200000-0027f000 r--p 00000000", Some((0x200000, 0x7f000))),
            (
                "0027f000-0040f000 r-xp 0007e000",
                Some((0x27f000, 0x190000)),
            ),
            ("0040f000-00416000 r--p 0020d000", None),
            ("00416000-0041a000 rw-p 00213000", None),
        ] {
            assert_eq!(code(&line(text), "/bin/x"), wanted);
            assert_eq!(code(&line(text), "/bin/y"), None);
        }
        assert_eq!(
            code(
                "7fb81dd0e000-7fb81dd10000 r-xp 00000000 00:00 0   [vdso]",
                "/bin/x"
            ),
            None
        );
    }

    #[test]
    fn unmap_code_program_runs_on_and_holds_less() {
        let held = || {
            let text = std::fs::read_to_string("/proc/self/status").expect("status");
            let line = text.lines().find_map(|line| line.strip_prefix("RssFile:"));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|n| n.parse::<u64>().ok()).expect("RssFile")
        };
        assert!(unwritten_segments().count() > 0);
        let before = held();
        unmap_code();
        let after = held();
        assert!(after < before, "{before} KiB, then {after} KiB");
    }

    #[test]
    fn give_back_program_runs_on() {
        let before = vec![7u8; 100_000];
        give_back();
        assert!(before.iter().all(|byte| *byte == 7));
        assert_eq!(format!("{:?}", Some(1.5)), "Some(1.5)");
    }
}

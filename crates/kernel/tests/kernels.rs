//! Kernels installed from what may be anything.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hull_kernel::{Install, Kernel, KernelError, Kernels};
use hull_testkit::kernel::{elf, tiny};

fn install(kernels: &Kernels, mut bytes: &[u8]) -> Result<Kernel, KernelError> {
    kernels.install(&mut bytes, &Install::default())
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Names in the folder but the lock.
fn left(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    names.sort();
    names
}

#[test]
fn install_plain_compressed_and_packed_give_the_same_kernel() {
    let tmp = tempfile::tempdir().unwrap();
    let file = tiny("6.1.0-hull");
    let compressed = zstd::encode_all(&file[..], 3).unwrap();
    let manifest = br#"{"version":"x","source":"linux-source-6.1 6.1.0-1","new":[1]}"#;
    let packed = archive(&[
        ("manifest.json", manifest),
        ("./config", b"CONFIG_PVH=y\n"),
        ("vmlinux.zst", &compressed),
    ]);
    let mut digests = Vec::new();
    for (name, bytes) in [("a", &file), ("b", &compressed), ("c", &packed)] {
        let kernels = Kernels::at(&tmp.path().join(name));
        assert!(kernels.list().unwrap().is_empty());
        let kernel = install(&kernels, bytes).unwrap();
        assert_eq!(kernel.name, "6.1.0-hull");
        assert_eq!(kernel.manifest.version, "6.1.0-hull");
        assert_eq!(kernel.manifest.size, file.len() as u64);
        assert!(kernel.default);
        assert_eq!(fs::read(&kernel.path).unwrap(), file);
        let mode = fs::metadata(&kernel.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        assert_eq!(kernels.list().unwrap(), std::slice::from_ref(&kernel));
        assert_eq!(kernels.default_kernel().unwrap(), kernel);
        digests.push(kernel.manifest.sha256);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
    let known = Kernels::at(&tmp.path().join("c")).default_kernel().unwrap();
    assert_eq!(known.manifest.source, "linux-source-6.1 6.1.0-1");
    assert_eq!(known.manifest.config_sha256.len(), 64);
}

#[test]
fn install_archive_with_holes_gives_the_whole_file() {
    let tmp = tempfile::tempdir().unwrap();
    let mut whole = tiny("6.1.0");
    whole.resize(1 << 20, 0);
    whole.extend([7; 4096]);
    let path = tmp.path().join("vmlinux");
    fs::write(&path, &whole[..4096]).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], 1 << 20).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_path_with_name(&path, "vmlinux").unwrap();
    let packed = archive.into_inner().unwrap();
    assert!(packed.len() < whole.len(), "the file system has no holes");
    let kernel = install(&Kernels::at(&tmp.path().join("kernels")), &packed).unwrap();
    assert_eq!(fs::read(kernel.path).unwrap(), whole);
}

#[test]
fn install_what_is_no_kernel_says_why_and_leaves_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let kernels = Kernels::at(tmp.path());
    let good = tiny("6.1.0");
    let whole = zstd::encode_all(&good[..], 3).unwrap();
    let mut foreign = good.clone();
    foreign[18] = 183;
    let mut counts = good.clone();
    counts[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
    let mut offset = good.clone();
    offset[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("empty", Vec::new(), "neither vmlinux"),
        ("text", b"#!/bin/sh\n".to_vec(), "archive"),
        ("noise", vec![0xa5; 5000], "archive"),
        ("short", good[..40].to_vec(), "no ELF file"),
        ("cut", good[..good.len() - 1].to_vec(), "cut off"),
        ("cut table", good[..100].to_vec(), "cut off"),
        (
            "cut zstd",
            whole[..whole.len() - 4].to_vec(),
            "cannot be read",
        ),
        ("no note", elf("6.1.0", None), "no PVH note"),
        ("note astray", elf("6.1.0", Some(1)), "leads out"),
        ("foreign", foreign, "x86-64"),
        ("counts", counts, "damaged"),
        ("offset", offset, "cut off"),
        (
            "text packed",
            archive(&[("vmlinux", b"MZ bzImage".as_slice())]),
            "no ELF file",
        ),
    ];
    for (case, bytes, why) in cases {
        let error = install(&kernels, &bytes).unwrap_err().to_string();
        assert!(error.contains(why), "{case}: {error}");
        assert!(left(tmp.path()).is_empty(), "{case}");
    }
    // Every length of a good one ends in an error, never in a panic or half a kernel.
    for length in 0..good.len() {
        install(&kernels, &good[..length]).unwrap_err();
    }
    assert!(left(tmp.path()).is_empty());
}

#[test]
fn install_with_another_digest_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let kernels = Kernels::at(tmp.path());
    let file = tiny("6.1.0");
    let zeros = "0".repeat(64);
    let wish = Install {
        sha256: Some(zeros.clone()),
        ..Install::default()
    };
    let error = kernels.install(&mut &file[..], &wish).unwrap_err();
    assert!(error.to_string().contains(&zeros), "{error}");
    let manifest = format!(r#"{{"sha256":"{zeros}"}}"#);
    let packed = archive(&[("manifest.json", manifest.as_bytes()), ("vmlinux", &file)]);
    let error = install(&kernels, &packed).unwrap_err().to_string();
    assert!(error.contains("manifest"), "{error}");
    let packed = archive(&[("vmlinux", &file), ("manifest.json", b"{")]);
    assert!(matches!(
        install(&kernels, &packed),
        Err(KernelError::Archive(_))
    ));
    assert!(left(tmp.path()).is_empty());

    let found = install(&kernels, &file).unwrap().manifest.sha256;
    let wish = Install {
        name: Some("again".into()),
        sha256: Some(format!("sha256:{}", found.to_uppercase())),
        force: false,
    };
    kernels.install(&mut &file[..], &wish).unwrap();
}

#[test]
fn install_another_of_the_same_name_wants_force() {
    let tmp = tempfile::tempdir().unwrap();
    let kernels = Kernels::at(tmp.path());
    let first = tiny("6.1.0");
    let mut second = first.clone();
    second.push(0);
    let kernel = install(&kernels, &first).unwrap();
    assert_eq!(install(&kernels, &first).unwrap(), kernel);
    assert!(matches!(
        install(&kernels, &second),
        Err(KernelError::Exists(_))
    ));
    assert_eq!(fs::read(&kernel.path).unwrap(), first);
    let force = Install {
        force: true,
        ..Install::default()
    };
    let kernel = kernels.install(&mut &second[..], &force).unwrap();
    assert!(kernel.default);
    assert_eq!(fs::read(&kernel.path).unwrap(), second);
    assert_eq!(left(tmp.path()), [".default", "6.1.0"]);
}

#[test]
fn use_and_remove_keep_a_default_that_exists() {
    let tmp = tempfile::tempdir().unwrap();
    let kernels = Kernels::at(tmp.path());
    assert!(kernels.default_kernel().is_err());
    for version in ["6.1.0", "6.12.0"] {
        install(&kernels, &tiny(version)).unwrap();
    }
    assert_eq!(kernels.default_kernel().unwrap().name, "6.1.0");
    assert!(matches!(
        kernels.remove("6.1.0", false),
        Err(KernelError::IsDefault(_))
    ));
    assert!(kernels.use_by_default("6.12.0").unwrap().default);
    kernels.remove("6.1.0", false).unwrap();
    assert_eq!(left(tmp.path()), [".default", "6.12.0"]);
    kernels.remove("6.12.0", true).unwrap();
    assert!(left(tmp.path()).is_empty());
    for name in ["6.1.0", "..", ".default", "a/b", ""] {
        assert!(kernels.remove(name, true).is_err(), "{name}");
        assert!(kernels.use_by_default(name).is_err(), "{name}");
    }
}

/// Ends in the middle, as a client that goes away does.
struct Cut<'a>(&'a [u8]);

impl Read for Cut<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            count => Ok(count),
        }
    }
}

#[test]
fn install_that_breaks_off_or_was_killed_leaves_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let kernels = Kernels::at(tmp.path());
    let file = tiny("6.1.0");
    let error = kernels
        .install(&mut Cut(&file), &Install::default())
        .unwrap_err();
    assert!(matches!(error, KernelError::Read(_)), "{error}");
    assert!(left(tmp.path()).is_empty());
    for name in [".new-abc", ".old-6.1.0"] {
        fs::create_dir(tmp.path().join(name)).unwrap();
        fs::write(tmp.path().join(name).join("vmlinux"), "half").unwrap();
    }
    assert!(kernels.list().unwrap().is_empty());
    install(&kernels, &file).unwrap();
    assert_eq!(left(tmp.path()), [".default", "6.1.0"]);
}

#[test]
fn install_on_a_full_disk_leaves_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", tmp.path(), "tmpfs", flags, c"size=64k").unwrap();
    let kernels = Kernels::at(&tmp.path().join("kernels"));
    let mut file = tiny("6.1.0");
    file.resize(1 << 20, 7);
    let outcome = install(&kernels, &file);
    let names = left(&tmp.path().join("kernels"));
    rustix::mount::unmount(tmp.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    let error = outcome.unwrap_err();
    let KernelError::Io { source, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn install_while_another_is_under_way_succeeds() {
    struct Second<'a> {
        kernels: &'a Kernels,
        file: &'a [u8],
    }
    impl Read for Second<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            install(self.kernels, &tiny("6.2.0")).unwrap();
            self.kernels.use_by_default("6.2.0").unwrap();
            self.file.read(buffer)
        }
    }
    let tmp = tempfile::tempdir().unwrap();
    let kernels = Kernels::at(tmp.path());
    let mut source = Second {
        kernels: &kernels,
        file: &tiny("6.1.0"),
    };
    let kernel = kernels.install(&mut source, &Install::default()).unwrap();
    assert!(!kernel.default);
    assert_eq!(left(tmp.path()), [".default", "6.1.0", "6.2.0"]);
}

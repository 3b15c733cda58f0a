//! Limits on files of paper.

use std::collections::BTreeMap;

use hull_model::limits::DeviceLimit;

use super::*;

/// A group whose files are of paper: what is written to them last is found in them.
struct Paper(tempfile::TempDir);

impl Paper {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("file");
        }
        Self(dir)
    }

    fn apply(&self, limits: &Resources, extra: &CgroupExtra) -> CgroupResult<Vec<String>> {
        let dir = Dir::open(self.0.path().to_owned())
            .expect("open")
            .expect("dir");
        apply(&dir, limits, extra)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).expect("file")
    }
}

fn exact() -> CgroupExtra {
    CgroupExtra {
        exact: true,
        ..CgroupExtra::default()
    }
}

#[test]
fn apply_everything_is_converted() {
    let names = [
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "memory.high",
        "cpu.weight",
        "cpu.max",
        "cpu.max.burst",
        "cpu.idle",
        "cpuset.cpus",
        "cpuset.mems",
        "pids.max",
        "io.weight",
        "io.max",
        "hugetlb.2MB.max",
        "hugetlb.2MB.rsvd.max",
        "rdma.max",
        "misc.max",
    ];
    let group = Paper::new(&names.map(|name| (name, "")));
    let limits = Resources {
        memory: Some(100),
        memory_swap: Some(150),
        memory_reservation: Some(50),
        cpu_shares: Some(262_144),
        cpu_quota: Some(5000),
        cpu_period: Some(10_000),
        cpuset_cpus: Some("0-1".to_owned()),
        cpuset_mems: Some("0".to_owned()),
        pids_limit: Some(-1),
        blkio_weight: Some(1000),
        ..Resources::default()
    };
    let device = |value| {
        vec![DeviceLimit {
            major: 8,
            minor: 16,
            value,
        }]
    };
    let extra = CgroupExtra {
        cpu_burst: Some(77),
        cpu_idle: Some(0),
        blkio_write_iops: device(0),
        hugetlb: BTreeMap::from([("2MB".to_owned(), 4096)]),
        rdma: BTreeMap::from([("mlx5_1".to_owned(), (Some(2), None))]),
        unified: BTreeMap::from([
            ("memory.high".to_owned(), "90".to_owned()),
            ("misc.max".to_owned(), "a 1\nb 2".to_owned()),
        ]),
        ..exact()
    };
    group.apply(&limits, &extra).expect("apply");
    for (file, text) in [
        ("memory.max", "100"),
        ("memory.swap.max", "50"),
        ("memory.low", "50"),
        ("memory.high", "90"),
        ("cpu.weight", "10000"),
        ("cpu.max", "5000 10000"),
        ("cpu.max.burst", "77"),
        ("cpu.idle", "0"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "max"),
        ("io.weight", "10000"),
        ("io.max", "8:16 wiops=max"),
        ("hugetlb.2MB.max", "4096"),
        ("hugetlb.2MB.rsvd.max", "4096"),
        ("rdma.max", "mlx5_1 hca_handle=2 hca_object=max"),
        ("misc.max", "b 2"),
    ] {
        assert_eq!(group.text(file), text, "{file}");
    }
}

#[test]
fn apply_exact_says_nothing_of_swap_that_is_not_asked_for() {
    let files = [("memory.max", ""), ("memory.swap.max", "")];
    let limits = Resources {
        memory: Some(100),
        ..Resources::default()
    };
    let group = Paper::new(&files);
    group.apply(&limits, &exact()).expect("apply");
    assert_eq!(group.text("memory.swap.max"), "");
    group
        .apply(&limits, &CgroupExtra::default())
        .expect("apply");
    assert_eq!(group.text("memory.swap.max"), "100");
}

#[test]
fn apply_exact_period_alone_keeps_the_quota() {
    let group = Paper::new(&[("cpu.max", "2500 100000\n")]);
    let limits = Resources {
        cpu_period: Some(50_000),
        ..Resources::default()
    };
    group.apply(&limits, &exact()).expect("apply");
    assert!(group.text("cpu.max").starts_with("2500 50000"));
}

#[test]
fn apply_weights_of_devices_by_bfq_or_converted() {
    let extra = CgroupExtra {
        blkio_weight_device: vec![DeviceLimit {
            major: 8,
            minor: 0,
            value: 1000,
        }],
        ..exact()
    };
    for (file, line) in [("io.bfq.weight", "8:0 1000"), ("io.weight", "8:0 10000")] {
        let group = Paper::new(&[(file, "")]);
        group.apply(&Resources::default(), &extra).expect("apply");
        assert_eq!(group.text(file), line);
    }
}

#[test]
fn apply_exact_swap_without_accounting_is_refused_unless_it_says_nothing() {
    let group = Paper::new(&[("memory.max", "")]);
    for (both, works) in [(100, true), (-1, true), (150, false), (50, false)] {
        let limits = Resources {
            memory: Some(100),
            memory_swap: Some(both),
            ..Resources::default()
        };
        assert_eq!(group.apply(&limits, &exact()).is_ok(), works, "{both}");
    }
}

#[test]
fn apply_limits_of_v1_alone_are_refused_by_name() {
    let group = Paper::new(&[]);
    for (extra, name) in [
        (
            CgroupExtra {
                cpu_rt_runtime: Some(1),
                ..exact()
            },
            "cpu.realtimeRuntime",
        ),
        (
            CgroupExtra {
                net_class_id: Some(1),
                ..exact()
            },
            "network.classID",
        ),
        (
            CgroupExtra {
                memory_kernel_tcp: Some(1),
                ..exact()
            },
            "memory.kernelTCP",
        ),
        (
            CgroupExtra {
                blkio_leaf_weight: Some(10),
                ..exact()
            },
            "blockIO.leafWeight",
        ),
    ] {
        let error = group.apply(&Resources::default(), &extra).expect_err(name);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn apply_unified_key_of_a_missing_controller_names_it() {
    let group = Paper::new(&[("cgroup.controllers", "cpu io\n")]);
    let extra = CgroupExtra {
        unified: BTreeMap::from([("memory.high".to_owned(), "1".to_owned())]),
        ..exact()
    };
    let error = group
        .apply(&Resources::default(), &extra)
        .expect_err("refused");
    assert!(
        error
            .to_string()
            .contains("controller \"memory\" is not available"),
        "{error}"
    );
}

#[test]
fn apply_check_before_update_refuses_what_does_not_fit() {
    let group = Paper::new(&[("memory.max", ""), ("memory.current", "4096\n")]);
    let extra = CgroupExtra {
        memory_check_before_update: true,
        ..exact()
    };
    for (memory, works) in [(4096, false), (4097, true), (-1, true)] {
        let limits = Resources {
            memory: Some(memory),
            ..Resources::default()
        };
        assert_eq!(group.apply(&limits, &extra).is_ok(), works, "{memory}");
    }
}

#[test]
fn weight_of_shares_bounds_and_default() {
    assert_eq!(weight_of_shares(2), 1);
    assert_eq!(weight_of_shares(1024), 39);
    assert_eq!(weight_of_shares(262_144), 10_000);
    assert_eq!(weight_of_shares(u64::MAX), 10_000);
}

#[test]
fn weight_of_blkio_bounds() {
    assert_eq!((weight_of_blkio(10), weight_of_blkio(1000)), (1, 10_000));
    assert_eq!(weight_of_blkio(0), 1);
}

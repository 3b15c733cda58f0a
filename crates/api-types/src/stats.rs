//! Containers: the reply of `GET /containers/{id}/stats`, for cgroup v1 and v2.
use std::collections::BTreeMap;

wire! {
    /// What a container has used at one moment, and at the moment before.
    pub snake struct Stats {
        name!: String,
        id!: String,
        read: String,
        preread: String,
        pids_stats: PidsStats,
        blkio_stats: BlkioStats,
        num_procs: u32,
        storage_stats: StorageStats,
        cpu_stats: CpuStats,
        precpu_stats: CpuStats,
        memory_stats: MemoryStats,
        networks?: BTreeMap<String, NetworkStats>,
    }
}

wire! {
    /// Processes.
    #[derive(Eq)]
    pub snake struct PidsStats {
        current!: u64,
        limit!: u64,
    }
}

wire! {
    /// Block I/O.
    #[derive(Eq)]
    pub snake struct BlkioStats {
        io_service_bytes_recursive: Option<Vec<BlkioEntry>>,
        io_serviced_recursive: Option<Vec<BlkioEntry>>,
        io_queue_recursive: Option<Vec<BlkioEntry>>,
        io_service_time_recursive: Option<Vec<BlkioEntry>>,
        io_wait_time_recursive: Option<Vec<BlkioEntry>>,
        io_merged_recursive: Option<Vec<BlkioEntry>>,
        io_time_recursive: Option<Vec<BlkioEntry>>,
        sectors_recursive: Option<Vec<BlkioEntry>>,
    }
}

wire! {
    /// One counter of one device.
    #[derive(Eq)]
    pub snake struct BlkioEntry {
        major: u64,
        minor: u64,
        op: String,
        value: u64,
    }
}

wire! {
    /// Unused on Linux.
    #[derive(Eq)]
    pub snake struct StorageStats {
        read_count_normalized!: u64,
        read_size_bytes!: u64,
        write_count_normalized!: u64,
        write_size_bytes!: u64,
    }
}

wire! {
    /// CPU time, nanoseconds.
    #[derive(Eq)]
    pub snake struct CpuStats {
        cpu_usage: CpuUsage,
        system_cpu_usage!: u64,
        online_cpus!: u32,
        throttling_data: ThrottlingData,
    }
}

wire! {
    /// CPU time of the container, nanoseconds.
    #[derive(Eq)]
    pub snake struct CpuUsage {
        total_usage: u64,
        /// cgroup v1 alone.
        percpu_usage!: Vec<u64>,
        usage_in_kernelmode: u64,
        usage_in_usermode: u64,
    }
}

wire! {
    /// Time taken away by the CPU quota.
    #[derive(Eq)]
    pub snake struct ThrottlingData {
        periods: u64,
        throttled_periods: u64,
        throttled_time: u64,
    }
}

wire! {
    /// Memory, bytes.
    #[derive(Eq)]
    pub snake struct MemoryStats {
        usage!: u64,
        /// cgroup v1 alone.
        max_usage!: u64,
        /// The fields of `memory.stat`.
        stats!: BTreeMap<String, u64>,
        failcnt!: u64,
        limit!: u64,
    }
}

wire! {
    /// Counters of one interface.
    #[derive(Eq)]
    pub snake struct NetworkStats {
        rx_bytes: u64,
        rx_packets: u64,
        rx_errors: u64,
        rx_dropped: u64,
        tx_bytes: u64,
        tx_packets: u64,
        tx_errors: u64,
        tx_dropped: u64,
    }
}

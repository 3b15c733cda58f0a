//! Named volumes.
use std::collections::BTreeMap;

wire! {
    /// A volume.
    #[derive(Eq)]
    pub struct Volume {
        created_at!: String,
        driver: String,
        labels: Option<BTreeMap<String, String>>,
        mountpoint: String,
        name: String,
        options: Option<BTreeMap<String, String>>,
        scope: String,
        usage_data?: VolumeUsage,
    }
}

wire! {
    /// Who uses a volume and how large it is; -1 when not counted.
    #[derive(Eq)]
    pub struct VolumeUsage {
        ref_count: i64,
        size: i64,
    }
}

wire! {
    /// Reply of `GET /volumes`.
    #[derive(Eq)]
    pub struct VolumeList {
        volumes: Vec<Volume>,
        warnings: Option<Vec<String>>,
    }
}

wire! {
    /// Body of `POST /volumes/create`.
    #[derive(Eq)]
    pub struct VolumeCreateRequest {
        /// Empty asks for an anonymous volume.
        name: String,
        driver: String,
        driver_opts: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    }
}

wire! {
    /// Reply of `POST /volumes/prune`.
    #[derive(Eq)]
    pub struct VolumesPruneResponse {
        volumes_deleted: Vec<String>,
        space_reclaimed: u64,
    }
}

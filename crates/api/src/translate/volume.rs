//! Volumes as the API shows them.
use hull_api_types::volume::{Volume, VolumeUsage};

/// Writes a volume.
pub(crate) fn of(volume: &hull_volume::Volume) -> Volume {
    Volume {
        created_at: volume.created.clone(),
        driver: "local".into(),
        labels: (!volume.labels.is_empty()).then(|| volume.labels.clone()),
        mountpoint: volume.mountpoint.display().to_string(),
        name: volume.name.clone(),
        options: (!volume.options.is_empty()).then(|| volume.options.clone()),
        scope: "local".into(),
        usage_data: None,
    }
}

/// Writes a volume with its bytes and users.
pub(crate) fn with_usage(volume: &hull_volume::Volume, size: i64, users: i64) -> Volume {
    Volume {
        usage_data: Some(VolumeUsage {
            ref_count: users,
            size,
        }),
        ..of(volume)
    }
}

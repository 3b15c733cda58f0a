//! Images.
use std::collections::BTreeMap;

use crate::container::ContainerConfig;
use crate::inspect::GraphDriver;

wire! {
    /// One line of `GET /images/json`.
    #[derive(Eq)]
    pub struct ImageSummary {
        /// -1 when not counted.
        containers: i64,
        /// Unix seconds.
        created: i64,
        id: String,
        labels: Option<BTreeMap<String, String>>,
        parent_id: String,
        repo_digests: Vec<String>,
        repo_tags: Vec<String>,
        /// -1 when not counted.
        shared_size: i64,
        size: i64,
    }
}

wire! {
    /// Reply of `GET /images/{name}/json`.
    pub struct ImageInspect {
        id: String,
        repo_tags: Vec<String>,
        repo_digests: Vec<String>,
        parent: String,
        comment: String,
        created!: String,
        docker_version: String,
        author: String,
        config?: ContainerConfig,
        architecture: String,
        variant!: String,
        os: String,
        os_version!: String,
        size: i64,
        graph_driver: GraphDriver,
        #[serde(rename = "RootFS")]
        root_fs: RootFs,
        metadata: ImageMetadata,
    }
}

wire! {
    /// The layers of an image.
    #[derive(Eq)]
    pub struct RootFs {
        #[serde(rename = "Type")]
        kind: String,
        /// Diff ids, bottom first.
        layers!: Vec<String>,
    }
}

wire! {
    /// What the engine, not the image, knows of an image.
    #[derive(Eq)]
    pub struct ImageMetadata {
        last_tag_time: String,
    }
}

wire! {
    /// One line of `GET /images/{name}/history`.
    #[derive(Eq)]
    pub struct HistoryItem {
        comment: String,
        created: i64,
        created_by: String,
        id: String,
        size: i64,
        tags: Option<Vec<String>>,
    }
}

wire! {
    /// One thing `DELETE /images/{name}` did: one of the two is set.
    #[derive(Eq)]
    pub struct ImageDeleteItem {
        untagged!: String,
        deleted!: String,
    }
}

wire! {
    /// Reply of `POST /images/prune`.
    #[derive(Eq)]
    pub struct ImagesPruneResponse {
        images_deleted: Vec<ImageDeleteItem>,
        space_reclaimed: u64,
    }
}

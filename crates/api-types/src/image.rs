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
        /// The manifests behind it, where asked for.
        manifests!: Vec<ManifestSummary>,
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
        /// The manifest or index that it came with.
        descriptor?: Descriptor,
        /// The entries of that index.
        manifests!: Vec<ManifestSummary>,
        /// Documents about it: signatures, bills of materials.
        referrers!: Vec<serde_json::Value>,
    }
}

wire! {
    /// What points to a document or blob, as the image specification has it.
    #[derive(Eq)]
    pub snake struct Descriptor {
        #[serde(rename = "mediaType")]
        media_type: String,
        digest: String,
        size: i64,
        platform?: Platform,
        #[serde(rename = "artifactType")]
        artifact_type!: String,
        annotations!: BTreeMap<String, String>,
    }
}

wire! {
    /// A platform.
    #[derive(Eq)]
    pub snake struct Platform {
        architecture: String,
        os: String,
        #[serde(rename = "os.version")]
        os_version!: String,
        #[serde(rename = "os.features")]
        os_features!: Vec<String>,
        variant!: String,
    }
}

wire! {
    /// One manifest of an image for several platforms.
    #[derive(Eq)]
    pub struct ManifestSummary {
        #[serde(rename = "ID")]
        id: String,
        descriptor: Descriptor,
        /// Whether all of it is here.
        available: bool,
        /// `image`, `attestation` or `unknown`.
        kind: String,
        size: ManifestSize,
        image_data?: ManifestImage,
    }
}

wire! {
    /// Space that one manifest takes.
    #[derive(Eq)]
    pub struct ManifestSize {
        total: i64,
        /// As it is sent.
        content: i64,
    }
}

wire! {
    /// The image of one manifest.
    #[derive(Eq)]
    pub struct ManifestImage {
        platform: Platform,
        /// Ids of the containers made from it.
        containers: Vec<String>,
        size: ManifestImageSize,
        /// Its layers from the bottom up; Hull's own.
        layers!: Vec<LayerSummary>,
    }
}

wire! {
    /// Space that the unpacked layers of one manifest take.
    #[derive(Eq)]
    pub struct ManifestImageSize {
        unpacked: i64,
    }
}

wire! {
    /// One layer.
    #[derive(Eq)]
    pub struct LayerSummary {
        #[serde(rename = "DiffID")]
        diff_id: String,
        size: i64,
    }
}

wire! {
    /// Reply of `GET /distribution/{name}/json`.
    pub struct DistributionInspect {
        descriptor: Descriptor,
        platforms: Vec<Platform>,
    }
}

wire! {
    /// Reply of `GET /hull/manifests/{name}`: a registry's document with its bytes.
    pub struct ManifestDocument {
        descriptor: Descriptor,
        /// Base64.
        raw: String,
    }
}

wire! {
    /// Body of `POST /hull/manifests`: a list, and where its entries are.
    pub struct ListPush {
        target: String,
        media_type: String,
        /// Base64.
        raw: String,
        /// Names with digests.
        entries: Vec<String>,
        insecure: bool,
    }
}

wire! {
    /// Reply of `POST /hull/manifests`.
    pub struct ListPushed {
        digest: String,
    }
}

wire! {
    /// Body of `POST /hull/layers/missing`, and with those that are not here its reply.
    pub struct Layers {
        /// Diff ids.
        layers: Vec<String>,
    }
}

wire! {
    /// One line of `GET /images/search`.
    #[derive(Eq)]
    pub snake struct SearchResult {
        star_count: i64,
        is_official: bool,
        name: String,
        is_automated: bool,
        description: String,
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

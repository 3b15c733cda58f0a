//! Paths put aside, so that a translation that opens what its input names touches nothing.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use serde_json::Value;

/// Where the bundles of the fuzzers lie: a folder that is there and never changed.
pub(crate) const BUNDLE: &str = "/";

/// Changes every text that names a pipe, socket or device of this machine: opening one may wait
/// for ever, or do something.
pub(crate) fn make(value: &mut Value) {
    match value {
        Value::String(text) if acts_when_opened(text) => *text = "/dev/null".to_owned(),
        Value::Array(list) => list.iter_mut().for_each(make),
        Value::Object(map) => map.values_mut().for_each(make),
        _ => {}
    }
}

fn acts_when_opened(text: &str) -> bool {
    if text.contains('\0') || text.is_empty() {
        return false;
    }
    fs::metadata(Path::new(BUNDLE).join(text)).is_ok_and(|meta| {
        let kind = meta.file_type();
        kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device()
    })
}

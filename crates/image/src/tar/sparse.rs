//! Sparse files: the PAX forms 0.0, 0.1 and 1.0 of GNU tar. The old GNU form is in `header`.

use super::entry::SparseMap;
use super::pax::decimal;
use crate::limits::MAX_SPARSE_FRAGMENTS;

/// The `GNU.sparse.*` records of an extended header.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Set by 0.0 and 0.1.
    pub(super) fragments: Vec<(u64, u64)>,
    pending_offset: Option<u64>,
    major: Option<u64>,
    seen: bool,
}

impl PaxSparse {
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const WRONG: &str = "PAX sparse record";
        self.seen = true;
        match key {
            b"name" => self.name = (!value.is_empty()).then(|| value.to_vec()),
            b"realsize" | b"size" => self.real_size = Some(decimal(value).ok_or(WRONG)?),
            b"major" => self.major = Some(decimal(value).ok_or(WRONG)?),
            b"offset" => self.pending_offset = Some(decimal(value).ok_or(WRONG)?),
            b"numbytes" => {
                let at = self.pending_offset.take().ok_or(WRONG)?;
                self.fragments.push((at, decimal(value).ok_or(WRONG)?));
            }
            b"map" => {
                let numbers: Option<Vec<u64>> = value.split(|&b| b == b',').map(decimal).collect();
                let numbers = numbers.ok_or(WRONG)?;
                self.fragments = numbers
                    .chunks_exact(2)
                    .filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)))
                    .collect();
            }
            _ => {}
        }
        if self.fragments.len() > MAX_SPARSE_FRAGMENTS {
            return Err("too many sparse fragments");
        }
        Ok(())
    }

    /// True if the map stands at the head of the payload.
    pub(super) fn map_in_payload(&self) -> bool {
        self.major == Some(1)
    }

    /// True if the entry is sparse at all.
    pub(super) fn is_sparse(&self) -> bool {
        self.seen && (self.map_in_payload() || !self.fragments.is_empty())
    }
}

/// Reads decimal lines of the map of form 1.0 as the blocks of the payload come in.
#[derive(Debug, Default)]
pub(super) struct MapParser {
    number: Vec<u8>,
    count: Option<u64>,
    values: Vec<u64>,
}

impl MapParser {
    /// Takes one block; true when the map is complete.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<bool, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                if self.number.len() >= 20 {
                    return Err("sparse map number");
                }
                self.number.push(byte);
                continue;
            }
            let value = decimal(&self.number).ok_or("sparse map number")?;
            self.number.clear();
            match self.count {
                None if value > MAX_SPARSE_FRAGMENTS as u64 => {
                    return Err("too many sparse fragments");
                }
                None => self.count = Some(value),
                Some(_) => self.values.push(value),
            }
            if self
                .count
                .is_some_and(|n| self.values.len() as u64 >= 2 * n)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn fragments(self) -> Vec<(u64, u64)> {
        self.values
            .chunks_exact(2)
            .filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)))
            .collect()
    }
}

/// Checks that fragments ascend, stay inside the file and fill the payload.
pub(super) fn checked(
    fragments: Vec<(u64, u64)>,
    real_size: u64,
    payload: u64,
) -> Result<SparseMap, &'static str> {
    let mut end = 0u64;
    let mut total = 0u64;
    for &(at, len) in &fragments {
        if at < end {
            return Err("sparse fragments overlap");
        }
        end = at.checked_add(len).ok_or("sparse fragment size")?;
        total = total.checked_add(len).ok_or("sparse fragment size")?;
    }
    if end > real_size || i64::try_from(real_size).is_err() {
        return Err("sparse fragment beyond the end of the file");
    }
    if total != payload {
        return Err("sparse map does not fit its payload");
    }
    Ok(SparseMap {
        fragments,
        real_size,
    })
}

//! Which record of the split file holds the content of an inode. Asked only when a later entry
//! replaces an earlier one, which is rare; kept small, since every file has one.

use std::collections::HashSet;

/// Inodes that are looked through one by one before they are sorted in.
const TAIL: usize = 4_096;

/// Inodes by the number of their record. An inode with a record is never freed while the layer is
/// unpacked, so none comes twice.
#[derive(Debug, Default)]
pub(super) struct Records {
    inodes: Vec<u64>,
    /// The first records, sorted by their inodes.
    sorted: Vec<u32>,
    taken: HashSet<u32>,
}

impl Records {
    /// Notes the inode of a record. Records come in their order.
    pub(super) fn note(&mut self, record: u64, inode: u64) {
        debug_assert_eq!(record, self.inodes.len() as u64);
        self.inodes.push(inode);
    }

    /// The record of an inode, given out once.
    pub(super) fn take(&mut self, inode: u64) -> Option<u64> {
        let tail = self.inodes.get(self.sorted.len()..).unwrap_or_default();
        if tail.len() > TAIL {
            let from = u32::try_from(self.sorted.len()).ok()?;
            let to = u32::try_from(self.inodes.len()).ok()?;
            self.sorted.extend(from..to);
            let inodes = &self.inodes;
            // Stable: it takes the part that is sorted already as it is.
            self.sorted
                .sort_by_key(|&record| inodes.get(record as usize));
        }
        let known = |&record: &u32| self.inodes.get(record as usize).copied();
        let record = match self.sorted.binary_search_by_key(&Some(inode), known) {
            Ok(at) => *self.sorted.get(at)?,
            Err(_) => {
                let from = self.sorted.len();
                let tail = self.inodes.get(from..).unwrap_or_default();
                let at = tail.iter().position(|&known| known == inode)?;
                u32::try_from(from + at).ok()?
            }
        };
        self.taken.insert(record).then(|| u64::from(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_gives_each_record_out_once() {
        let mut records = Records::default();
        // Inodes neither ascend nor descend.
        let inode = |n: u64| (n * 7_919) % 1_000_003;
        for n in 0..10_000 {
            records.note(n, inode(n));
            if n % 3 == 0 {
                assert_eq!(records.take(inode(n / 2 * 2)), Some(n / 2 * 2), "{n}");
                assert_eq!(records.take(inode(n / 2 * 2)), None);
            }
        }
        assert_eq!(records.take(5_000_000), None);
        assert_eq!(records.take(inode(9_997)), Some(9_997));
    }
}

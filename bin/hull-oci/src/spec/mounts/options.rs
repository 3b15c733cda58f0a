//! Words of a mount's `options`. Of words that say the opposite, the last one counts.

use hull_proto::plan::{AccessTime, MountOptions};

/// Bits of access times: they are cleared together.
const ACCESS_TIMES: u64 = 0x70;

/// What sets and what clears an attribute of the mount; with `r` before it, of all below, too.
const ATTRIBUTES: [(&str, &str, u64); 6] = [
    ("ro", "rw", libc::MOUNT_ATTR_RDONLY),
    ("nosuid", "suid", libc::MOUNT_ATTR_NOSUID),
    ("nodev", "dev", libc::MOUNT_ATTR_NODEV),
    ("noexec", "exec", libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", "diratime", libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", "symfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Words about access times, and what they say; with `r` before them, of all below, too.
const TIMES: [(&str, AccessTime); 6] = [
    ("noatime", AccessTime::Never),
    ("atime", AccessTime::Relative),
    ("relatime", AccessTime::Relative),
    ("norelatime", AccessTime::Relative),
    ("strictatime", AccessTime::Strict),
    ("nostrictatime", AccessTime::Relative),
];

/// What sets and what clears an option of the whole file system.
const SUPERBLOCK: [(&str, &str); 7] = [
    ("sync", "async"),
    ("dirsync", "nodirsync"),
    ("mand", "nomand"),
    ("lazytime", "nolazytime"),
    ("silent", "loud"),
    ("iversion", "noiversion"),
    ("acl", "noacl"),
];

/// What a mount can be to others.
pub(crate) const PROPAGATION: [&str; 8] = [
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
];

/// All words that are known, by kind: the mount's, the recursive ones.
pub(crate) fn words() -> impl Iterator<Item = String> {
    let plain = ATTRIBUTES
        .iter()
        .flat_map(|(sets, clears, _)| [*sets, *clears])
        .chain(TIMES.iter().map(|(word, _)| *word));
    let recursive = plain.clone().map(|word| format!("r{word}"));
    let superblock = SUPERBLOCK
        .iter()
        .flat_map(|(sets, clears)| [*sets, *clears])
        .filter(|word| *word != "nodirsync");
    let others = [
        "bind",
        "copy-symlink",
        "defaults",
        "dest-nofollow",
        "idmap",
        "rbind",
        "remount",
        "ridmap",
        "src-nofollow",
        "tmpcopyup",
    ];
    plain
        .chain(superblock)
        .chain(PROPAGATION)
        .chain(others)
        .map(str::to_owned)
        .chain(recursive)
}

/// The options, sorted.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Those of the mount.
    pub(super) options: MountOptions,
    /// It is a bind, recursive or not.
    pub(super) bind: Option<bool>,
    /// Those of the file system that all have.
    pub(super) superblock: Vec<&'static str>,
    /// Those of the file system alone.
    pub(super) data: Vec<String>,
    /// Something is said of the mount's attributes.
    says_attributes: bool,
}

impl Parsed {
    pub(super) fn new<'a>(options: impl Iterator<Item = &'a String>) -> Self {
        let mut parsed = Self::default();
        for option in options {
            let known = parsed.attribute(option)
                || parsed.time(option)
                || parsed.superblock(option)
                || parsed.special(option);
            if !known && !option.is_empty() {
                parsed.data.push(option.clone());
            }
        }
        parsed.options.exact = parsed.bind.is_some() && parsed.says_attributes;
        parsed
    }

    fn attribute(&mut self, word: &str) -> bool {
        for (sets, clears, bit) in ATTRIBUTES {
            if word == sets || word == clears {
                self.says_attributes = true;
                self.set(bit, word == sets);
                return true;
            }
            let below = word.strip_prefix('r').unwrap_or_default();
            if below == sets || below == clears {
                self.set_below(bit, below == sets);
                return true;
            }
        }
        false
    }

    fn set(&mut self, bit: u64, on: bool) {
        let options = &mut self.options;
        match bit {
            libc::MOUNT_ATTR_RDONLY => options.read_only = on,
            libc::MOUNT_ATTR_NOSUID => options.nosuid = on,
            libc::MOUNT_ATTR_NODEV => options.nodev = on,
            libc::MOUNT_ATTR_NOEXEC => options.noexec = on,
            _ if on => options.set |= bit,
            _ => options.set &= !bit,
        }
        if on {
            options.clear &= !bit;
        } else {
            options.clear |= bit;
        }
    }

    fn set_below(&mut self, bit: u64, on: bool) {
        let options = &mut self.options;
        if on {
            options.recursive_set |= bit;
            options.recursive_clear &= !bit;
            options.read_only |= bit == libc::MOUNT_ATTR_RDONLY;
        } else {
            options.recursive_set &= !bit;
            options.recursive_clear |= bit;
        }
    }

    fn time(&mut self, word: &str) -> bool {
        let find = |word: &str| {
            let found = TIMES.iter().find(|(name, _)| *name == word);
            found.map(|(_, time)| *time)
        };
        let options = &mut self.options;
        if let Some(time) = find(word) {
            self.says_attributes = true;
            // Only what it was set to is taken back.
            let stays = match word {
                "norelatime" => options.access_time != AccessTime::Relative,
                "nostrictatime" => options.access_time == AccessTime::Never,
                "atime" => options.access_time == AccessTime::Strict,
                _ => false,
            };
            if !stays {
                options.access_time = time;
            }
            options.clear |= ACCESS_TIMES;
            return true;
        }
        let Some(time) = word.strip_prefix('r').and_then(find) else {
            return false;
        };
        options.recursive_set &= !ACCESS_TIMES;
        options.recursive_set |= match time {
            AccessTime::Relative => 0,
            AccessTime::Strict => libc::MOUNT_ATTR_STRICTATIME,
            AccessTime::Never => libc::MOUNT_ATTR_NOATIME,
        };
        options.recursive_clear |= ACCESS_TIMES;
        true
    }

    fn superblock(&mut self, word: &str) -> bool {
        for (sets, clears) in SUPERBLOCK {
            if word != sets && word != clears {
                continue;
            }
            self.superblock.retain(|set| *set != sets);
            if word == sets {
                self.superblock.push(sets);
            }
            return true;
        }
        false
    }

    fn special(&mut self, word: &str) -> bool {
        let options = &mut self.options;
        match word {
            "defaults" | "idmap" | "ridmap" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "remount" => options.remount = true,
            "tmpcopyup" => options.copy_up = true,
            "src-nofollow" => options.source_nofollow = true,
            "dest-nofollow" => options.target_nofollow = true,
            "copy-symlink" => options.copy_symlink = true,
            word if PROPAGATION.contains(&word) => spread(&mut options.propagation, word),
            _ => return false,
        }
        true
    }
}

/// Changes of propagation are made in order. One undoes those before it, but a slave that is then
/// shared is both.
fn spread(propagation: &mut String, word: &str) {
    let last = propagation.rsplit(',').next().unwrap_or_default();
    let adds = matches!(word, "shared" | "rshared") && matches!(last, "slave" | "rslave");
    if adds {
        propagation.push(',');
    } else {
        propagation.clear();
    }
    propagation.push_str(word);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Parsed {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Parsed::new(words.iter())
    }

    #[test]
    fn new_every_known_word_is_no_data() {
        for word in words() {
            assert!(parse(&[&word]).data.is_empty(), "{word}");
        }
        assert_eq!(parse(&["hidepid=2", "readonly"]).data.len(), 2);
    }

    #[test]
    fn new_last_of_opposite_words_counts() {
        let parsed = parse(&[
            "ro",
            "rw",
            "suid",
            "nosuid",
            "nosymfollow",
            "sync",
            "async",
            "bind",
        ]);
        let options = &parsed.options;
        assert!(!options.read_only && options.nosuid && options.exact);
        assert_eq!(options.clear, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(options.set, libc::MOUNT_ATTR_NOSYMFOLLOW);
        assert!(parsed.superblock.is_empty());
    }

    #[test]
    fn new_recursive_words_are_kept_apart() {
        let options = parse(&["rbind", "rro", "rnosuid", "rsuid", "rnoatime"]).options;
        let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOATIME;
        assert_eq!(options.recursive_set, set);
        let clear = libc::MOUNT_ATTR_NOSUID | ACCESS_TIMES;
        assert_eq!(options.recursive_clear, clear);
        assert!(options.read_only && !options.exact);
        let options = parse(&["rnoatime", "rrelatime"]).options;
        assert_eq!(options.recursive_set, 0);
    }

    #[test]
    fn new_access_times_take_back_their_own_alone() {
        for (words, expected) in [
            (&["noatime"][..], AccessTime::Never),
            (&["noatime", "atime"], AccessTime::Relative),
            (&["strictatime", "atime"], AccessTime::Strict),
            (&["noatime", "nostrictatime"], AccessTime::Never),
            (&["strictatime", "nostrictatime"], AccessTime::Relative),
            (&["noatime", "relatime"], AccessTime::Relative),
        ] {
            assert_eq!(parse(words).options.access_time, expected, "{words:?}");
        }
    }

    #[test]
    fn new_propagation_slave_then_shared_is_both() {
        let of = |words: &[&str]| parse(words).options.propagation;
        assert_eq!(of(&["rslave", "shared"]), "rslave,shared");
        assert_eq!(of(&["shared", "rprivate"]), "rprivate");
        assert_eq!(of(&["slave", "private", "slave"]), "slave");
    }
}

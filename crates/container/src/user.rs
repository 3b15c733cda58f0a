//! Users and groups, looked up in the image's own `/etc/passwd` and `/etc/group`.

use std::os::fd::BorrowedFd;
use std::path::Path;

use hull_sys::{Errno, path};

/// Largest passwd or group file that is read.
const MAX_FILE_BYTES: usize = 4 << 20;
/// Most supplementary groups: the kernel's limit.
const MAX_GROUPS: usize = 65_536;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
}

/// A user or group could not be found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number outside what the kernel takes.
    #[error("id {0} is out of range: it must be between 0 and 2147483647")]
    Range(String),
    /// The files cannot be read.
    #[error("cannot read {file} of the image")]
    Read {
        /// Which.
        file: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
}

/// The text of the two files; empty where the image has none.
#[derive(Debug, Default, Clone)]
pub(crate) struct Databases {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

/// Reads a file beneath a root; one that is missing is empty.
pub(crate) fn read(
    root: BorrowedFd<'_>,
    file: &Path,
    name: &'static str,
) -> Result<String, UserError> {
    match path::read_file(root, file, MAX_FILE_BYTES) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL | Errno::LOOP) => Ok(String::new()),
        Err(source) => Err(UserError::Read { file: name, source }),
    }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Databases {
    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields
                .next()
                .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
            let mut fields = fields.skip(1);
            let uid = fields.next()?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            let home = fields.nth(1).unwrap_or_default();
            Some(User {
                name,
                uid,
                gid,
                home,
            })
        })
    }

    fn all_groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields
                .next()
                .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
            let mut fields = fields.skip(1);
            let gid = fields.next()?.parse().ok()?;
            Some(Group {
                name,
                gid,
                members: fields.next().unwrap_or_default(),
            })
        })
    }

    /// Looks up `user[:group]` (names or numbers; empty is root) and further groups.
    pub(crate) fn identity(&self, text: &str, add: &[String]) -> Result<Identity, UserError> {
        let (user_text, group_text) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        let number = number(user_text)?;
        let wanted = if user_text.is_empty() {
            Some(0)
        } else {
            number
        };
        let found = self
            .users()
            .find(|user| user.name == user_text)
            .or_else(|| self.users().find(|user| Some(user.uid) == wanted));
        let (uid, mut gid, home) = match (&found, wanted) {
            (Some(user), _) => (user.uid, user.gid, user.home),
            (None, Some(uid)) => (uid, 0, "/"),
            (None, None) => return Err(UserError::NoUser(user_text.to_owned())),
        };
        let mut groups = Vec::new();
        match group_text {
            // An explicit group is the only one, as with Docker.
            Some(group) => gid = self.gid(group)?,
            None => {
                if let Some(user) = &found {
                    let member = |group: &Group<'_>| {
                        group
                            .members
                            .split(',')
                            .any(|member| member.trim() == user.name)
                    };
                    groups.extend(self.all_groups().filter(member).map(|group| group.gid));
                }
            }
        }
        for group in add {
            groups.push(self.gid(group)?);
        }
        // The own group, too: else `chmod g-rwx` would not keep a process out that has left it for
        // a supplementary one (CVE-2022-36109).
        groups.push(gid);
        let mut seen = std::collections::BTreeSet::new();
        groups.retain(|gid| seen.insert(*gid));
        groups.truncate(MAX_GROUPS);
        let home = if home.is_empty() { "/" } else { home };
        Ok(Identity {
            uid,
            gid,
            groups,
            home: home.to_owned(),
        })
    }

    /// The home of a user id.
    pub(crate) fn home(&self, uid: u32) -> String {
        let found = self
            .users()
            .find(|user| user.uid == uid && !user.home.is_empty());
        found.map_or("/", |user| user.home).to_owned()
    }

    /// A group by name or number.
    pub(crate) fn gid(&self, text: &str) -> Result<u32, UserError> {
        if let Some(group) = self.all_groups().find(|group| group.name == text) {
            return Ok(group.gid);
        }
        number(text)?.ok_or_else(|| UserError::NoGroup(text.to_owned()))
    }
}

/// A number in the range of ids; `None` if it is no number at all.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= i32::MAX as u32 => Ok(Some(id)),
        _ => Err(UserError::Range(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases() -> Databases {
        Databases {
            passwd:
                "root:x:0:0:root:/root:/bin/sh\n# c\n\nbad:x:no:1\nweb:x:33:34:w:/srv:/bin/sh\n"
                    .to_owned(),
            group: "root:x:0:\nstaff:x:50:web,other\nwww:x:34:\n99:x:7:web\n".to_owned(),
        }
    }

    #[test]
    fn identity_name_gets_group_home_and_memberships() {
        let who = databases().identity("web", &[]).expect("found");
        assert_eq!((who.uid, who.gid, who.home.as_str()), (33, 34, "/srv"));
        assert_eq!(who.groups, vec![50, 7, 34]);
    }

    #[test]
    fn identity_explicit_group_replaces_memberships() {
        let who = databases()
            .identity("33:staff", &["www".into(), "12".into()])
            .expect("found");
        assert_eq!((who.gid, who.groups), (50, vec![34, 12, 50]));
    }

    #[test]
    fn identity_unknown_number_is_taken_as_it_is() {
        let who = databases().identity("1234", &[]).expect("number");
        assert_eq!((who.uid, who.gid, who.home.as_str()), (1234, 0, "/"));
        assert_eq!(
            Databases::default().identity("", &[]).map(|who| who.uid),
            Ok(0)
        );
    }

    #[test]
    fn identity_unknown_names_and_ranges_are_errors() {
        let databases = databases();
        assert_eq!(
            databases.identity("nobody", &[]),
            Err(UserError::NoUser("nobody".into()))
        );
        assert_eq!(
            databases.identity("0:none", &[]),
            Err(UserError::NoGroup("none".into()))
        );
        assert!(matches!(
            databases.identity("4294967295", &[]),
            Err(UserError::Range(_))
        ));
    }
}

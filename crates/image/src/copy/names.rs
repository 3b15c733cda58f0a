//! Paths as the user wrote them, where a final `/` or `/.` says something: the rules of
//! `docker cp`. Nothing here looks at a file system.

/// Makes `path` absolute from `/` and takes out `.`, `..` and empty components by their letters.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// As [`clean`], with a final `/` or `/.` kept.
pub fn clean_keeping_end(path: &str) -> String {
    let mut cleaned = clean(path);
    if means_content(path) {
        if !cleaned.ends_with('/') {
            cleaned.push('/');
        }
        cleaned.push('.');
    }
    if path.ends_with('/') && !cleaned.ends_with('/') {
        cleaned.push('/');
    }
    cleaned
}

/// The last component is `.`: what is in the folder is meant, not the folder.
pub fn means_content(path: &str) -> bool {
    base(path) == "."
}

/// The path says that it is a folder.
pub fn says_folder(path: &str) -> bool {
    path.ends_with('/') || means_content(path)
}

/// The last component, `/` for the root and `.` for nothing.
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

/// Folder and last component of a cleaned absolute path. A final `/.` is a component, a final `/`
/// is not.
pub fn split_entry(path: &str) -> (String, String) {
    let cleaned = clean(path);
    if means_content(path) {
        return (cleaned, ".".into());
    }
    match cleaned.rsplit_once('/') {
        Some((_, "")) | None => ("/".into(), "/".into()),
        Some(("", name)) => ("/".into(), name.into()),
        Some((dir, name)) => (dir.into(), name.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_keeping_end_keeps_what_says_folder_or_content() {
        for (path, want) in [
            // Nothing is as good as a dot, as Go has it.
            ("", "/."),
            ("/", "/"),
            (".", "/."),
            ("a", "/a"),
            ("a/", "/a/"),
            ("/a/.", "/a/."),
            ("/a/./", "/a/./"),
            ("/a/../b//c", "/b/c"),
            ("../../x", "/x"),
            ("/a/..", "/"),
        ] {
            assert_eq!(clean_keeping_end(path), want, "{path:?}");
        }
    }

    #[test]
    fn split_entry_takes_a_final_dot_as_component() {
        let split = |path| split_entry(path);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(split("/a/b"), pair("/a", "b"));
        assert_eq!(split("/a/b/"), pair("/a", "b"));
        assert_eq!(split("/a/."), pair("/a", "."));
        assert_eq!(split("/a"), pair("/", "a"));
        assert_eq!(split("/"), pair("/", "/"));
        assert_eq!((base("/a/b/"), base("/"), base("/a/.")), ("b", "/", "."));
    }
}

//! The password file, by libpq's rules (PostgreSQL manual, "The Password File").

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use towpath_contract::Secret;

/// What a line of the file must match.
pub(crate) struct Wanted<'a> {
    /// As the URL names it; `localhost` for a Unix socket in a default directory.
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
}

/// `PGPASSFILE`, or `.pgpass` in the home folder. The one thing that this connector reads from the environment, as every
/// PostgreSQL client does.
pub(crate) fn default_path() -> Option<PathBuf> {
    match std::env::var_os("PGPASSFILE") {
        Some(path) => Some(path.into()),
        None => std::env::var_os("HOME").map(|home| Path::new(&home).join(".pgpass")),
    }
}

/// The password of the first line that matches. A missing file is no error; one that others may read is passed over with
/// a warning, as libpq does.
pub(crate) fn look_up(path: &Path, wanted: &Wanted<'_>) -> Option<Secret> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() {
        tracing::warn!(file = %path.display(), "the password file is not a plain file: passed over");
        return None;
    }
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "the password file can be read by others: passed over; run chmod 0600 on it");
        return None;
    }
    find(&fs::read_to_string(path).ok()?, wanted)
}

fn find(text: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    text.lines().find_map(|line| match_line(line, wanted))
}

fn match_line(line: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    if line.starts_with('#') {
        return None;
    }
    let port = wanted.port.to_string();
    let mut rest = line;
    for expected in [wanted.host, &port, wanted.database, wanted.user] {
        let (field, after) = field(rest);
        // Only a bare star is a wildcard: `\*` is the character.
        let bare_star = rest.strip_prefix('*').is_some_and(|after| after.starts_with(':'));
        if !bare_star && field != expected {
            return None;
        }
        rest = after?;
    }
    let (password, _) = field(rest);
    (!password.is_empty()).then(|| Secret::new(password))
}

/// The first field with its escapes resolved, and what follows its colon; `None` where the line ends with it.
fn field(text: &str) -> (String, Option<&str>) {
    let mut field = String::new();
    let mut chars = text.char_indices();
    while let Some((at, character)) = chars.next() {
        match character {
            ':' => return (field, Some(&text[at + 1..])),
            '\\' => field.extend(chars.next().map(|(_, escaped)| escaped)),
            other => field.push(other),
        }
    }
    (field, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use proptest::prelude::*;

    const WANTED: Wanted<'_> = Wanted { host: "db.example", port: 5432, database: "orders", user: "reader" };

    fn password(text: &str) -> Option<String> {
        find(text, &WANTED).map(|secret| secret.reveal().to_owned())
    }

    #[test]
    fn the_first_matching_line_counts() {
        let text = "# a comment\nother:5432:orders:reader:no\n*:*:*:reader:yes\ndb.example:5432:orders:reader:late\n";
        assert_eq!(password(text).as_deref(), Some("yes"));
        assert_eq!(password("db.example:5433:orders:reader:no"), None);
        assert_eq!(password("db.example:5432:orders:reader"), None);
        assert_eq!(password("db.example:5432:orders:reader:"), None);
        assert_eq!(password(""), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        assert_eq!(password(r"*:*:*:*:a\:b\\c").as_deref(), Some(r"a:b\c"));
        assert_eq!(password(r"\*:*:*:*:no"), None);
        assert_eq!(password("*:*:*:*:with spaces # and all\r\n").as_deref(), Some("with spaces # and all"));
    }

    #[test]
    fn a_file_that_others_can_read_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        assert!(look_up(&path, &WANTED).is_none(), "no file");
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(look_up(&path, &WANTED).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(look_up(&path, &WANTED).unwrap().reveal(), "secret");
        assert!(look_up(folder.path(), &WANTED).is_none(), "a folder");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\*:#\n\\\\a-c]{0,60}") {
            let _ = password(&text);
        }

        #[test]
        fn any_escaped_field_matches_itself(host in "[a-z:\\\\*]{1,10}", secret in "[ -~]{1,10}") {
            let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:").replace('*', "\\*");
            let wanted = Wanted { host: &host, ..WANTED };
            let line = format!("{}:5432:orders:reader:{}", escape(&host), escape(&secret));
            let found = find(&line, &wanted).map(|secret| secret.reveal().to_owned());
            prop_assert_eq!(found, Some(secret));
        }
    }
}

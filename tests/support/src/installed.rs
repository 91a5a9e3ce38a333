//! What the machine has: users, programs.

use std::fs;
use std::path::{Path, PathBuf};

/// The account that a server runs as when the tests run as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// The first of the accounts that exists, if we are root; else none: the server then runs as ourselves.
    pub(crate) fn for_server(accounts: &[&str]) -> Option<User> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        accounts.iter().find_map(|account| User::parse(&passwd, account))
    }

    fn parse(passwd: &str, account: &str) -> Option<User> {
        let fields: Vec<&str> =
            passwd.lines().map(|line| line.split(':').collect()).find(|fields: &Vec<&str>| fields[0] == account)?;
        Some(User { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    }
}

/// The folder below `parent` whose name starts with `prefix` and holds `program`; of several, the one of the highest version.
pub(crate) fn newest(parent: &str, prefix: &str, program: &str) -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.split('.').next()?.parse().ok()?;
            Some((version, entry.path()))
        })
        .filter(|(_, path)| path.join(program).exists())
        .collect();
    found.sort();
    Some(found.pop()?.1)
}

/// The folder on the PATH that holds `program`, links followed.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let file = std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|file| file.exists())?;
    file.canonicalize().ok()?.parent().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:/bin/sh\npostgres:x:101:104::/:/bin/sh\n";
        assert_eq!(User::parse(passwd, "postgres"), Some(User { uid: 101, gid: 104 }));
        assert_eq!(User::parse(passwd, "nobody"), None);
    }
}

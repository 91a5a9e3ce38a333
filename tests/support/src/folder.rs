//! Temporary folders that a server's own user can write, and the build's folder.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use crate::installed::User;
use crate::process::is_alive;

const PREFIX: &str = "towpath-test-";

/// A folder below the system's temporary one, deleted on drop.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// # Panics
    /// When it cannot be created.
    pub fn new(purpose: &str) -> Folder {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let folder = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{purpose}-{}-", std::process::id()))
            .tempdir()
            .unwrap_or_else(|error| panic!("cannot create a temporary folder: {error}"));
        Folder(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }

    /// A folder that outlives the test, under a name that is never swept: somebody else will delete it.
    pub(crate) fn outliving(purpose: &str) -> PathBuf {
        let folder = tempfile::Builder::new().prefix(&format!("towpath-{purpose}-")).tempdir();
        folder.unwrap_or_else(|error| panic!("cannot create a temporary folder: {error}")).keep()
    }

    pub(crate) fn owned_by(user: Option<&User>, purpose: &str) -> Folder {
        let folder = Folder::new(purpose);
        give(folder.path(), user);
        folder
    }
}

/// Deletes what tests left that were killed: their process is gone, and nobody has touched the folder for an hour (pids are
/// used again, and another container may share the temporary folder).
fn sweep() {
    let untouched = |entry: &fs::DirEntry| -> Option<bool> {
        Some(entry.metadata().ok()?.modified().ok()?.elapsed().ok()? > Duration::from_secs(3600))
    };
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.rsplit('-').nth(1)?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !is_alive(pid)) && untouched(&entry) == Some(true) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes `path`, and everything in it, the user's. Nothing to do without one: then we are not root.
pub(crate) fn give(path: &Path, user: Option<&User>) {
    let Some(user) = user else { return };
    chown(path, Some(user.uid), Some(user.gid)).unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
    if path.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            give(&entry.path(), Some(user));
        }
    }
}

/// Private keys: servers refuse those that others can read.
pub(crate) fn keep_private(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .unwrap_or_else(|error| panic!("chmod {}: {error}", path.display()));
}

/// The build's `target` folder: Cargo marks it with `CACHEDIR.TAG`, and the running test lies in it.
pub(crate) fn target() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|exe| exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).map(Path::to_path_buf))
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"))
}

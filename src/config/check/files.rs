//! Files and folders that the config names.

use std::fs;
use std::path::Path;

use super::Checker;
use crate::config::path::KeyPath;

impl Checker<'_> {
    pub(super) fn outbox_file(&mut self, path: &KeyPath, file: &Path) {
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let shown = self.origins.quote(path, &folder.display().to_string());
        let help = "make the folder, owned by the user that runs towpath, on a local disk";
        if file.file_name().is_none() || file.is_dir() {
            self.problem(path, "this is a folder; a file is wanted", "for example /var/lib/towpath/outbox.db");
        } else if !folder.is_dir() {
            self.problem(path, format!("the folder {shown} does not exist"), help);
        } else if rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err() {
            self.problem(
                path,
                format!("the folder {shown} cannot be written to by this user"),
                "change its owner, or run towpath as that",
            );
        } else if file.exists() && fs::OpenOptions::new().append(true).open(file).is_err() {
            self.problem(path, "the file exists and cannot be written to by this user", "change its owner");
        }
    }

    /// Certificates and keys: readable, and a certificate never without its key.
    pub(super) fn tls_files(
        &mut self,
        path: &KeyPath,
        ca: Option<&Path>,
        certificate: Option<&Path>,
        key: Option<&Path>,
    ) {
        for (name, file) in [("ca", ca), ("certificate", certificate), ("key", key)] {
            let Some(Err(error)) = file.map(fs::read) else { continue };
            let file = self.origins.quote(&path.key(name), &file.map(|f| f.display().to_string()).unwrap_or_default());
            self.problem(
                &path.key(name),
                format!("{file} cannot be read: {error}"),
                "a PEM file that this user may read",
            );
        }
        match (certificate, key) {
            (Some(_), None) => self.problem(&path.key("certificate"), "`certificate` without `key`", "both or neither"),
            (None, Some(_)) => self.problem(&path.key("key"), "`key` without `certificate`", "both or neither"),
            _ => {}
        }
    }
}

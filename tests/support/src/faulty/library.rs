//! Compiles the C library, once for all test processes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;

use crate::folder::target;

const SOURCES: [(&str, &str); 5] = [
    ("preload.h", include_str!("preload.h")),
    ("control.c", include_str!("control.c")),
    ("names.c", include_str!("names.c")),
    ("calls.c", include_str!("calls.c")),
    ("clock.c", include_str!("clock.c")),
];
const FLAGS: [&str; 7] = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"];

/// The shared library in the build's folder, under a name that its source gives it. Several processes may compile at a time: each in
/// a folder of its own; the library is then renamed, so that nobody loads half of one.
pub(super) fn compiled() -> PathBuf {
    if !cfg!(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64"))) {
        panic!("the faulty disk needs Linux with glibc, on x86_64 or aarch64");
    }
    let mut hasher = DefaultHasher::new();
    (SOURCES, FLAGS, std::env::consts::ARCH).hash(&mut hasher);
    let folder = target().join("tmp");
    let library = folder.join(format!("faulty-disk-{:016x}.so", hasher.finish()));
    if library.exists() {
        return library;
    }
    let made = fs::create_dir_all(&folder).and_then(|()| tempfile::tempdir_in(&folder));
    let own = made.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for (name, text) in SOURCES {
        fs::write(own.path().join(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let units = SOURCES.iter().map(|(name, _)| name).filter(|name| name.ends_with(".c"));
    let compiled =
        Command::new("cc").current_dir(own.path()).args(FLAGS).args(["-o", "it.so"]).args(units).arg("-ldl").output();
    let compiled = compiled.unwrap_or_else(|error| {
        panic!("cc: {error}; the faulty disk needs a C compiler and glibc's headers (Debian: gcc and libc6-dev)")
    });
    assert!(
        compiled.status.success(),
        "cc in {}:\n{}",
        own.path().display(),
        String::from_utf8_lossy(&compiled.stderr)
    );
    fs::rename(own.path().join("it.so"), &library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
    library
}

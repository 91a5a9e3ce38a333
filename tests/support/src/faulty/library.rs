//! Compiles `preload.c`, once for all test processes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;

use crate::folder::target;

const SOURCE: &str = include_str!("preload.c");
const FLAGS: [&str; 7] = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"];

/// The shared library in the build's folder, under a name that its source gives it. Several processes may compile at a time: each to
/// a name of its own, then renamed, so that nobody loads half a library.
pub(super) fn compiled() -> PathBuf {
    if !cfg!(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64"))) {
        panic!("the faulty disk needs Linux with glibc, on x86_64 or aarch64");
    }
    let mut hasher = DefaultHasher::new();
    (SOURCE, FLAGS, std::env::consts::ARCH).hash(&mut hasher);
    let folder = target().join("tmp");
    let library = folder.join(format!("faulty-disk-{:016x}.so", hasher.finish()));
    if library.exists() {
        return library;
    }
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let own = |extension| folder.join(format!("faulty-disk-{}.{extension}", std::process::id()));
    let (source, made) = (own("c"), own("so"));
    fs::write(&source, SOURCE).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    let output = Command::new("cc").args(FLAGS).arg("-o").args([&made, &source]).arg("-ldl").output();
    let output = output.unwrap_or_else(|error| {
        panic!("cc: {error}; the faulty disk needs a C compiler and glibc's headers (Debian: gcc and libc6-dev)")
    });
    assert!(output.status.success(), "cc {}:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
    fs::rename(&made, &library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
    // Left behind it harms nobody.
    let _ = fs::remove_file(&source);
    library
}

//! Parse → load → run → exit code.

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit};
use towpath::cli::{self, Arguments};
use towpath::pipeline::Engine;

fn main() -> ExitCode {
    towpath::memory::bound_the_allocator();
    end_on_panic();
    let arguments = Arguments::parse();
    // Three crates disagree on the default: the one that needs no cmake is named, before any of them chooses.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("towpath: another TLS provider was installed first");
        return ExitCode::FAILURE;
    }
    no_core_dump();
    cli::main(arguments, &Engine)
}

/// A task that panicked would leave its last good state on show for ever: the process ends, and whoever runs it starts it anew
/// from what is on disk.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Passwords are in memory as long as the process runs; a core dump would put them on disk.
fn no_core_dump() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        eprintln!("towpath: core dumps cannot be turned off ({error}); one would hold secrets");
    }
}

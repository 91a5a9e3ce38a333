//! Child processes that do not outlive the test.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::installed::User;

/// How to start a program.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) env_clear: bool,
    pub(crate) user: Option<User>,
    pub(crate) folder: PathBuf,
    /// What the kernel sends the program when the test process ends.
    pub(crate) death_signal: &'static str,
}

impl Launch {
    pub(crate) fn new(program: impl Into<PathBuf>, folder: &Path) -> Launch {
        Launch {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            env_clear: false,
            user: None,
            folder: folder.to_path_buf(),
            death_signal: "KILL",
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Launch {
        self.args.push(arg.as_ref().to_os_string());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Launch {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_os_string()));
        self
    }

    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Launch {
        self.env.push((name.as_ref().to_os_string(), value.as_ref().to_os_string()));
        self
    }

    pub(crate) fn user(mut self, user: Option<&User>) -> Launch {
        self.user = user.cloned();
        self
    }

    pub(crate) fn death_signal(mut self, signal: &'static str) -> Launch {
        self.death_signal = signal;
        self
    }

    /// `setpriv` (util-linux) changes the user, asks for the death signal and becomes the program: the pid is the program's.
    /// Where it is missing (not Linux), only drop ends the program.
    fn command(&self) -> Command {
        let mut command = if Path::new("/usr/bin/setpriv").exists() {
            let mut command = Command::new("/usr/bin/setpriv");
            if let Some(user) = &self.user {
                command.args([
                    format!("--reuid={}", user.uid),
                    format!("--regid={}", user.gid),
                    "--clear-groups".into(),
                    "--inh-caps=-all".into(),
                ]);
            }
            command.arg(format!("--pdeathsig={}", self.death_signal)).arg("--").arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        if self.env_clear {
            command.env_clear();
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// The command's words, for a shell script to run without quoting: none may hold a space.
    pub(crate) fn words(&self) -> Vec<String> {
        let command = self.command();
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        assert!(!words.iter().any(|word| word.contains(' ')), "a word with a space: {words:?}");
        words
    }

    /// Runs the program to its end and returns what it printed.
    ///
    /// # Panics
    /// When it cannot be started or fails, with its output.
    pub(crate) fn run(&self) -> String {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = spawn(command).unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        let output = child.wait_with_output().expect("the pipes of a child can be read");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{} {:?}: {}\n{out}{err}", self.program.display(), self.args, output.status);
        out.into_owned()
    }

    /// Starts the program; what it prints is appended to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub(crate) fn start(&self, log: &Path) -> Process {
        let open = || -> io::Result<File> { File::options().create(true).append(true).open(log) };
        let mut command = self.command();
        let log = open().and_then(|out| Ok((out.try_clone()?, out)));
        let (out, err) = log.unwrap_or_else(|error| panic!("cannot open the log: {error}"));
        command.stdout(out).stderr(err);
        let child = spawn(command).unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        Process { child, ended: None }
    }
}

impl Launch {
    /// Starts a program that outlives the test. Returns its pid.
    ///
    /// # Panics
    /// When it cannot be started.
    #[expect(clippy::zombie_processes, reason = "it outlives us")]
    pub(crate) fn start_detached(&self, log: &Path) -> u32 {
        let log = File::create(log).unwrap_or_else(|error| panic!("cannot open the log: {error}"));
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.folder).stdin(Stdio::null());
        command.stderr(log.try_clone().expect("a file can be shared")).stdout(log);
        let child = spawn(command).unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        child.id()
    }
}

/// The parent death signal is sent when the *thread* that started a child ends. A test's threads come and go, so one
/// thread that lives as long as the process starts them all.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    // The caller may have panicked; then nobody wants the answer, and dropping a child leaves it to the signal.
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(orders)
    });
    let (answer, child) = channel();
    spawner
        .lock()
        .expect("the spawner's lock is never held over a panic")
        .send((command, answer))
        .expect("it lives on");
    child.recv().expect("it answers every order")
}

/// A running program; killed on drop.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child can be waited for");
        }
        self.ended
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            send(self.pid(), signal);
        }
    }

    /// Waits for its end. `None` after `within`.
    pub(crate) async fn end(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        while self.ended().is_none() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.ended
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        if self.ended.is_none() {
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // It may have ended meanwhile, which is as good.
        let _ = kill_process(pid, signal);
    }
}

/// The processes whose parent is `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|child| {
            // `pid (name) state ppid …`; the name may contain anything, so look after the last bracket.
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
            parent == Some(pid)
        })
        .collect()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).unwrap_or("gone");
    !matches!(state, "gone" | "Z" | "X")
}

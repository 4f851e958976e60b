//! Child processes: started so that they die with this program, output captured in files, waits with deadlines.
//!
//! Every child is started by one thread that lives as long as the program, through `setpriv --pdeathsig KILL`:
//! the kernel kills the child when that thread ends, so neither a panic nor a kill of the test program leaves
//! brokers or clients behind.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use crate::paths;
use crate::wait::wait_for;

type Spawn = (Command, mpsc::SyncSender<io::Result<Child>>);

fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Spawn>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (send, receive) = mpsc::channel::<Spawn>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, answer) in receive {
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a thread that starts processes");
        Mutex::new(send)
    });
    let (answer, result) = mpsc::sync_channel(1);
    let sent = spawner.lock().expect("the spawner's queue").send((command, answer));
    sent.map_err(io::Error::other)?;
    result.recv().map_err(io::Error::other)?
}

/// A command about to run.
#[derive(Debug)]
pub struct Tool {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

impl Tool {
    /// `program`, found on the path or by its file name, with a limit of 60 s.
    pub fn new(program: impl AsRef<OsStr>) -> Tool {
        Tool {
            program: program.as_ref().into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            stdin: None,
            limit: Duration::from_secs(60),
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Tool {
        self.args.push(arg.as_ref().into());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Tool {
        self.args.extend(args.into_iter().map(|a| a.as_ref().into()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Tool {
        self.env.push((key.into(), value.as_ref().into()));
        self
    }

    /// Sets the working directory.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Tool {
        self.dir = Some(dir.into());
        self
    }

    /// Gives the text to the program's standard input.
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Tool {
        self.stdin = Some(text.into());
        self
    }

    /// Kills the program and fails the test after `seconds`.
    pub fn limit(mut self, seconds: u64) -> Tool {
        self.limit = Duration::from_secs(seconds);
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).args(&self.args);
        // Klamm takes its configuration from such variables; those that steer the tests are none.
        for (key, _) in std::env::vars_os() {
            let text = key.to_string_lossy();
            if text.starts_with("KLAMM_") && (text != "KLAMM_CACHE" || Path::new(&self.program).ends_with("klamm")) {
                command.env_remove(&key);
            }
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Starts the program.
    #[track_caller]
    pub fn start(self) -> Process {
        let name = Path::new(&self.program).file_name().unwrap_or(&self.program).to_string_lossy().into_owned();
        let base = paths::scratch().join(crate::unique(&name));
        let (out, err) = (base.with_extension("out"), base.with_extension("err"));
        let mut command = self.command();
        command.stdout(File::create(&out).expect("a file for output"));
        command.stderr(File::create(&err).expect("a file for errors"));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        match &self.stdin {
            Some(text) => {
                let file = base.with_extension("in");
                File::create(&file).and_then(|mut f| f.write_all(text)).expect("a file for input");
                command.stdin(File::open(&file).expect("the file for input"));
            }
            None => {
                command.stdin(Stdio::null());
            }
        }
        let child = spawn(command).unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let line = [&self.program].into_iter().chain(&self.args).map(|a| a.to_string_lossy()).collect::<Vec<_>>();
        Process { child, line: line.join(" "), out, err, limit: self.limit, status: None }
    }

    /// Starts the program with pipes as standard input and output, for a conversation.
    #[track_caller]
    pub fn converse(self) -> (ChildStdin, ChildStdout) {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = spawn(command).unwrap_or_else(|e| panic!("cannot start {:?}: {e}", self.program));
        let input = child.stdin.take().expect("a pipe to it");
        let output = child.stdout.take().expect("a pipe from it");
        // It ends when its input does; somebody must take note.
        std::thread::spawn(move || child.wait());
        (input, output)
    }

    /// Runs the program to its end, whatever its exit code.
    #[track_caller]
    pub fn run(self) -> Output {
        self.start().finish()
    }

    /// Runs the program to its end and fails the test unless it exits 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.run().expect_ok()
    }
}

/// What a program that has ended left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line.
    pub line: String,
    /// The exit code; −1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// Fails the test unless the program exited 0.
    #[track_caller]
    pub fn expect_ok(self) -> Output {
        assert!(self.code == 0, "{self}");
        self
    }

    /// Standard output's lines.
    pub fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }

    /// Standard output and error together.
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Fails the test unless output or error hold `needle`.
    #[track_caller]
    pub fn expect(self, needle: &str) -> Output {
        assert!(self.out.contains(needle) || self.err.contains(needle), "expected {needle:?} in:\n{self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` exited with {}\n--- out\n{}--- err\n{}", self.line, self.code, self.out, self.err)
    }
}

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    line: String,
    out: PathBuf,
    err: PathBuf,
    limit: Duration,
    status: Option<ExitStatus>,
}

impl Process {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.out)
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.err)
    }

    /// The files that take output and errors.
    pub fn files(&self) -> (&Path, &Path) {
        (&self.out, &self.err)
    }

    /// The exit status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Sends a signal (`KILL`, `TERM`, `STOP`, `CONT`, `INT`).
    pub fn signal(&mut self, name: &str) {
        if self.ended().is_none() {
            let pid = self.pid().to_string();
            let sent = Command::new("/bin/kill").args(["-s", name, &pid]).stderr(Stdio::null()).status();
            assert!(sent.is_ok(), "cannot run /bin/kill");
        }
    }

    /// Sends SIGKILL and goes on at once.
    pub fn kill_soon(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }

    /// Waits for its end; `None` when the limit passes first.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait_for(limit, || self.ended())
    }

    /// Waits until standard output satisfies `probe`; fails the test when the program ends or time is up first.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, seconds: u64, mut probe: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let over = self.ended().is_some() || Instant::now() >= deadline;
            // Read after the look at its state, so that the last lines of a program that ended count.
            if let Some(value) = probe(&self.stdout()) {
                return value;
            }
            if over {
                let state = if self.status.is_some() { "ended" } else { "time is up" };
                panic!("{state} before {what}: `{}`\n--- out\n{}--- err\n{}", self.line, self.stdout(), self.stderr());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end and takes its output; fails the test when the limit passes first.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let limit = self.limit;
        if self.wait(limit).is_none() {
            self.kill();
            panic!("`{}` ran longer than {limit:?}\n--- out\n{}--- err\n{}", self.line, self.stdout(), self.stderr());
        }
        let code = self.status.and_then(|s| s.code()).unwrap_or(-1);
        Output { line: self.line.clone(), code, out: self.stdout(), err: self.stderr() }
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        rss_kib(self.pid())
    }

    /// User and system time used, in seconds (the kernel counts in hundredths).
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Resident memory of a process in KiB; 0 when it is gone.
pub fn rss_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmRSS:")
}

/// The most that it has been so far.
pub fn peak_kib(pid: u32) -> u64 {
    memory_kib(pid, "VmHWM:")
}

fn memory_kib(pid: u32, kind: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(kind)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// User and system time of a process in seconds; 0 when it is gone.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces: count from its end.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn read_lossy(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut f| f.read_to_end(&mut bytes));
    if read.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

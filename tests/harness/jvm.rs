//! Kafka's Java tools, many of them in one JVM (see `tests/clients/java/Driver.java` for the conversation).
//!
//! [`Java::start`] looks like starting the tool's own process: its output, its exit code, a limit, a way to stop it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::paths;
use crate::process::{Output, Tool};

#[derive(Debug, Default, Clone)]
struct Captured {
    out: Vec<u8>,
    err: Vec<u8>,
    code: Option<i32>,
}

type Runs = Arc<Mutex<HashMap<u64, Captured>>>;

struct Driver {
    commands: Mutex<ChildStdin>,
    runs: Runs,
    next: AtomicU64,
}

fn driver() -> &'static Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let lib = paths::cached("kafka/lib", "java.sh");
        let classes = paths::cached("java-driver", "java.sh");
        let log4j = paths::cached("kafka/config/tools-log4j2.xml", "java.sh");
        // Many short tools: the quick compiler and the small collector cost least.
        let jars = std::fs::read_dir(&lib).expect("the jars").flatten().map(|e| e.path().display().to_string());
        let mut path = vec![classes.display().to_string()];
        path.extend(jars.filter(|j| j.ends_with(".jar")));
        let (commands, output) = Tool::new("java")
            .args(["-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dlog4j2.configurationFile={}", log4j.display()))
            .args(["-cp", &path.join(":"), "Driver"])
            .converse();
        let runs = Runs::default();
        let sink = runs.clone();
        let name = String::from("java-answers");
        let reader = std::thread::Builder::new().name(name).spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                take(&sink, &line);
            }
        });
        assert!(reader.is_ok(), "no thread for the driver's answers");
        Driver { commands: Mutex::new(commands), runs, next: AtomicU64::new(1) }
    })
}

fn take(runs: &Runs, line: &str) {
    let mut fields = line.splitn(3, '\t');
    let (Some(id), Some(kind), Some(text)) = (fields.next(), fields.next(), fields.next()) else { return };
    let Ok(id) = id.parse::<u64>() else { return };
    let mut runs = runs.lock().expect("the runs");
    let run = runs.entry(id).or_default();
    match kind {
        "o" => run.out.extend(unbase64(text)),
        "e" => run.err.extend(unbase64(text)),
        _ => run.code = text.parse().ok(),
    }
}

/// A Java tool about to run.
#[derive(Debug)]
pub struct Java {
    class: String,
    args: Vec<String>,
    stdin: Vec<u8>,
    limit: Duration,
}

impl Java {
    /// A tool by its class name.
    pub fn new(class: &str) -> Java {
        Java { class: class.into(), args: Vec::new(), stdin: Vec::new(), limit: Duration::from_secs(90) }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Java {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Gives the text to the tool's standard input.
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Java {
        self.stdin = text.into();
        self
    }

    /// Starts the tool.
    #[track_caller]
    pub fn start(self) -> JavaRun {
        let driver = driver();
        let id = driver.next.fetch_add(1, Ordering::Relaxed);
        let mut line = format!("run\t{id}\t{}\t{}", self.class, base64(&self.stdin));
        for arg in &self.args {
            line.push('\t');
            line.push_str(&base64(arg.as_bytes()));
        }
        line.push('\n');
        command(&line);
        JavaRun { id, line: format!("{} {}", self.class, self.args.join(" ")), limit: self.limit }
    }

    /// Runs the tool to its end, whatever its exit code.
    #[track_caller]
    pub fn run(self) -> Output {
        self.start().finish()
    }

    /// Runs the tool to its end and fails the test unless it exits 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.run().expect_ok()
    }
}

#[track_caller]
fn command(line: &str) {
    let mut commands = driver().commands.lock().expect("the driver's input");
    let sent = commands.write_all(line.as_bytes()).and_then(|()| commands.flush());
    assert!(sent.is_ok(), "the Java driver has ended");
}

/// A Java tool that runs.
#[derive(Debug)]
pub struct JavaRun {
    id: u64,
    line: String,
    limit: Duration,
}

impl JavaRun {
    fn captured(&self) -> Captured {
        driver().runs.lock().expect("the runs").get(&self.id).cloned().unwrap_or_default()
    }

    fn output(&self, captured: Captured) -> Output {
        Output {
            line: self.line.clone(),
            code: captured.code.unwrap_or(-1),
            out: String::from_utf8_lossy(&captured.out).into_owned(),
            err: String::from_utf8_lossy(&captured.err).into_owned(),
        }
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.captured().out).into_owned()
    }

    /// Waits until standard output satisfies `probe`; fails the test when the tool ends or time is up first.
    #[track_caller]
    pub fn until<T>(&self, what: &str, seconds: u64, mut probe: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let output = self.captured();
            let over = output.code.is_some() || Instant::now() >= deadline;
            if let Some(value) = probe(&String::from_utf8_lossy(&output.out)) {
                return value;
            }
            if over {
                panic!("ended or time is up before {what}: {}", self.output(output));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks the tool to end, as Ctrl-C would, and takes its output.
    #[track_caller]
    pub fn stop(self) -> Output {
        command(&format!("stop\t{}\n", self.id));
        self.finish()
    }

    /// Waits for its end and takes its output; fails the test when the limit passes first.
    #[track_caller]
    pub fn finish(self) -> Output {
        let done = crate::wait::wait_for(self.limit, || self.captured().code);
        let output = self.output(self.captured());
        driver().runs.lock().expect("the runs").remove(&self.id);
        assert!(done.is_some(), "ran longer than {:?}: {output}", self.limit);
        output
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = (0..3).fold(0u32, |n, i| n << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = ALPHABET[(n >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn unbase64(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let Some(digit) = ALPHABET.iter().position(|a| *a == byte) else { break };
        bits = bits << 6 | u32::try_from(digit).expect("below 64");
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_goes_both_ways() {
        for text in ["", "a", "ab", "abc", "abcd", "\u{0}\t\n\u{ff}"] {
            assert_eq!(unbase64(&base64(text.as_bytes())), text.as_bytes());
        }
        assert_eq!(base64(b"ab"), "YWI=");
    }
}

//! The JVM with Apache's message classes: one for all tests, questions and answers over its pipes.

use std::{
    collections::BTreeMap,
    io::{BufReader, BufWriter, Read, Write},
    process::{ChildStdin, ChildStdout},
    sync::{Mutex, OnceLock},
};

use bytes::{BufMut, Bytes, BytesMut};
use klamm_tests::{Tool, paths};

/// The running JVM.
pub struct Peer {
    pipes: Mutex<(BufWriter<ChildStdin>, BufReader<ChildStdout>)>,
}

/// A message as Apache sees it.
pub struct Seen {
    /// What it writes.
    pub bytes: Bytes,
    /// The fields after reading, in the form of `{:?}`.
    pub shown: String,
}

/// What Apache says about one version of an API.
pub struct KeyVersion {
    pub key: i16,
    pub name: String,
    pub version: i16,
    pub request_header: i16,
    pub response_header: i16,
    pub stable: bool,
}

impl Peer {
    /// The peer, started at the first call.
    pub fn shared() -> &'static Peer {
        static PEER: OnceLock<Peer> = OnceLock::new();
        PEER.get_or_init(|| {
            let script = paths::tests_dir().join("install/kafka-44.sh");
            Tool::new("bash").arg(script).limit(600).ok();
            let jars = std::fs::read_dir(paths::cached("kafka-44", "kafka-44.sh")).expect("the jars").flatten();
            let mut path = vec![paths::cached("wire-peer", "kafka-44.sh").display().to_string()];
            path.extend(jars.map(|e| e.path().display().to_string()));
            let (questions, answers) = Tool::new("java")
                .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8"])
                .args(["-cp", &path.join(":"), "Peer"])
                .converse();
            Peer { pipes: Mutex::new((BufWriter::new(questions), BufReader::new(answers))) }
        })
    }

    fn ask(&self, question: &[u8]) -> Result<Bytes, String> {
        let mut pipes = self.pipes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (questions, answers) = &mut *pipes;
        let talk = (|| {
            questions.write_all(&(question.len() as u32).to_be_bytes())?;
            questions.write_all(question)?;
            questions.flush()?;
            let mut length = [0; 4];
            answers.read_exact(&mut length)?;
            let mut answer = vec![0; u32::from_be_bytes(length) as usize];
            answers.read_exact(&mut answer)?;
            Ok::<_, std::io::Error>(Bytes::from(answer))
        })();
        let answer = talk.map_err(|e| format!("the peer is gone: {e}"))?;
        match answer.first() {
            Some(0) => Ok(answer.slice(1..)),
            _ => Err(String::from_utf8_lossy(&answer[1..]).into_owned()),
        }
    }

    fn text(&self, question: &[u8]) -> Result<String, String> {
        let answer = self.ask(question)?;
        String::from_utf8(answer.to_vec()).map_err(|e| e.to_string())
    }

    fn message(&self, what: u8, name: &str, version: i16, rest: &[u8]) -> Result<Seen, String> {
        let mut question = BytesMut::new();
        question.put_u8(what);
        question.put_u16(name.len() as u16);
        question.put_slice(name.as_bytes());
        question.put_i16(version);
        question.put_slice(rest);
        let answer = self.ask(&question)?;
        let Some((size, rest)) = answer.split_first_chunk::<4>() else { return Err("short answer".into()) };
        let size = u32::from_be_bytes(*size) as usize;
        let shown = String::from_utf8_lossy(&rest[size..]).into_owned();
        Ok(Seen { bytes: answer.slice(4..4 + size), shown })
    }

    /// Lets Apache read `bytes` and write them again.
    pub fn read(&self, name: &str, version: i16, bytes: &[u8]) -> Result<Seen, String> {
        self.message(b'r', name, version, bytes)
    }

    /// Lets Apache make a message from its own schema.
    pub fn make(&self, name: &str, version: i16, seed: u64) -> Result<Seen, String> {
        self.message(b'm', name, version, &seed.to_be_bytes())
    }

    /// Every message with its oldest and newest version.
    pub fn messages(&self) -> BTreeMap<String, (i16, i16)> {
        let text = self.text(b"l").expect("the list of messages");
        let line = |line: &str| {
            let mut words = line.split(' ');
            let name = words.next()?.to_owned();
            Some((name, (words.next()?.parse().ok()?, words.next()?.parse().ok()?)))
        };
        text.lines().map(|l| line(l).expect("a name and two versions")).collect()
    }

    /// Every API in every version, unstable ones included.
    pub fn keys(&self) -> Vec<KeyVersion> {
        let text = self.text(b"k").expect("the list of keys");
        let line = |line: &str| {
            let mut words = line.split(' ');
            Some(KeyVersion {
                key: words.next()?.parse().ok()?,
                name: words.next()?.to_owned(),
                version: words.next()?.parse().ok()?,
                request_header: words.next()?.parse().ok()?,
                response_header: words.next()?.parse().ok()?,
                stable: words.next()?.parse().ok()?,
            })
        };
        text.lines().map(|l| line(l).expect("a key, a name and versions")).collect()
    }

    /// What Apache reads from a request frame without its size: key, version, correlation id, client id, bytes left.
    pub fn header(&self, frame: &[u8]) -> Result<String, String> {
        self.text(&[b"h", frame].concat())
    }
}

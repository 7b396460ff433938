//! The real binary in a folder of its own.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests set up files as a user would")]

use std::ffi::OsStr;
use std::fmt::Formatter;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tempfile::TempDir;

/// The user without rights, on every Unix.
const NOBODY: u32 = 65_534;

/// A home folder with a work tree in it.
pub struct Place {
    home: TempDir,
    /// The work tree.
    pub tree: PathBuf,
    program: PathBuf,
    user: Option<u32>,
}

/// How a call ended and what it printed.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    /// An empty folder.
    pub fn empty() -> Self {
        let home = tempfile::tempdir().unwrap();
        let tree = home.path().canonicalize().unwrap().join("tree");
        fs::create_dir(&tree).unwrap();
        Self { home, tree, program: env!("CARGO_BIN_EXE_digstore").into(), user: None }
    }

    /// A new repository.
    pub fn new() -> Self {
        let place = Self::empty();
        place.ok(&["init"]);
        place
    }

    /// From now on, calls are made by a user to whom permissions apply, even if the test runs as root.
    pub fn unprivileged(mut self) -> Self {
        let uid = std::os::unix::fs::MetadataExt::uid(&self.tree.metadata().unwrap());
        if uid == 0 {
            let program = self.home.path().join("digstore");
            // By another process: what this one has open for writing, a child that another test starts just now has open too, and a
            // program that is open for writing cannot be run.
            assert!(Command::new("cp").arg(&self.program).arg(&program).status().unwrap().success());
            self.program = program;
            self.user = Some(NOBODY);
            self.give(self.home.path());
        }
        self
    }

    fn give(&self, path: &Path) {
        std::os::unix::fs::lchown(path, self.user, None).unwrap();
        if path.symlink_metadata().unwrap().is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| self.give(&entry.unwrap().path()));
        }
    }

    /// A call that has not been started.
    pub fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(&self.tree).stdin(Stdio::null());
        command.env_clear().env("HOME", self.home.path()).env("DIGSTORE_AUTHOR", "A <a@example.org>");
        command.env("PATH", "/usr/bin:/bin");
        if let Some(user) = self.user {
            std::os::unix::process::CommandExt::uid(&mut command, user);
        }
        command
    }

    /// Makes a call.
    pub fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// Makes a call that must succeed, and gives what it printed.
    pub fn ok<A: AsRef<OsStr> + std::fmt::Debug>(&self, args: &[A]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
        run.out
    }

    /// Makes a call that must succeed, and gives its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str::<Unambiguous>(&out).unwrap().0
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.tree.join(name)).unwrap()
    }

    /// Adds everything and commits.
    pub fn commit(&self, message: &str) {
        self.ok(&["add", "-A"]);
        self.ok(&["commit", "-m", message]);
    }

    /// Files of a part of the repository: `layers`, `journal`.
    pub fn files(&self, part: &str) -> Vec<PathBuf> {
        let folder = self.tree.join(".digstore").join(part);
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

impl Run {
    /// What a finished call left.
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Tells a process to stop, as Ctrl-C does.
pub fn interrupt(child: &Child) {
    let sent = Command::new("sh").args(["-c", "kill -INT \"$0\"", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits for the end of a process, but not for ever.
pub fn finish(child: &mut Child) {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a process left that ends of itself.
pub fn ended(mut child: Child) -> Run {
    finish(&mut child);
    Run::of(child.wait_with_output().unwrap())
}

/// Bytes that do not compress and that no two seeds share.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// JSON in which no key comes twice: of two, some readers take the first and some the last.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;
            fn expecting(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
                out.write_str("JSON")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
                let mut map = serde_json::Map::new();
                while let Some((key, Unambiguous(value))) = from.next_entry::<String, _>()? {
                    if map.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("{key} comes twice")));
                    }
                }
                Ok(Value::Object(map))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Unambiguous(value)) = from.next_element()? {
                    list.push(value);
                }
                Ok(Value::Array(list))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
        }
        from.deserialize_any(Any).map(Unambiguous)
    }
}

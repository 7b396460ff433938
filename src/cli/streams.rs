//! Bytes that a command takes in and gives out besides its report: values from files or stdin, streams to stdout.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use digstore::base::disk::{DiskError, IoContext, open_root, write_atomic_with};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::app::App;
use super::exit::Failure;

/// What was read and written, for a command that may have to be carried out again.
#[derive(Debug, Default)]
pub struct Streams {
    stdin: OnceCell<Vec<u8>>,
    used: Cell<bool>,
}

impl Streams {
    /// Something was printed already, or taken from stdin as it came, so that the command must not be repeated.
    pub fn used(&self) -> bool {
        self.used.get()
    }
}

/// A new file is for everybody as far as the umask allows.
const FILE_MODE: u32 = 0o666;

fn read(from: impl Read, most_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than allowed is enough to be refused.
    from.take((most_bytes as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Stdout, which remembers that it was used.
pub struct Out<'a> {
    out: io::StdoutLock<'static>,
    streams: &'a Streams,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.streams.used.set(true);
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl App {
    /// The bytes of a file, or of stdin for `-`. Of more than `most_bytes`, only enough is read to be refused.
    pub fn input(&self, file: &Path, most_bytes: usize) -> Result<Vec<u8>, Failure> {
        if file != Path::new("-") {
            let path = self.base.join(file);
            let opened = File::open(&path).on("open", &path)?;
            return Ok(read(opened, most_bytes).on("read", &path)?);
        }
        if let Some(bytes) = self.streams.stdin.get() {
            return Ok(bytes.clone());
        }
        let bytes = read(io::stdin().lock(), most_bytes).on("read", Path::new("stdin"))?;
        Ok(self.streams.stdin.get_or_init(|| bytes).clone())
    }

    /// Stdout for what is not kept in memory first.
    pub fn out(&self) -> Out<'_> {
        Out { out: io::stdout().lock(), streams: &self.streams }
    }

    /// Prints at once.
    pub fn print(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = self.out();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// Prints one of many objects on a line of its own.
    pub fn print_object(&self, schema: &str, object: &impl Serialize) -> Result<(), Failure> {
        let mut line = Map::new();
        line.insert("schema".to_owned(), json!(format!("digstore.{schema}/1")));
        if let Value::Object(fields) = serde_json::to_value(object).map_err(io::Error::from)? {
            line.extend(fields);
        }
        let problems = self.progress.take_problems();
        if !problems.is_empty() {
            line.insert("problems".to_owned(), json!(problems));
        }
        self.print(format!("{}\n", Value::Object(line)).as_bytes())
    }

    /// Writes a whole file, in the place of one that may be there.
    pub fn write_file(&self, to: &Path, bytes: &[u8]) -> Result<(), Failure> {
        self.write_file_with(to, |out, path| Ok(out.write_all(bytes).on("write", path)?))
    }

    /// The same for what is not kept in memory: `write` writes it, and is told the file's path.
    pub fn write_file_with<T>(
        &self,
        to: &Path,
        write: impl FnOnce(&mut dyn Write, &Path) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let path = self.base.join(to);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::IsADirectory)).on("write", &path)?;
        };
        let dir = open_root(folder).on("open", folder)?;
        let wrap = |error| Failure::from(DiskError { action: "write", path: path.clone(), source: error });
        write_atomic_with(dir.as_ref(), name, FILE_MODE, wrap, |out| write(out, &path))
    }

    /// A file, or stdin for `-`, as it comes.
    pub fn source(&self, file: &Path) -> Result<Box<dyn Read>, Failure> {
        if file == Path::new("-") {
            self.streams.used.set(true);
            return Ok(Box::new(io::stdin().lock()));
        }
        let path = self.base.join(file);
        Ok(Box::new(File::open(&path).on("open", &path)?))
    }
}

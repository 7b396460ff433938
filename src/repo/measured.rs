//! Times of operations, kept beyond a process: a text file that nothing depends on.

use std::ffi::OsStr;
use std::io::{self, Read};

use super::Repository;
use crate::base::disk::Dir;
use crate::base::metrics::Metrics;

/// The newer half of what is kept.
const METRICS_FILE: &str = "metrics";
/// The older half.
const OLD_METRICS_FILE: &str = "metrics.old";
/// A file as long as this becomes the older half. A line takes about 25 bytes.
const MAX_METRICS_BYTES: u64 = 1 << 20;

impl Repository {
    /// The operations of this handle and of those before, as far as they are kept.
    pub fn measured(&self) -> Metrics {
        let all = Metrics::default();
        let Some(dir) = self.dir() else { return all };
        self.save_metrics();
        for name in [OLD_METRICS_FILE, METRICS_FILE] {
            let mut text = String::new();
            let opened = dir.open(OsStr::new(name));
            // Times are worth no failure: what cannot be read is not counted.
            if opened.and_then(|file| file.take(2 * MAX_METRICS_BYTES).read_to_string(&mut text)).is_ok() {
                all.add_lines(&text);
            }
        }
        all
    }

    /// Writes down what this handle measured since the last time. Where nothing may be written, nothing is.
    fn save_metrics(&self) {
        let lines = self.metrics().take_lines();
        if let Some(dir) = self.dir().filter(|_| !lines.is_empty()) {
            let _ = append(dir.as_ref(), lines.as_bytes());
        }
    }
}

fn append(dir: &dyn Dir, lines: &[u8]) -> io::Result<()> {
    let name = OsStr::new(METRICS_FILE);
    let file = match dir.open_write(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => dir.create(name, 0o600)?,
        opened => opened?,
    };
    let len = file.stat()?.len;
    if len < MAX_METRICS_BYTES {
        return file.write_at(lines, len);
    }
    dir.rename(name, OsStr::new(OLD_METRICS_FILE))?;
    dir.create(name, 0o600)?.write_at(lines, 0)
}

impl Drop for Repository {
    fn drop(&mut self) {
        self.save_metrics();
        self.leave_clean();
    }
}

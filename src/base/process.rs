//! Which process is meant by a number, for as long as the number may be given again.

use std::fs;
use std::sync::Mutex;

use rustix::process::{Pid, test_kill_process};
use serde::Serialize;

use super::pool::lock;

/// A process that can be told from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessMark {
    /// The name of the machine.
    pub host: String,
    /// The start of the system that it runs on; empty where the system does not tell.
    pub boot: String,
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks since the system's start; 0 where the system does not tell.
    pub start_ticks: u64,
}

/// The file that names this start of the system (Linux).
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// The place of the start time in `/proc/PID/stat`, counted behind the name (Linux, `proc(5)`: field 22 of all).
const START_TIME_FIELD: usize = 19;
/// The place of the state there, and what it is of a process that has ended and was not waited for.
const STATE_FIELD: usize = 0;
const ZOMBIE: &str = "Z";

/// What names this start of the system, anew each time, where it tells.
pub fn boot_id() -> Option<String> {
    fs::read_to_string(BOOT_ID_FILE).ok().map(|text| text.trim().to_owned())
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// When a process was started. The name in the file may hold anything, also parentheses, so the fields are counted from its end.
fn start_ticks(pid: u32) -> u64 {
    field(pid, START_TIME_FIELD).and_then(|field| field.parse().ok()).unwrap_or(0)
}

fn field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number).map(str::to_owned)
}

fn exists(pid: u32) -> bool {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // A process of somebody else may not be signalled, but it is there. One that only waits for its parent to be told is not.
    number.is_some_and(|number| !matches!(test_kill_process(number), Err(rustix::io::Errno::SRCH)))
        && field(pid, STATE_FIELD).is_none_or(|state| state != ZOMBIE)
}

impl ProcessMark {
    /// Marks a living process; `None` if there is none with this number.
    pub fn of(pid: u32) -> Option<Self> {
        exists(pid).then(|| Self::now(pid))
    }

    fn now(pid: u32) -> Self {
        Self { host: host(), boot: boot_id().unwrap_or_default(), pid, start_ticks: start_ticks(pid) }
    }

    /// Marks this process.
    pub fn own() -> Self {
        static OWN: Mutex<Option<ProcessMark>> = Mutex::new(None);
        let pid = std::process::id();
        let mut own = lock(&OWN);
        // A child made by fork has its parent's memory, but not its number.
        match &*own {
            Some(mark) if mark.pid == pid => mark.clone(),
            _ => own.insert(Self::now(pid)).clone(),
        }
    }

    /// Is it surely gone? Of a process on another machine nothing is known.
    pub fn is_gone(&self) -> bool {
        if *self == Self::own() {
            return false;
        }
        if self.host != host() {
            return false;
        }
        self.boot != boot_id().unwrap_or_default() || !exists(self.pid) || start_ticks(self.pid) != self.start_ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_there_until_it_ends() {
        assert!(!ProcessMark::own().is_gone());
        assert_eq!(ProcessMark::of(std::process::id()), Some(ProcessMark::own()));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mark = ProcessMark::of(child.id()).unwrap();
        assert!(!mark.is_gone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(mark.is_gone());
        let own = ProcessMark::own();
        assert!(ProcessMark { boot: "another start".into(), ..own.clone() }.is_gone());
        assert!(
            ProcessMark { start_ticks: own.start_ticks + 1, ..own.clone() }.is_gone(),
            "the number was given again"
        );
        assert!(!ProcessMark { host: "elsewhere".into(), pid: u32::MAX, ..own }.is_gone());
    }
}

//! A disk that fails or stops at a chosen operation, and knows what a power cut would leave behind.
//!
//! It performs every operation on a real directory and keeps a model beside it: for each file the bytes that were
//! synced, for each directory the names that were synced. After the stop, [`FaultDisk::image`] writes what would be
//! found at the next start into a fresh directory, under one of several assumptions about what the medium did with
//! what was never synced.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Dir, DirItem, DiskFile, FileKind, Stat, open_root};
use crate::base::pool::lock;

/// What happens at the chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops: this operation and all later ones fail and change nothing.
    Stop,
    /// This one operation fails with the given error, later ones work.
    Fail(io::ErrorKind),
    /// From here on, whatever needs space fails as on a full disk.
    Full,
}

/// What the medium kept of what was never synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing: neither names nor bytes.
    Lost,
    /// All of it: the process died, the machine did not.
    Kept,
    /// Names but no bytes: files that were never synced are empty.
    NamesOnly,
    /// Names, and half of the bytes that were written since the last sync.
    Torn,
}

/// Every assumption, for sweeps.
pub const EVERY_UNSYNCED: [Unsynced; 4] = [Unsynced::Lost, Unsynced::Kept, Unsynced::NamesOnly, Unsynced::Torn];

type Ino = usize;

#[derive(Debug, Clone)]
enum Node {
    File { now: Vec<u8>, durable: Vec<u8>, mode: u32 },
    Dir { now: BTreeMap<OsString, Ino>, durable: BTreeMap<OsString, Ino>, mode: u32 },
    Symlink { target: OsString },
}

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    operations: u64,
    plan: Option<(u64, Fault)>,
    stopped: bool,
    full: bool,
    log: Vec<String>,
}

/// The controls of a faulty disk.
#[derive(Debug, Clone)]
pub struct FaultDisk {
    state: Arc<Mutex<State>>,
    root: Arc<FaultDir>,
}

#[derive(Debug)]
struct FaultDir {
    real: Arc<dyn Dir>,
    ino: Ino,
    /// The root's node and path.
    top: (Ino, Arc<Path>),
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct FaultFile {
    real: Box<dyn DiskFile>,
    ino: Ino,
    state: Arc<Mutex<State>>,
}

fn stopped() -> io::Error {
    io::Error::other("the disk has stopped (injected)")
}

impl State {
    /// Counts an operation and decides whether it may happen.
    fn step(&mut self, what: &str, name: &OsStr, needs_space: bool) -> io::Result<()> {
        if self.stopped {
            return Err(stopped());
        }
        let number = self.operations;
        self.operations += 1;
        self.log.push(format!("{what} {}", name.display()));
        if let Some((at, fault)) = self.plan
            && at == number
        {
            match fault {
                Fault::Stop => {
                    self.stopped = true;
                    return Err(stopped());
                }
                Fault::Fail(kind) => return Err(kind.into()),
                Fault::Full => self.full = true,
            }
        }
        if self.full && needs_space { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn add(&mut self, node: Node) -> Ino {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn names(&mut self, ino: Ino) -> io::Result<&mut BTreeMap<OsString, Ino>> {
        match self.nodes.get_mut(ino) {
            Some(Node::Dir { now, .. }) => Ok(now),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The node of a folder below the root, by the path that messages show.
    fn find(&mut self, (root, root_path): (Ino, &Path), path: &Path) -> io::Result<Ino> {
        let below = path.strip_prefix(root_path).map_err(io::Error::other)?;
        below.iter().try_fold(root, |ino, name| self.child(ino, name))
    }

    fn child(&mut self, ino: Ino, name: &OsStr) -> io::Result<Ino> {
        self.names(ino)?.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Reads an existing directory into the model; what is there at the start is durable.
    fn import(&mut self, dir: &dyn Dir, mode: u32) -> io::Result<Ino> {
        let mut names = BTreeMap::new();
        for item in dir.list()? {
            let mode = dir.stat(&item.name)?.map_or(0o644, |stat| stat.mode);
            let node = match item.kind {
                FileKind::Dir => {
                    let ino = self.import(dir.open_dir(&item.name)?.as_ref(), mode)?;
                    names.insert(item.name, ino);
                    continue;
                }
                FileKind::Symlink => Node::Symlink { target: dir.read_link(&item.name)? },
                _ => {
                    let mut bytes = Vec::new();
                    io::Read::read_to_end(&mut dir.open(&item.name)?, &mut bytes)?;
                    Node::File { now: bytes.clone(), durable: bytes, mode }
                }
            };
            let ino = self.add(node);
            names.insert(item.name, ino);
        }
        Ok(self.add(Node::Dir { now: names.clone(), durable: names, mode }))
    }
}

impl FaultDisk {
    /// A faulty disk over the directory `path`, with an optional plan: the number of an operation and its fault.
    pub fn new(path: &Path, plan: Option<(u64, Fault)>) -> io::Result<Self> {
        let real = open_root(path)?;
        let mut state = State { nodes: Vec::new(), operations: 0, plan, stopped: false, full: false, log: Vec::new() };
        let ino = state.import(real.as_ref(), 0o755)?;
        let state = Arc::new(Mutex::new(state));
        let root = Arc::new(FaultDir { real, ino, top: (ino, Arc::from(path)), state: Arc::clone(&state) });
        Ok(Self { state, root })
    }

    /// The directory to hand to the program.
    pub fn root(&self) -> Arc<dyn Dir> {
        self.root.clone()
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        lock(&self.state).operations
    }

    /// The operations so far, one line each, for the message of a failing sweep.
    pub fn log(&self) -> Vec<String> {
        lock(&self.state).log.clone()
    }

    /// How many operations of a kind (such as "sync") were made.
    pub fn count(&self, kind: &str) -> usize {
        lock(&self.state).log.iter().filter(|line| line.split(' ').next() == Some(kind)).count()
    }

    /// Writes what would be found after the stop into the empty directory `target`.
    pub fn image(&self, unsynced: Unsynced, target: &Path) -> io::Result<()> {
        let state = lock(&self.state);
        write_image(&state, self.root.ino, unsynced, open_root(target)?.as_ref())
    }
}

fn write_image(state: &State, ino: Ino, unsynced: Unsynced, target: &dyn Dir) -> io::Result<()> {
    let Some(Node::Dir { now, durable, .. }) = state.nodes.get(ino) else { return Ok(()) };
    let names = if unsynced == Unsynced::Lost { durable } else { now };
    for (name, &child) in names {
        match state.nodes.get(child) {
            Some(Node::Dir { mode, .. }) => {
                target.create_dir(name, 0o700)?;
                write_image(state, child, unsynced, target.open_dir(name)?.as_ref())?;
                target.set_mode(name, *mode)?;
            }
            Some(Node::Symlink { target: link }) => target.symlink(link, name)?,
            Some(Node::File { now, durable, mode }) => {
                let torn;
                let bytes = match unsynced {
                    Unsynced::Lost | Unsynced::NamesOnly => durable,
                    Unsynced::Kept => now,
                    Unsynced::Torn => {
                        torn = tear(durable, now);
                        &torn
                    }
                };
                let file = target.create(name, *mode)?;
                file.write_at(bytes, 0)?;
                file.set_mode(*mode)?;
            }
            None => {}
        }
    }
    Ok(())
}

/// Half of what changed: the bytes up to the middle of the unsynced range are new, the rest is old.
fn tear(durable: &[u8], now: &[u8]) -> Vec<u8> {
    let same = durable.iter().zip(now).take_while(|(a, b)| a == b).count();
    let middle = same + now.len().saturating_sub(same) / 2;
    let mut torn = now.get(..middle).unwrap_or(now).to_vec();
    torn.extend_from_slice(durable.get(middle..).unwrap_or(&[]));
    torn
}

impl FaultDir {
    fn unlink(&self, name: &OsStr) -> io::Result<()> {
        lock(&self.state).names(self.ino)?.remove(name);
        Ok(())
    }

    fn wrap(&self, real: Box<dyn DiskFile>, ino: Ino) -> Box<dyn DiskFile> {
        Box::new(FaultFile { real, ino, state: Arc::clone(&self.state) })
    }
}

impl Dir for FaultDir {
    fn path(&self) -> &Path {
        self.real.path()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.real.fd()
    }

    fn open_dir(&self, name: &OsStr) -> io::Result<Arc<dyn Dir>> {
        let real = self.real.open_dir(name)?;
        let ino = lock(&self.state).child(self.ino, name)?;
        Ok(Arc::new(FaultDir { real, ino, top: self.top.clone(), state: Arc::clone(&self.state) }))
    }

    fn create_dir(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        lock(&self.state).step("mkdir", name, true)?;
        self.real.create_dir(name, mode)?;
        let mut state = lock(&self.state);
        let ino = state.add(Node::Dir { now: BTreeMap::new(), durable: BTreeMap::new(), mode });
        state.names(self.ino)?.insert(name.to_owned(), ino);
        Ok(())
    }

    fn create(&self, name: &OsStr, mode: u32) -> io::Result<Box<dyn DiskFile>> {
        lock(&self.state).step("create", name, true)?;
        let real = self.real.create(name, mode)?;
        let mut state = lock(&self.state);
        let ino = state.add(Node::File { now: Vec::new(), durable: Vec::new(), mode });
        state.names(self.ino)?.insert(name.to_owned(), ino);
        drop(state);
        Ok(self.wrap(real, ino))
    }

    fn open_write(&self, name: &OsStr) -> io::Result<Box<dyn DiskFile>> {
        let real = self.real.open_write(name)?;
        let ino = lock(&self.state).child(self.ino, name)?;
        Ok(self.wrap(real, ino))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        lock(&self.state).step("rename", to, false)?;
        self.real.rename(from, to)?;
        let mut state = lock(&self.state);
        let ino = state.child(self.ino, from)?;
        let names = state.names(self.ino)?;
        names.remove(from);
        names.insert(to.to_owned(), ino);
        Ok(())
    }

    fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        if self.real.stat(to)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rename(from, to)
    }

    fn rename_new_into(&self, from: &OsStr, dir: &dyn Dir, to: &OsStr) -> io::Result<()> {
        lock(&self.state).step("rename", to, false)?;
        self.real.rename_new_into(from, dir, to)?;
        let mut state = lock(&self.state);
        let ino = state.child(self.ino, from)?;
        let target = state.find((self.top.0, &self.top.1), dir.path())?;
        state.names(self.ino)?.remove(from);
        state.names(target)?.insert(to.to_owned(), ino);
        Ok(())
    }

    fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        lock(&self.state).step("remove", name, false)?;
        self.real.remove_file(name)?;
        self.unlink(name)
    }

    fn remove_dir(&self, name: &OsStr) -> io::Result<()> {
        lock(&self.state).step("rmdir", name, false)?;
        self.real.remove_dir(name)?;
        self.unlink(name)
    }

    fn symlink(&self, target: &OsStr, name: &OsStr) -> io::Result<()> {
        lock(&self.state).step("symlink", name, true)?;
        self.real.symlink(target, name)?;
        let mut state = lock(&self.state);
        let ino = state.add(Node::Symlink { target: target.to_owned() });
        state.names(self.ino)?.insert(name.to_owned(), ino);
        Ok(())
    }

    fn set_mode(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        lock(&self.state).step("chmod", name, false)?;
        self.real.set_mode(name, mode)?;
        let mut state = lock(&self.state);
        let ino = state.child(self.ino, name)?;
        set_node_mode(&mut state, ino, mode);
        Ok(())
    }

    fn set_mtime(&self, name: &OsStr, mtime_ns: i64) -> io::Result<()> {
        lock(&self.state).step("utime", name, false)?;
        self.real.set_mtime(name, mtime_ns)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.step("syncdir", self.path().as_os_str(), false)?;
        if let Some(Node::Dir { now, durable, .. }) = state.nodes.get_mut(self.ino) {
            *durable = now.clone();
        }
        Ok(())
    }

    fn open(&self, name: &OsStr) -> io::Result<File> {
        self.real.open(name)
    }

    fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        self.real.stat(name)
    }

    fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        self.real.read_link(name)
    }

    fn list(&self) -> io::Result<Vec<DirItem>> {
        self.real.list()
    }
}

fn set_node_mode(state: &mut State, ino: Ino, new: u32) {
    if let Some(Node::File { mode, .. } | Node::Dir { mode, .. }) = state.nodes.get_mut(ino) {
        *mode = new;
    }
}

impl DiskFile for FaultFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        lock(&self.state).step("write", OsStr::new(&bytes.len().to_string()), true)?;
        self.real.write_at(bytes, offset)?;
        if let Some(Node::File { now, .. }) = lock(&self.state).nodes.get_mut(self.ino) {
            let start = offset as usize;
            let end = start + bytes.len();
            if now.len() < end {
                now.resize(end, 0);
            }
            now[start..end].copy_from_slice(bytes);
        }
        Ok(())
    }

    fn set_direct(&self, on: bool) -> io::Result<()> {
        self.real.set_direct(on)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        lock(&self.state).step("truncate", OsStr::new(&len.to_string()), true)?;
        self.real.set_len(len)?;
        if let Some(Node::File { now, .. }) = lock(&self.state).nodes.get_mut(self.ino) {
            now.resize(len as usize, 0);
        }
        Ok(())
    }

    fn clone_of(&self, _: &File) -> io::Result<()> {
        lock(&self.state).step("clone", OsStr::new(""), true)?;
        // What the clone holds would have to be read here; that a disk cannot clone is the harder case anyhow.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.step("sync", OsStr::new(""), false)?;
        if let Some(Node::File { now, durable, .. }) = state.nodes.get_mut(self.ino) {
            durable.clone_from(now);
        }
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.step("chmod", OsStr::new(""), false)?;
        set_node_mode(&mut state, self.ino, mode);
        self.real.set_mode(mode)
    }

    fn set_mtime(&self, mtime_ns: i64) -> io::Result<()> {
        lock(&self.state).step("utime", OsStr::new(""), false)?;
        self.real.set_mtime(mtime_ns)
    }

    fn stat(&self) -> io::Result<Stat> {
        self.real.stat()
    }

    fn file(&self) -> &File {
        self.real.file()
    }
}

//! Exporting to a tar file, plain or compressed, as a stream.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::Item;
use crate::base::clock::NANOS_PER_SEC;
use crate::base::disk::seq::SeqWriter;
use crate::base::disk::{IoContext, open_root};
use crate::base::monitor::Monitor;
use crate::model::path::RepoPath;
use crate::model::tree::{Entry, Node};
use crate::ops::content::ContentReader;
use crate::ops::{Error, Result};
use crate::repo::Repository;
use crate::store::objects::ObjectStore;
use crate::transform::compress::DEFAULT_LEVEL;
use crate::world::write::{Expect, NewFile};

/// What GNU tar calls an entry that holds a long name.
const LONG_LINK_NAME: &str = "././@LongLink";
/// The archive's own mode, less the umask.
const ARCHIVE_MODE: u32 = 0o666;

/// Writes an archive: complete and durable under its name, or not there.
pub(super) fn write(
    repo: &Repository,
    path: &Path,
    items: &mut dyn Iterator<Item = Result<Item>>,
    zstd: bool,
    monitor: &dyn Monitor,
) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = open_root(parent).on("open", parent)?;
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput)).on("create", path)?;
    if dir.stat(name).on("look at", path)?.is_some() {
        return Err(exists(path));
    }
    let new = NewFile::create(dir.clone(), ARCHIVE_MODE).on("create", path)?;
    let sink = SeqWriter::new(new.file(), 0);
    let objects = repo.objects();
    let archive = Archive { repo, objects: &objects, path, monitor };
    let sink = if zstd {
        let encoder = zstd::stream::write::Encoder::new(sink, DEFAULT_LEVEL).on("write", path)?;
        archive.append_all(Builder::new(encoder), items)?.finish().on("write", path)?
    } else {
        archive.append_all(Builder::new(sink), items)?
    };
    sink.finish().and_then(|_| new.file().sync()).on("write", path)?;
    // The mode that the umask left.
    let mode = new.file().stat().on("look at", path)?.mode;
    match new.finish(name.as_bytes(), mode, None, Expect::Absent) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(path)),
        finished => finished.on("create", path)?,
    };
    Ok(dir.sync().on("sync", parent)?)
}

fn exists(path: &Path) -> Error {
    Error::Refused { message: format!("{} exists already", path.display()), hint: "remove it, or choose another name" }
}

/// What is needed for every entry.
struct Archive<'a> {
    repo: &'a Repository,
    objects: &'a ObjectStore,
    path: &'a Path,
    monitor: &'a dyn Monitor,
}

impl Archive<'_> {
    fn append_all<W: Write>(&self, mut tar: Builder<W>, items: &mut dyn Iterator<Item = Result<Item>>) -> Result<W> {
        for item in items {
            let (path, entry) = item?;
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            self.append(&mut tar, &path, &entry)?;
        }
        Ok(tar.into_inner().on("write", self.path)?)
    }

    fn append<W: Write>(&self, tar: &mut Builder<W>, path: &RepoPath, entry: &Entry) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(entry.meta.mode);
        header.set_uid(0);
        header.set_gid(0);
        // The format has whole seconds since 1970 and nothing before.
        header.set_mtime(u64::try_from(entry.meta.mtime_ns.div_euclid(NANOS_PER_SEC)).unwrap_or(0));
        header.set_size(0);
        let mut len_bytes = 0;
        match &entry.node {
            Node::Dir { .. } => {
                header.set_entry_type(EntryType::Directory);
                let with_slash = [path.as_bytes(), b"/"].concat();
                let name = OsStr::from_bytes(&with_slash);
                tar.append_data(&mut header, name, io::empty()).on("write", self.path)?;
            }
            Node::Symlink { target } => {
                header.set_entry_type(EntryType::Symlink);
                self.append_link(tar, &mut header, path, target)?;
            }
            Node::File { len, content } => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(*len);
                len_bytes = *len;
                let mut reader = ContentReader::whole(self.repo, self.objects, content, *len)?;
                let appended = tar.append_data(&mut header, path.as_os_str(), &mut reader);
                // What the repository says of a failure is worth more than that the archive was not written.
                if let Some(failure) = reader.take_failure() {
                    return Err(failure.into());
                }
                appended.on("write", self.path)?;
            }
        }
        self.monitor.advance(1, len_bytes);
        Ok(())
    }

    /// The crate cleans link targets (`a//b`, `./a`), which must stay as they are: short ones go into the header as bytes, long ones
    /// into an entry of their own before it, as GNU tar does it.
    fn append_link<W: Write>(
        &self,
        tar: &mut Builder<W>,
        header: &mut Header,
        path: &RepoPath,
        target: &[u8],
    ) -> Result<()> {
        if header.set_link_name_literal(target).is_err() {
            let mut long = Header::new_gnu();
            long.set_entry_type(EntryType::GNULongLink);
            long.set_size(target.len() as u64 + 1);
            let ended = [target, b"\0"].concat();
            tar.append_data(&mut long, LONG_LINK_NAME, ended.as_slice()).on("write", self.path)?;
        }
        Ok(tar.append_data(header, path.as_os_str(), io::empty()).on("write", self.path)?)
    }
}

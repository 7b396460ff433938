//! `.digignore`: gitignore syntax, nested, by the `ignore` crate.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::globs::glob_of;
use crate::base::disk::Dir;
use crate::base::size::ByteSize;
use crate::model::path::RepoPath;

/// The name of ignore files.
pub const FILE_NAME: &str = ".digignore";
/// Rules are written by people; a larger file is something else.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Some editors begin a file with it; git skips it as well.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The rules that hold in a folder: its own, then those of the folders above.
#[derive(Debug, Clone, Default)]
pub struct Rules(Option<Arc<Level>>);

#[derive(Debug)]
struct Level {
    own: Gitignore,
    above: Rules,
}

impl Rules {
    /// The rules inside `folder`, given those outside, and a sentence for each line that is no pattern and left out, as in git.
    /// Reads its ignore file; `has_file` spares looking for one.
    ///
    /// # Errors
    /// The file cannot be read or is too long.
    pub fn enter(&self, dir: &dyn Dir, folder: &RepoPath, has_file: bool) -> Result<(Self, Vec<String>), String> {
        if !has_file {
            return Ok((self.clone(), Vec::new()));
        }
        let shown = dir.path().join(FILE_NAME);
        let mut text = Vec::new();
        let read =
            dir.open(OsStr::new(FILE_NAME)).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text));
        read.map_err(|error| format!("cannot read {}: {error}", shown.display()))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(format!(
                "{} is longer than {}: rules are written by people",
                shown.display(),
                ByteSize(MAX_FILE_BYTES)
            ));
        }
        let (rules, wrong) = self.with(folder, &text).map_err(|why| format!("{}: {why}", shown.display()))?;
        let wrong = wrong.into_iter().map(|(line, why)| format!("{}, line {line} is left out: {why}", shown.display()));
        Ok((rules, wrong.collect()))
    }

    /// The rules inside `folder`, given those outside and the text of its ignore file; and the number of each line that is no pattern,
    /// and why.
    ///
    /// # Errors
    /// The patterns are too much together.
    pub fn with(&self, folder: &RepoPath, text: &[u8]) -> Result<(Self, Vec<(usize, String)>), String> {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let mut builder = GitignoreBuilder::new(Path::new(folder.as_os_str()));
        let mut wrong = Vec::new();
        for (line, number) in String::from_utf8_lossy(text).lines().zip(1..) {
            let added = glob_of(line)
                .map_err(str::to_owned)
                .and_then(|glob| builder.add_line(None, &glob).map(drop).map_err(|error| error.to_string()));
            wrong.extend(added.err().map(|why| (number, why)));
        }
        let own = builder.build().map_err(|error| error.to_string())?;
        Ok((Self(Some(Arc::new(Level { own, above: self.clone() }))), wrong))
    }

    /// Is the path ignored? The innermost file that says something decides. Folders above are not asked: nothing in an
    /// ignored folder is ever reached.
    pub fn ignores(&self, path: &RepoPath, is_dir: bool) -> bool {
        let mut rules = self;
        while let Some(level) = &rules.0 {
            match level.own.matched(Path::new(OsStr::from_bytes(path.as_bytes())), is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => rules = &level.above,
            }
        }
        false
    }
}

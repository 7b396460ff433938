//! Changing one key of a file, and leaving every other byte as it is.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use digstore::base::disk::{IoContext, open_or_create, write_atomic};
use toml::de::DeTable;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::error::{ConfigError, Place};
use super::file;
use super::keys::{DESCRIPTION, KEYS, Key, PERFORMANCE, PROFILES, find, find_full, nearest_in_profile, profile_row};
use super::profiles::Profiles;
use super::value::Raw;
use super::{Config, unknown};

/// A new configuration file is as readable as any other; it holds no secrets.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// Sets a key, or a key of a profile (`profiles.NAME.KEY`), in a file that need not exist yet: one of `files`, which count one after
/// the other. A profile that is chosen may be defined in any of them, or in the program.
///
/// # Errors
/// Also if the files would not be good ones afterwards; it stays as it was then.
pub fn set(file: &Path, key: &str, value: &str, files: &[PathBuf]) -> Result<(), ConfigError> {
    let target = Target::find(key)?;
    let mut document = parse(&text_of(file)?, file)?;
    let raw = target.key.map_or_else(|| Raw::Text(value.to_owned()), |key| key.raw(value));
    if let Some(known) = target.key {
        known.put(&mut super::Values::default(), &raw).map_err(|message| ConfigError::BadValue {
            place: None,
            key: key.to_owned(),
            message,
        })?;
    }
    let table = target.table(&mut document, file)?;
    let name = match target.other_name() {
        Some(other) if !table.contains_key(target.name()) && table.contains_key(other) => other,
        other => {
            other.and_then(|other| table.remove(other));
            target.name()
        }
    };
    put(table, name, raw.to_toml());
    let text = document.to_string();
    let content = file::parse(&text, file)?;
    let chooses = find_full(key).is_some_and(|row| Some(row) == profile_row());
    if chooses && !value.is_empty() {
        find_profile(value, &content, files)?;
    }
    check(file, content, files)?;
    write(file, &text)
}

/// Removes a key from a file, known or not, whichever of its names it has there; says whether it was there.
///
/// # Errors
/// Also if the files would not be good ones afterwards, though they are now.
pub fn unset(file: &Path, key: &str, files: &[PathBuf]) -> Result<bool, ConfigError> {
    if key == PROFILES || KEYS.iter().any(|known| known.section == key) {
        let message = "it is a section; name one of its keys".to_owned();
        return Err(ConfigError::BadValue { place: None, key: key.to_owned(), message });
    }
    let mut paths: Vec<Vec<&str>> = vec![key.split('.').collect()];
    if let Ok(target) = Target::find(key) {
        let names = [Some(target.name()), target.other_name()];
        paths.extend(names.into_iter().flatten().map(|name| [target.tables.as_slice(), &[name]].concat()));
    }
    let before = text_of(file)?;
    let mut text = before.clone();
    for path in paths {
        text = without(&text, &path, file)?.unwrap_or(text);
    }
    if text == before {
        return Ok(false);
    }
    if let Ok(content) = file::parse(&text, file) {
        check(file, content, files)?;
    }
    write(file, &text)?;
    Ok(true)
}

/// The text of a file without a key or table; `None` if it is not there.
fn without(text: &str, path: &[&str], file: &Path) -> Result<Option<String>, ConfigError> {
    // A line goes as it stands, so that comments around it stay.
    if let Some(line) = line_of(text, path) {
        return Ok(Some([text.get(..line.start), text.get(line.end..)].into_iter().flatten().collect()));
    }
    let mut document = parse(text, file)?;
    let Some((last, tables)) = path.split_last() else { return Ok(None) };
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for name in tables {
        match table.get_mut(name).and_then(Item::as_table_like_mut) {
            Some(inner) => table = inner,
            None => return Ok(None),
        }
    }
    Ok(table.remove(last).map(|_| document.to_string()))
}

/// The line, or lines, of a key that shares them with no other.
fn line_of(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let (last, tables) = path.split_last()?;
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    for name in tables {
        table = table.get(*name)?.get_ref().as_table()?;
    }
    let (key, value) = table.get_key_value(*last).filter(|(_, value)| !value.get_ref().is_table())?;
    let start = text.get(..key.span().start)?.rfind('\n').map_or(0, |end| end + 1);
    let before = text.get(start..key.span().start)?;
    let behind = text.get(value.span().end..)?.split_inclusive('\n').next().unwrap_or_default();
    let is_alone = !before.contains(['{', '=']) && (behind.trim().is_empty() || behind.trim_start().starts_with('#'));
    is_alone.then(|| start..value.span().end + behind.len())
}

/// Files that are good together must not become such that nothing works any more. Those that are not may be mended one by one.
fn check(file: &Path, content: file::FileContent, files: &[PathBuf]) -> Result<(), ConfigError> {
    let there: Result<Vec<_>, _> = files.iter().filter_map(|path| file::read(path).transpose()).collect();
    let good = there.and_then(|there| Config::assemble(&there, None).map(|_| there));
    let Ok(there) = good else {
        return Config::assemble(&[without_choice(content)], None).map(drop);
    };
    let as_will_be = |path: &PathBuf| match path == file {
        true => Some(content.clone()),
        false => there.iter().find(|other| other.path == *path).cloned(),
    };
    Config::assemble(&files.iter().filter_map(as_will_be).collect::<Vec<_>>(), None).map(drop)
}

/// What is to be set: a row of the table or the description of a profile, and the tables on the way to it.
struct Target<'a> {
    tables: Vec<&'a str>,
    key: Option<&'static Key>,
}

impl<'a> Target<'a> {
    fn find(name: &'a str) -> Result<Self, ConfigError> {
        if let [PROFILES, profile, key] = name.split('.').collect::<Vec<_>>()[..] {
            let row = find(PERFORMANCE, key).and_then(|row| KEYS.get(row));
            if row.is_none() && key != DESCRIPTION {
                let nearest = nearest_in_profile(profile, key);
                return Err(ConfigError::UnknownKey { place: None, key: name.to_owned(), nearest });
            }
            return Ok(Self { tables: vec![PROFILES, profile], key: row });
        }
        let key = find_full(name).and_then(|row| KEYS.get(row)).ok_or_else(|| unknown(name))?;
        Ok(Self { tables: vec![key.section], key: Some(key) })
    }

    fn name(&self) -> &'static str {
        self.key.map_or(DESCRIPTION, |key| key.name)
    }

    /// A key under two names would be set twice.
    fn other_name(&self) -> Option<&'static str> {
        self.key.and_then(|key| key.alias)
    }

    fn table<'d>(&self, document: &'d mut DocumentMut, file: &Path) -> Result<&'d mut dyn TableLike, ConfigError> {
        let mut table: &mut dyn TableLike = document.as_table_mut();
        for (depth, name) in self.tables.iter().enumerate() {
            let mut new = Table::new();
            // A table that holds tables only needs no line of its own.
            new.set_implicit(depth + 1 < self.tables.len());
            let item = table.entry(name).or_insert(Item::Table(new));
            table = item.as_table_like_mut().ok_or_else(|| ConfigError::BadValue {
                place: None,
                key: (*name).to_owned(),
                message: format!("it is not a table in {}", file.display()),
            })?;
        }
        Ok(table)
    }
}

/// Sets a value; the space and the comment around the old one stay.
fn put(table: &mut dyn TableLike, name: &str, mut value: Value) {
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(name, Item::Value(value));
        }
    }
}

/// Fails unless there is a profile of this name. A file that cannot be read defines none that could be used.
fn find_profile(name: &str, content: &file::FileContent, files: &[PathBuf]) -> Result<(), ConfigError> {
    let mut profiles = Profiles::built_in()?;
    profiles.add(content);
    files.iter().filter_map(|path| file::read(path).ok().flatten()).for_each(|other| profiles.add(&other));
    profiles.find(name, None).map(drop)
}

/// A file is checked by itself, and the profile that it chooses may be in another one.
fn without_choice(mut content: file::FileContent) -> file::FileContent {
    let row = profile_row();
    content.assigned.retain(|assigned| Some(assigned.row) != row);
    content
}

fn text_of(file: &Path) -> Result<String, ConfigError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).on("read", file)?,
    }
}

fn parse(text: &str, file: &Path) -> Result<DocumentMut, ConfigError> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let place = Place { file: file.to_path_buf(), line: before.matches('\n').count() + 1 };
        ConfigError::Syntax { place, message: error.message().to_owned() }
    })
}

fn write(file: &Path, text: &str) -> Result<(), ConfigError> {
    // Many keep their configuration elsewhere and link to it; the link must not be replaced.
    let file = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
    let file = std::path::absolute(&file).on("find", &file)?;
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(std::io::Error::from(ErrorKind::IsADirectory)).on("write", &file)?;
    };
    let dir = open_or_create(folder, FOLDER_MODE)?;
    let mode = dir.stat(name).on("look at", &file)?.map_or(FILE_MODE, |stat| stat.mode);
    Ok(write_atomic(dir.as_ref(), name, mode, text.as_bytes()).on("write", &file)?)
}

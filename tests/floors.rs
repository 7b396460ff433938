//! The library is built in floors: a room uses itself and rooms on lower floors, and nothing else.
//!
//! This test reads the sources as text. It finds every path that starts at the crate's root (`crate::room`, also in
//! groups, and `super` as often as it takes to get there) and compares the rooms on both ends with the table. The
//! binary (`main.rs` and `cli/`) is not looked at: the compiler keeps the library from using it.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its input fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms and their floors, in the order in which they stand.
const FLOORS: [(&str, u32); 8] =
    [("base", 1), ("model", 2), ("transform", 3), ("format", 4), ("store", 5), ("world", 5), ("repo", 6), ("ops", 7)];

/// What stands beside the rooms in `src/`: the crate's root and the binary.
const NO_ROOMS: [&str; 3] = ["lib.rs", "main.rs", "cli"];

fn floor(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// Whether code in room `from` may use room `to`. Two rooms on one floor do not know each other.
fn may_use(from: &str, to: &str) -> bool {
    match (floor(from), floor(to)) {
        (Some(own), Some(other)) => from == to || other < own,
        _ => false,
    }
}

// ---- Reading Rust as tokens ----

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    PathSep,
    Sign(char),
}

impl Token {
    fn is_word(&self, text: &str) -> bool {
        matches!(self, Token::Word(word) if word == text)
    }
}

/// A token and the line it is on.
type Placed = (Token, usize);

/// The tokens of a source text that matter here. Comments, strings, characters and numbers are left out.
fn tokens(source: &str) -> Vec<Placed> {
    let text: Vec<char> = source.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while let Some(&c) = text.get(at) {
        let rest = &text[at..];
        let len = match c {
            '/' if rest.starts_with(&['/', '/']) => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
            '/' if rest.starts_with(&['/', '*']) => block_comment_len(rest),
            '"' => quoted_len(rest, '"'),
            '\'' => char_or_lifetime_len(rest),
            ':' if rest.starts_with(&[':', ':']) => {
                found.push((Token::PathSep, line));
                2
            }
            _ if c.is_alphanumeric() || c == '_' => {
                let len = rest.iter().position(|c| !c.is_alphanumeric() && *c != '_').unwrap_or(rest.len());
                let word: String = rest[..len].iter().collect();
                if let Some(tail) = raw_string_len(&word, &rest[len..]) {
                    len + tail
                } else {
                    if !c.is_ascii_digit() {
                        found.push((Token::Word(word), line));
                    }
                    len
                }
            }
            _ => {
                if !c.is_whitespace() {
                    found.push((Token::Sign(c), line));
                }
                1
            }
        };
        line += rest[..len].iter().filter(|&&c| c == '\n').count();
        at += len;
    }
    found
}

/// The length of a block comment, which may hold others.
fn block_comment_len(text: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if rest.starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of a literal that begins and ends with `quote` and knows the backslash.
fn quoted_len(text: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// A quote begins a character if a backslash follows, or if a second quote comes after one character.
fn char_or_lifetime_len(text: &[char]) -> usize {
    match text {
        [_, '\\', ..] | [_, _, '\'', ..] => quoted_len(text, '\''),
        _ => 1,
    }
}

/// The length of the rest of a raw string whose prefix is `word`, or nothing if no raw string begins here.
fn raw_string_len(word: &str, rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().take_while(|&&c| c == '#').count();
    if !matches!(word, "r" | "br" | "cr") || rest.get(hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = &rest[hashes + 1..];
    let len = body.windows(end.len()).position(|window| window == end).unwrap_or(body.len());
    Some((hashes + 1 + len + end.len()).min(rest.len()))
}

// ---- Finding the paths ----

/// What one file uses of the crate, and what it does that hides uses from this test.
#[derive(Debug, Default)]
struct Findings {
    /// Name of the thing at the crate's root, and the line.
    uses: Vec<(String, usize)>,
    /// Complaint and line.
    faults: Vec<(String, usize)>,
}

/// Scans a file that is the module `depth` levels below the crate's root (`store/mod.rs`: 1, `store/cache.rs`: 2).
fn scan(source: &str, depth: usize) -> Findings {
    let tokens = tokens(source);
    let mut findings = Findings::default();
    let mut inline_modules: Vec<usize> = Vec::new();
    let mut braces = 0;
    for at in 0..tokens.len() {
        let line = tokens[at].1;
        let next = |n: usize| tokens.get(at + n).map(|(token, _)| token);
        if let Some(what) = evasion(&tokens, at) {
            fault(&mut findings, what, line);
        }
        match &tokens[at].0 {
            Token::Sign('{') => {
                braces += 1;
                if at >= 2 && tokens[at - 2].0.is_word("mod") && matches!(tokens[at - 1].0, Token::Word(_)) {
                    inline_modules.push(braces);
                }
            }
            Token::Sign('}') => {
                if inline_modules.last() == Some(&braces) {
                    inline_modules.pop();
                }
                braces -= 1;
            }
            Token::Word(word) if word == "crate" && next(1) == Some(&Token::PathSep) => {
                take_names(&tokens[at + 2..], &mut findings);
            }
            Token::Word(word) if word == "super" => {
                let in_chain = at >= 2 && tokens[at - 1].0 == Token::PathSep && tokens[at - 2].0.is_word("super");
                if !in_chain {
                    let ups = supers(&tokens[at..]);
                    if ups >= 3 {
                        fault(&mut findings, "climbs with super::super::super", line);
                    }
                    if ups >= depth + inline_modules.len() && next(2 * ups - 1) == Some(&Token::PathSep) {
                        take_names(&tokens[at + 2 * ups..], &mut findings);
                    }
                }
            }
            _ => {}
        }
    }
    findings
}

/// What a file must not do because this test would no longer see what it uses.
fn evasion(tokens: &[Placed], at: usize) -> Option<&'static str> {
    let here = |n: usize, text: &str| tokens.get(at + n).is_some_and(|(token, _)| token.is_word(text));
    let sign = |n: usize, sign: char| tokens.get(at + n).is_some_and(|(token, _)| *token == Token::Sign(sign));
    if here(0, "crate") && here(1, "as") {
        Some("gives the crate another name")
    } else if here(0, "extern") && here(1, "crate") {
        Some("has an extern crate")
    } else if here(0, "include") && sign(1, '!') {
        Some("includes another file's code")
    } else if sign(0, '#') && sign(1, '[') && here(2, "path") && sign(3, '=') {
        Some("places a module with #[path]")
    } else {
        None
    }
}

fn fault(findings: &mut Findings, what: &str, line: usize) {
    findings.faults.push((what.to_owned(), line));
}

/// How many `super` follow each other here.
fn supers(tokens: &[Placed]) -> usize {
    let mut count = 0;
    while tokens.get(2 * count).is_some_and(|(token, _)| token.is_word("super")) {
        count += 1;
        if tokens.get(2 * count - 1).map(|(token, _)| token) != Some(&Token::PathSep) {
            break;
        }
    }
    count
}

/// Takes what stands behind `crate::`: one name, or the first name of each member of a group.
fn take_names(tokens: &[Placed], findings: &mut Findings) {
    let mut depth = 0;
    let mut at_start = true;
    for (token, line) in tokens {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            Token::Sign(',') if depth == 1 => at_start = true,
            Token::PathSep if at_start => {}
            Token::Sign('*') if at_start => {
                fault(findings, "imports everything of the crate", *line);
                at_start = false;
            }
            Token::Word(word) if at_start => {
                findings.uses.push((word.clone(), *line));
                at_start = false;
            }
            _ => {}
        }
        if depth <= 0 {
            break;
        }
    }
}

// ---- The sources ----

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below `folder`.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in names_in(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files
}

/// How many levels below the crate's root the module in a file is; `path` starts in `src/`.
fn module_depth(path: &Path) -> usize {
    let parts = path.components().count();
    if path.ends_with("mod.rs") { parts - 1 } else { parts }
}

/// What a file of `room` does that it must not do, and the rooms that it uses.
fn judge(room: &str, path: &Path, source: &str) -> (Vec<String>, BTreeSet<String>) {
    let findings = scan(source, module_depth(path));
    let place = |line: usize| format!("src/{}:{line}", path.display());
    let mut complaints: Vec<String> =
        findings.faults.iter().map(|(what, line)| format!("{} {what}", place(*line))).collect();
    for (name, line) in &findings.uses {
        if floor(name).is_none() {
            complaints.push(format!("{} uses crate::{name}, which is no room", place(*line)));
        } else if !may_use(room, name) {
            complaints.push(format!("{} uses {name}, which is not below {room}", place(*line)));
        }
    }
    let rooms = findings.uses.into_iter().map(|(name, _)| name).filter(|name| floor(name).is_some() && name != room);
    (complaints, rooms.collect())
}

/// A cycle in the graph of rooms, if there is one.
fn find_cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        room: &str,
        graph: &BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|step| step == room) {
            return Some(way[start..].to_vec());
        }
        if !done.contains(room) {
            way.push(room.to_owned());
            for next in graph.get(room).into_iter().flatten() {
                if let Some(cycle) = visit(next, graph, way, done) {
                    return Some(cycle);
                }
            }
            way.pop();
            done.insert(room.to_owned());
        }
        None
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|room| visit(room, graph, &mut Vec::new(), &mut done))
}

/// Items of the crate's root that are neither a module declaration nor a re-export, by their lines.
fn foreign_items(source: &str) -> Vec<usize> {
    let tokens = tokens(source);
    let mut lines = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is = |n: usize, text: &str| tokens.get(at + n).is_some_and(|(token, _)| token.is_word(text));
        let end_of = |end: char| {
            tokens[at..].iter().position(|(token, _)| *token == Token::Sign(end)).map_or(tokens.len(), |n| at + n + 1)
        };
        if tokens[at].0 == Token::Sign('#') {
            at = end_of(']');
        } else if is(0, "pub") && (is(1, "mod") || is(1, "use")) || is(0, "mod") {
            let end = end_of(';');
            let has_body = is(0, "mod") || is(1, "mod");
            if has_body && tokens[at..end].iter().any(|(token, _)| *token == Token::Sign('{')) {
                lines.push(tokens[at].1);
            }
            at = end;
        } else {
            lines.push(tokens[at].1);
            at = end_of(';').min(end_of('}'));
        }
    }
    lines
}

/// Whether a module's source opens with its documentation: a heading and a text.
fn opens_with_paragraph(source: &str) -> bool {
    let docs = source.lines().take_while(|line| line.starts_with("//!"));
    docs.filter(|line| line.len() > "//! ".len()).count() >= 2
}

// ---- The rules ----

#[test]
fn every_room_uses_only_floors_below() {
    let root = source_root();
    let mut complaints = Vec::new();
    let mut graph = BTreeMap::new();
    for (room, _) in FLOORS {
        let used: &mut BTreeSet<String> = graph.entry(room.to_owned()).or_default();
        for file in rust_files(&root.join(room)) {
            let (faults, rooms) = judge(room, file.strip_prefix(&root).unwrap(), &read(&file));
            complaints.extend(faults);
            used.extend(rooms);
        }
    }
    assert!(complaints.is_empty(), "the floors are broken:\n{}", complaints.join("\n"));
    assert_eq!(find_cycle(&graph), None, "rooms that use each other");
}

#[test]
fn everything_in_src_is_a_room_of_the_table() {
    let strangers: Vec<String> = names_in(&source_root())
        .into_iter()
        .filter(|name| floor(name).is_none() && !NO_ROOMS.contains(&name.as_str()))
        .collect();
    assert!(strangers.is_empty(), "in src/ but on no floor: {strangers:?}");
}

#[test]
fn the_root_only_declares() {
    let lines = foreign_items(&read(&source_root().join("lib.rs")));
    assert!(lines.is_empty(), "src/lib.rs holds more than modules and re-exports, on the lines {lines:?}");
}

#[test]
fn every_folder_opens_with_a_paragraph() {
    let root = source_root();
    for (room, _) in FLOORS {
        assert!(root.join(room).join("mod.rs").is_file(), "src/{room}/mod.rs is missing");
        for file in rust_files(&root.join(room)).iter().filter(|file| file.ends_with("mod.rs")) {
            assert!(opens_with_paragraph(&read(file)), "{} does not open with a //! text", file.display());
        }
    }
}

// ---- The check can fail ----

/// The complaints about `source` as the file `path`.
fn complaints(path: &str, source: &str) -> Vec<String> {
    judge(path.split('/').next().unwrap(), Path::new(path), source).0
}

#[test]
fn planted_upward_uses_are_found() {
    for (path, source) in [
        ("base/size.rs", "use crate::model::id::ChunkId;"),
        ("base/size.rs", "fn f() { let x = crate :: ops::add(); }"),
        ("store/cache.rs", "use crate::{base::size, model::{self, id}, world::walk};"),
        ("world/walk.rs", "use crate::store::StoreError;"),
        ("store/mod.rs", "use super::repo::Repository;"),
        ("store/cache.rs", "pub use super::super::repo::Repository;"),
        ("store/cache.rs", "use super::super::{base::size, repo::Repository};"),
        ("store/cache.rs", "mod tests { use super::super::super::ops; }"),
        ("store/mod.rs", "mod tests { fn f() {} use super::super::ops::add; }"),
        ("store/mod.rs", "mod inner { fn f() {} } use super::ops::add;"),
        ("model/id.rs", "macro_rules! m { () => { $crate::repo::open() } }"),
        ("model/id.rs", "const A: &str = \"\\\"\"; const B: char = '\"'; use crate::ops; const C: char = '\"';"),
        ("model/id.rs", "const A: &str = r#\"\"\"#; fn f<'a>(x: &'a u8) { crate::ops::f('x', x) }"),
        ("model/id.rs", "/* /* */ */ use crate::ops;"),
        ("model/id.rs", "use crate::Repository;"),
        ("ops/add.rs", "use crate::*;"),
        ("ops/add.rs", "use crate::{base::size, *};"),
        ("ops/add.rs", "use crate as digstore;"),
        ("ops/add.rs", "extern crate digstore;"),
        ("ops/add.rs", "#[path = \"../base/size.rs\"] mod size;"),
        ("ops/add.rs", "include!(\"x.rs\");"),
        ("ops/a/b/c.rs", "use super::super::super::x;"),
    ] {
        assert!(!complaints(path, source).is_empty(), "not found in {path}: {source}");
    }
}

#[test]
fn downward_uses_comments_and_strings_are_no_complaint() {
    for (path, source) in [
        ("store/cache.rs", "use crate::{base::size, model::{self, id}, store::journal};"),
        ("store/journal/state.rs", "use super::super::StoreError; pub(crate) fn f() {} pub(in crate::store) fn g() {}"),
        ("store/cache.rs", "#[cfg(test)] mod tests { use super::*; use super::super::StoreError; }"),
        ("base/size.rs", "// use crate::ops;\n/* crate::ops /* crate::ops */ crate::ops */ /// [`crate::ops`]"),
        ("base/size.rs", "const A: &str = \"crate::ops \\\" crate::ops\"; const B: &[u8] = br##\"crate::ops\"# \"##;"),
        ("ops/add.rs", "use crate::world::walk::walk; use crate::store; fn f(path: u8) { let path = path; }"),
    ] {
        assert_eq!(complaints(path, source), Vec::<String>::new(), "in {path}: {source}");
    }
    assert_eq!(
        complaints("base/size.rs", "\n/* \n */ use crate::ops;"),
        ["src/base/size.rs:3 uses ops, which is not below base"]
    );
}

#[test]
fn planted_cycles_items_and_missing_texts_are_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    };
    assert_eq!(find_cycle(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert_eq!(find_cycle(&graph(&[("a", "b"), ("b", "c"), ("c", "b")])).unwrap(), ["b", "c"]);

    assert_eq!(foreign_items("//! Text.\n#![deny(x)]\npub mod a;\nmod b;\npub use a::{B, C};"), Vec::<usize>::new());
    assert_eq!(foreign_items("pub mod a;\npub fn f() {}\npub const A: u8 = 1;\nmod b { }"), [2, 3, 4]);

    assert!(opens_with_paragraph("//! Heading.\n//!\n//! Text.\n\npub mod a;"));
    assert!(!opens_with_paragraph("//! Heading.\n\npub mod a;"));
    assert!(!opens_with_paragraph("use x;\n//! Heading.\n//! Text."));
}

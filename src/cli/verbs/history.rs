//! What looks at history and names it.

use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

use data_encoding::BASE64;
use digstore::ops::{cat, diff, export, log, ls, refs, show};
use digstore::repo::Repository;
use digstore::store::refs::RefKind;
use serde_json::json;

use super::{Done, unless_quiet};
use crate::cli::app::{App, Opened, Report};
use crate::cli::args::history::{
    BranchArgs, CatArgs, DiffArgs, DiffStyle, ExportArgs, LogArgs, LsArgs, ShowArgs, TagArgs,
};
use crate::cli::args::parse::marked_checkpoint;
use crate::cli::exit::{Exit, Failure};
use crate::cli::render::{changes, count, history};

pub fn log(app: &App, args: &LogArgs) -> Done {
    let at = app.open()?;
    let (revisions, paths) = at.revisions_and_paths(&args.targets, &args.paths, 1)?;
    let options = log::Options { revision: revisions.into_iter().next(), max_count: args.max_count, paths };
    let outcome = log::log(&at.repo, &options, app.monitor())?;
    let text = history::log(&outcome.commits, args.oneline, app.paint);
    Ok(app.report(&outcome, text))
}

pub fn needs_content(app: &App, style: &DiffStyle) -> bool {
    !style.name_only || app.global.json
}

pub fn show(app: &App, args: ShowArgs) -> Done {
    let at = app.open()?;
    let options = show::Options { revision: Some(args.revision), content: needs_content(app, &args.style) };
    if app.global.json {
        return Ok(app.report(&show::show(&at.repo, &options, app.monitor())?, String::new()));
    }
    let (commit, sides) = show::find(&at.repo, &options)?;
    app.print(history::show(&commit, app.paint).as_bytes())?;
    differences(app, &at.repo, &sides, &args.style)
}

/// Shows what differs as it is found: all of it may be longer than memory.
pub fn differences(app: &App, repo: &Repository, options: &diff::Options, style: &DiffStyle) -> Done {
    if app.global.json {
        return Ok(app.report(&diff::diff(repo, options, app.monitor())?, String::new()));
    }
    let (mut printed, mut total) = (Ok(()), changes::DiffTotal::default());
    let found = diff::diff_each(repo, options, app.monitor(), &mut |file| {
        total.count(&file);
        if printed.is_ok() {
            printed = app.print(changes::diff(&file, style, app.paint).as_bytes());
        }
        if printed.is_err() {
            app.progress.cancel();
        }
    });
    printed?;
    found?;
    if style.stat && !total.is_empty() {
        app.print(total.text().as_bytes())?;
    }
    Ok(Report::printed())
}

pub fn diff(app: &App, args: &DiffArgs) -> Done {
    use diff::Side;
    let at = app.open()?;
    let max_revisions = if args.staged { 1 } else { 2 };
    let (revisions, paths) = at.revisions_and_paths(&args.targets, &args.paths, max_revisions)?;
    let mut revisions = revisions.into_iter().map(Side::Revision);
    let head = || match at.repo.head_commit() {
        Ok(None) => Side::Empty,
        _ => Side::Revision("HEAD".to_owned()),
    };
    let (old, new) = match (revisions.next(), revisions.next()) {
        (old, _) if args.staged => (old.unwrap_or_else(head), Side::Staging),
        (None, _) => (Side::Staging, Side::WorkTree),
        // A checkpoint holds what is not tracked as well.
        (Some(Side::Revision(old)), None) if marked_checkpoint(&old).is_some() => (Side::Revision(old), Side::Disk),
        (Some(old), None) => (old, Side::WorkTree),
        (Some(old), Some(new)) => (old, new),
    };
    let content = needs_content(app, &args.style);
    let options = diff::Options { paths, content, context_lines: args.unified, ..diff::Options::new(old, new) };
    differences(app, &at.repo, &options, &args.style)
}

pub fn export(app: &App, args: &ExportArgs) -> Done {
    let at = app.open()?;
    let (revision, path) = Opened::stored_path(&args.target)?;
    let to = app.base.join(&args.to);
    let name = to.as_os_str().as_bytes();
    let target = match (name.ends_with(b".tar"), name.ends_with(b".tar.zst")) {
        (false, false) => export::Target::Dir(to),
        (_, zstd) => export::Target::Tar { path: to, zstd },
    };
    let options = export::Options { revision: Some(revision), path: path.unwrap_or_default(), target };
    let outcome = export::export(&at.repo, &options, app.monitor())?;
    let text = unless_quiet(app, || {
        let (files, links, dirs) =
            (count(outcome.files, "file"), count(outcome.links, "link"), count(outcome.dirs, "folder"));
        let size = digstore::base::size::ByteSize(outcome.bytes);
        format!("Exported {files} ({size}), {links}, {dirs} to {}.\n", args.to.display())
    });
    let report = app.report(&outcome, text);
    Ok(report.exit_if(outcome.failed > 0, Exit::Failed).exit_if(outcome.damaged > 0, Exit::Damaged))
}

pub fn branch(app: &App, args: BranchArgs) -> Done {
    let BranchArgs { name, revision, delete, rename, force } = args;
    let action = match (name, revision) {
        (None, _) => refs::Action::List,
        (Some(name), _) if delete => refs::Action::Delete { name, force },
        (Some(name), Some(new_name)) if rename => refs::Action::Rename { name, new_name, force },
        (Some(name), revision) => refs::Action::Create { name, revision, force },
    };
    change_refs(app, RefKind::Branch, action)
}

pub fn tag(app: &App, args: TagArgs) -> Done {
    let TagArgs { name, revision, delete, force } = args;
    let action = match name {
        None => refs::Action::List,
        Some(name) if delete => refs::Action::Delete { name, force },
        Some(name) => refs::Action::Create { name, revision, force },
    };
    change_refs(app, RefKind::Tag, action)
}

fn change_refs(app: &App, kind: RefKind, action: refs::Action) -> Done {
    let at = app.open()?;
    let is_list = matches!(action, refs::Action::List);
    let outcome = refs::refs(&at.repo, &refs::Options { kind, action }, app.monitor())?;
    let text = if is_list {
        history::refs(&outcome, app.paint)
    } else {
        unless_quiet(app, || history::refs(&outcome, app.paint))
    };
    Ok(app.report(&outcome, text))
}

pub fn cat(app: &App, args: &CatArgs) -> Done {
    let at = app.open()?;
    let (revision, Some(path)) = Opened::stored_path(&args.target)? else {
        let hint = "write REV:PATH, such as HEAD:src/main.rs";
        return Err(Failure::usage(format!("'{}' names no path", args.target.display()), hint));
    };
    let options = cat::Options { revision: Some(revision), path, range: args.bytes };
    if app.global.json {
        let mut bytes = Vec::new();
        let outcome = cat::cat(&at.repo, &options, &mut bytes, app.monitor())?;
        let json =
            json!({ "bytes": outcome.bytes, "blocks_read": outcome.blocks_read, "base64": BASE64.encode(&bytes) });
        return Ok(app.report(&json, String::new()));
    }
    let mut out = app.out();
    let outcome = cat::cat(&at.repo, &options, &mut out, app.monitor())?;
    out.flush()?;
    let blocks = count(outcome.blocks_read, "block");
    Ok(app.report(&outcome, String::new()).note(app.global.verbose, || format!("read {blocks}")))
}

pub fn ls(app: &App, args: &LsArgs) -> Done {
    let at = app.open()?;
    let (revision, path) = Opened::stored_path(&args.target)?;
    let options = ls::Options { revision: Some(revision), path: path.unwrap_or_default(), recursive: args.recursive };
    if app.global.json {
        return Ok(app.report(&ls::ls(&at.repo, &options, app.monitor())?, String::new()));
    }
    let (mut out, mut printed) = (BufWriter::new(app.out()), Ok(()));
    let listed = ls::ls_each(&at.repo, &options, app.monitor(), &mut |entry| {
        if printed.is_ok() {
            printed = out.write_all(history::ls_line(&entry, args.long, app.paint).as_bytes());
        }
        if printed.is_err() {
            app.progress.cancel();
        }
    });
    printed?;
    listed?;
    out.flush()?;
    Ok(Report::printed())
}

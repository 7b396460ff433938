//! What changes the work tree and staging.

use digstore::base::clock;
use digstore::base::disk::open_or_create;
use digstore::model::path::RepoPath;
use digstore::ops::{add, checkout, commit, mv, rm, status};
use digstore::repo::init;
use serde_json::json;

use super::{Done, NEW_DIR_MODE, unless_quiet};
use crate::cli::app::{App, Opened, Report};
use crate::cli::args::work::{
    AddArgs, CheckoutArgs, CommitArgs, InitArgs, MvArgs, RestoreArgs, RmArgs, StatusArgs, SwitchArgs,
};
use crate::cli::author;
use crate::cli::exit::{Exit, Failure};
use crate::cli::render::{changes, count, grouped, history};

pub fn init(app: &App, args: &InitArgs) -> Done {
    let (parent, name, work) = app.place_of_new(args.dir.as_deref())?;
    let parent = open_or_create(&parent, NEW_DIR_MODE)?;
    let (dir, created) = init::create(parent.as_ref(), &name, app.settings().chunking)?;
    let path = dir.path().canonicalize().unwrap_or_else(|_| dir.path().to_path_buf());
    let work = work.canonicalize().unwrap_or(work);
    let text = match created {
        true => format!("Made an empty repository in {}\n", path.display()),
        false => format!("There is a repository in {} already; it was left as it is.\n", path.display()),
    };
    let json = json!({ "repository": path.display().to_string(), "work_tree": work.display().to_string(), "created": created });
    Ok(app.report(&json, if app.global.quiet { String::new() } else { text }))
}

pub fn add(app: &App, args: &AddArgs) -> Done {
    let at = app.open()?;
    let paths = if args.paths.is_empty() { vec![RepoPath::root()] } else { at.paths(&args.paths)? };
    let options = add::Options { paths, dry_run: args.dry_run, force: args.force, tracked_only: false };
    let outcome = add::add(&at.repo, &options, app.monitor())?;
    let paths = outcome.added.len() + outcome.modified.len() + outcome.deleted.len();
    let text = unless_quiet(app, || changes::add(&outcome, &at, app.lists(paths)));
    Ok(app
        .report(&outcome, text)
        .note(app.global.verbose && !app.lists(paths), || {
            format!("more than performance.quiet_mode_file_threshold, {}, are not listed", app.config.most_listed())
        })
        .note(outcome.special_files > 0, || {
            format!("{} left out: devices, pipes and sockets are not kept", grouped(outcome.special_files))
        })
        .note(outcome.hard_links > 0, || {
            format!("{} with further hard links: each is kept as a file of its own", count(outcome.hard_links, "file"))
        })
        .note(outcome.extended_attributes > 0, || {
            let files = count(outcome.extended_attributes, "file");
            format!("{files} with extended attributes or access lists: these are not kept")
        })
        .exit_if(outcome.unreadable > 0, Exit::Partial))
}

pub fn rm(app: &App, args: &RmArgs) -> Done {
    let at = app.open()?;
    let options = rm::Options {
        paths: at.paths(&args.paths)?,
        recursive: args.recursive,
        cached: args.cached,
        force: args.force,
        dry_run: args.dry_run,
    };
    let outcome = rm::rm(&at.repo, &options, app.monitor())?;
    let text =
        unless_quiet(app, || outcome.removed.iter().map(|path| format!("remove {}\n", at.shown(path))).collect());
    Ok(app.report(&outcome, text))
}

pub fn mv(app: &App, args: &MvArgs) -> Done {
    let at = app.open()?;
    let mut paths = at.paths(&args.paths)?;
    let Some(to) = paths.pop() else {
        return Err(Failure::usage("there is nothing to move", "write: digstore mv FROM TO"));
    };
    let options = mv::Options { from: paths, to, dry_run: args.dry_run };
    let outcome = mv::mv(&at.repo, &options, app.monitor())?;
    let line = |step: &mv::Move| format!("rename {} -> {}\n", at.shown(&step.from), at.shown(&step.to));
    let text = unless_quiet(app, || outcome.moved.iter().map(line).collect());
    Ok(app.report(&outcome, text))
}

pub fn commit(app: &App, args: &CommitArgs) -> Done {
    let at = app.open()?;
    let message = args.message.join("\n\n");
    let author = args.author.clone().unwrap_or_else(|| author::find(&at.root, app.config.author()));
    let time_ns = clock::now();
    let options = commit::Options {
        message: message.clone(),
        author,
        time_ns,
        utc_offset_minutes: utc_offset_minutes(),
        all: args.all,
        allow_empty: args.allow_empty,
    };
    let outcome = commit::commit(&at.repo, &options, app.monitor())?;
    let subject = message.lines().next().unwrap_or_default();
    let text = unless_quiet(app, || history::commit(&outcome, subject, app.paint));
    Ok(app.report(&outcome, text).exit_if(outcome.unreadable > 0, Exit::Partial))
}

fn utc_offset_minutes() -> i16 {
    const SECONDS_PER_MINUTE: i32 = 60;
    i16::try_from(jiff::Zoned::now().offset().seconds() / SECONDS_PER_MINUTE).unwrap_or(0)
}

pub fn status(app: &App, args: &StatusArgs) -> Done {
    let at = app.open()?;
    let options = status::Options { paths: at.paths(&args.paths)? };
    let outcome = status::status(&at.repo, &options, app.monitor())?;
    let text = match args.short {
        true => changes::status_short(&outcome, &at, app.paint),
        false => changes::status(&outcome, &at, app.paint),
    };
    Ok(app.report(&outcome, text).exit_if(outcome.unreadable > 0, Exit::Partial))
}

fn checked_out(app: &App, at: &Opened, outcome: &checkout::Outcome) -> Report {
    let text = unless_quiet(app, || changes::checkout(outcome, at, app.paint));
    app.report(outcome, text).exit_if(outcome.failed > 0, Exit::Failed).exit_if(outcome.damaged > 0, Exit::Damaged)
}

pub fn checkout(app: &App, args: CheckoutArgs) -> Done {
    let at = app.open()?;
    let options = checkout::Options {
        revision: args.revision.unwrap_or_else(|| "HEAD".to_owned()),
        force: args.force,
        set_times: args.times,
        branch_only: false,
        create: args.create,
        dry_run: args.dry_run,
    };
    let outcome = checkout::checkout(&at.repo, &options, app.monitor())?;
    Ok(checked_out(app, &at, &outcome))
}

pub fn switch(app: &App, args: SwitchArgs) -> Done {
    let at = app.open()?;
    let options = checkout::Options {
        branch_only: args.create.is_none(),
        revision: args.branch.unwrap_or_else(|| "HEAD".to_owned()),
        force: args.force,
        set_times: false,
        create: args.create,
        dry_run: args.dry_run,
    };
    let outcome = checkout::checkout(&at.repo, &options, app.monitor())?;
    Ok(checked_out(app, &at, &outcome))
}

pub fn restore(app: &App, args: RestoreArgs) -> Done {
    let at = app.open()?;
    let options = checkout::RestoreOptions {
        paths: at.paths(&args.paths)?,
        source: args.source,
        staged: args.staged,
        force: args.force,
        set_times: args.times,
    };
    let outcome = checkout::restore(&at.repo, &options, app.monitor())?;
    if !options.staged {
        return Ok(checked_out(app, &at, &outcome));
    }
    let paths = count(outcome.written + outcome.removed, "path");
    let source = options.source.as_deref().unwrap_or("HEAD");
    Ok(app.report(&outcome, unless_quiet(app, || format!("{paths} staged again as in {source}.\n"))))
}

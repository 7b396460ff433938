//! `digstore checkpoint`.

use std::io::Write;
use std::path::{Path, PathBuf};

use digstore::model::checkpoint::{Area, MAX_STATE_LEN, Trigger};
use digstore::model::path::RepoPath;
use digstore::ops::checkpoint::{create, edit, list, restore, retention, transfer, watch};
use digstore::ops::{Error, bundle, diff, session};
use serde::Serialize;
use serde_json::{Value, json};

use super::history::{differences, needs_content};
use super::{Done, unless_quiet};
use crate::cli::app::{App, Opened, Report};
use crate::cli::args::checkpoint::{
    CheckpointCommand, CheckpointDiffArgs, CheckpointExportArgs, CheckpointRestoreArgs, CompactArgs, CreateArgs, Label,
    ListArgs, WatchArgs,
};
use crate::cli::args::parse::marked_checkpoint;
use crate::cli::exit::{Exit, Failure};
use crate::cli::render::{bundle as render_bundle, checkpoint as render, count, grouped};

/// Checkpoints that a list shows unless more are wanted.
const LISTED: usize = 20;

/// Carries a command out.
pub fn run(app: &App, command: CheckpointCommand) -> Done {
    match command {
        CheckpointCommand::Create(args) => create(app, args),
        CheckpointCommand::List(args) => list(app, args),
        CheckpointCommand::Show { number, state } => show(app, number, state),
        CheckpointCommand::Diff(args) => diff(app, &args),
        CheckpointCommand::Restore(args) => restore(app, &args),
        CheckpointCommand::Tag { number, add, remove } => {
            let at = app.open()?;
            let outcome = edit::tag(&at.repo, number, &add, &remove, app.monitor())?;
            let text = unless_quiet(app, || render::tags(&outcome.checkpoint, app.paint));
            Ok(report(app, &outcome, text))
        }
        CheckpointCommand::Annotate { number, message, severity } => {
            let at = app.open()?;
            let outcome = edit::annotate(&at.repo, number, severity.into(), &message.join("\n\n"), app.monitor())?;
            let remarks = count(outcome.checkpoint.annotations.len() as u64, "remark");
            let text = unless_quiet(app, || format!("{} {remarks}\n", render::mark(number, app.paint)));
            Ok(report(app, &outcome, text))
        }
        CheckpointCommand::Delete { numbers } => {
            let at = app.open()?;
            let outcome = edit::delete(&at.repo, &numbers, app.monitor())?;
            let text = unless_quiet(app, || render::deleted(&outcome.numbers, app.paint));
            Ok(app.report(&outcome, text))
        }
        CheckpointCommand::Compact(args) => compact(app, args),
        CheckpointCommand::Export(args) => export(app, args),
        CheckpointCommand::Import { file } => import(app, &file),
        CheckpointCommand::Watch(args) => watch(app, args),
    }
}

/// A report in whose JSON the state document of a checkpoint is JSON, too.
fn report(app: &App, outcome: &impl Serialize, text: String) -> Report {
    if app.global.json { app.report(&with_state(outcome), text) } else { app.report(outcome, text) }
}

/// An outcome as JSON in which the state document of a checkpoint is JSON, too, and not text.
fn with_state(outcome: &impl Serialize) -> Value {
    let mut json = serde_json::to_value(outcome).unwrap_or_default();
    let holder = match json.get("checkpoint").is_some() {
        true => json.get_mut("checkpoint"),
        false => Some(&mut json),
    };
    if let Some(state) = holder.and_then(|holder| holder.get_mut("state"))
        && let Some(document) = state.as_str().and_then(|text| serde_json::from_str(text).ok())
    {
        *state = document;
    }
    json
}

/// What of the disk is meant: the bundle named, or the work tree.
fn area(at: &Opened, bundle: Option<&Path>) -> Result<Area, Failure> {
    bundle.map_or(Ok(Area::WorkTree), |bundle| Ok(Area::Bundle(at.path(bundle)?)))
}

fn options(label: Label, trigger: Trigger, state: Option<String>, area: Option<Area>) -> create::Options {
    create::Options {
        session: label.session,
        message: label.message.join("\n\n"),
        tags: label.tags,
        trigger,
        state,
        area,
        paranoid: false,
        snapshot: false,
        only_if_changed: false,
        min_interval: label.min_interval,
    }
}

fn create(app: &App, args: CreateArgs) -> Done {
    let state = match (args.state, args.state_file) {
        (None, Some(file)) => {
            let text = String::from_utf8(app.input(&file, MAX_STATE_LEN)?);
            Some(text.map_err(|_| {
                Failure::usage(format!("{} is not text", file.display()), "a state document is JSON, in UTF-8")
            })?)
        }
        (state, _) => state,
    };
    let trigger = match (args.auto, args.scheduled) {
        (true, _) => Trigger::Automatic(args.kind),
        (false, true) => Trigger::Scheduled,
        (false, false) => Trigger::Manual,
    };
    let at = app.open()?;
    let area = if args.no_tree { None } else { Some(area(&at, args.bundle.as_deref())?) };
    let options = create::Options {
        only_if_changed: args.auto,
        paranoid: args.paranoid,
        snapshot: args.snapshot,
        ..options(args.label, trigger, state, area)
    };
    let outcome = create::create(&at.repo, &options, app.monitor())?;
    let paths = outcome.added.len() + outcome.modified.len() + outcome.removed.len();
    let text = unless_quiet(app, || render::create(&outcome, app.lists(paths), app.paint));
    Ok(report(app, &outcome, text)
        .note(outcome.special_files > 0, || {
            format!("{} left out: devices, pipes and sockets are not kept", grouped(outcome.special_files))
        })
        .note(outcome.snapshot == Some(false), || {
            "no snapshot was kept: the file system of the repository cannot clone the bands; the checkpoint is complete"
                .to_owned()
        })
        .note(!outcome.foreign.is_empty(), || render::foreign(&outcome.foreign))
        .exit_if(outcome.unreadable > 0, Exit::Partial))
}

fn list(app: &App, args: ListArgs) -> Done {
    let at = app.open()?;
    let default = (!app.global.json && !args.all).then_some(LISTED);
    let options = list::Options {
        session: args.session,
        tag: args.tag,
        since_ns: args.since,
        until_ns: args.until,
        before: args.before,
        max_count: args.max_count.or(default),
    };
    let outcome = list::list(&at.repo, &options, app.monitor())?;
    let text = render::list(&outcome, app.paint);
    let last = outcome.checkpoints.last().map(|line| line.number).filter(|_| outcome.more && !app.global.json);
    Ok(app
        .report(outcome.as_ref(), text)
        .note(last.is_some(), || format!("there are more: --before @{} goes on, --all shows all", last.unwrap_or(0))))
}

fn show(app: &App, number: u64, only_state: bool) -> Done {
    let at = app.open()?;
    let shown = list::show(&at.repo, number, app.monitor())?;
    if !only_state {
        return Ok(report(app, &shown, render::show(&shown, app.paint)));
    }
    let Some(state) = &shown.checkpoint.origin.state else {
        let (message, hint) = (format!("@{number} has no state document"), "give one with 'create --state'");
        return Err(Error::Refused { message, hint }.into());
    };
    let json = json!({ "number": number, "state": with_state(&shown)["state"] });
    Ok(app.report(&json, format!("{}\n", state.trim_end())))
}

fn diff(app: &App, args: &CheckpointDiffArgs) -> Done {
    use diff::Side;
    let side = |number: u64| Side::Revision(format!("@{number}"));
    let at = app.open()?;
    let second = args.targets.first().and_then(|word| word.to_str()).and_then(marked_checkpoint);
    let paths = args.targets.iter().skip(usize::from(second.is_some())).map(PathBuf::from);
    let paths: Vec<PathBuf> = paths.chain(args.paths.iter().cloned()).collect();
    if let Some(bundle) = bundle_of(&at, [Some(args.old), second])? {
        let inside = !args.style.stat;
        let options = bundle::diff::Options { old: args.old, new: second, bundle, paths: at.paths(&paths)?, inside };
        let outcome = bundle::diff::diff(&at.repo, &options, app.monitor())?;
        let text = render_bundle::diff(&outcome, &args.style, app.paint);
        return Ok(app.report(&outcome, text));
    }
    let options = diff::Options {
        paths: at.paths(&paths)?,
        content: needs_content(app, &args.style),
        context_lines: args.unified,
        ..diff::Options::new(side(args.old), second.map_or(Side::Disk, side))
    };
    differences(app, &at.repo, &options, &args.style)
}

/// The bundle that one of the checkpoints is of.
fn bundle_of(at: &Opened, numbers: [Option<u64>; 2]) -> Result<Option<RepoPath>, Failure> {
    for number in numbers.into_iter().flatten() {
        let checkpoint = digstore::ops::checkpoint::get(&at.repo.journal().read(), number)?;
        if let Some(bundle) = checkpoint.bundle() {
            return Ok(Some(bundle.clone()));
        }
    }
    Ok(None)
}

fn restore(app: &App, args: &CheckpointRestoreArgs) -> Done {
    let at = app.open()?;
    let options = restore::Options {
        number: args.number,
        paths: at.paths(&args.paths)?,
        set_times: args.times,
        dry_run: args.dry_run,
    };
    let outcome = restore::restore(&at.repo, &options, app.monitor())?;
    let text = unless_quiet(app, || render::restore(&outcome, &at, &options.paths, app.paint));
    let report = app.report(&outcome, text);
    Ok(report.exit_if(outcome.failed > 0, Exit::Failed).exit_if(outcome.damaged > 0, Exit::Damaged))
}

fn compact(app: &App, args: CompactArgs) -> Done {
    let tagged = match (args.keep_tagged, args.keep_tag.is_empty()) {
        (true, _) => retention::Tagged::Any,
        (false, false) => retention::Tagged::Of(args.keep_tag),
        (false, true) => retention::Tagged::None,
    };
    let policy = retention::Policy { newest: args.keep, tagged, thin: args.thin };
    if args.later && !policy.has_rules() {
        return Err(Failure::usage(
            "--later needs a rule that says what to keep",
            "give --keep N, --keep-tagged, --keep-tag TAG or --thin; without a rule only space is given back",
        ));
    }
    let at = app.open()?;
    let options = retention::Options { policy, session: args.session, dry_run: args.dry_run, later: args.later };
    let outcome = retention::compact(&at.repo, &options, app.monitor())?;
    let text = unless_quiet(app, || render::compact(&outcome, app.paint));
    Ok(app.report(&outcome, text))
}

fn export(app: &App, args: CheckpointExportArgs) -> Done {
    let at = app.open()?;
    let options = transfer::ExportOptions { numbers: args.numbers, session: args.session, content: args.content };
    let Some(to) = args.to else {
        // The document names itself, so with --json it is what is printed, too.
        let mut out = app.out();
        transfer::export(&at.repo, &options, &mut out, Path::new("the output"), app.monitor())?;
        out.flush()?;
        return Ok(Report::printed());
    };
    let outcome =
        app.write_file_with(&to, |out, path| Ok(transfer::export(&at.repo, &options, out, path, app.monitor())?))?;
    let text =
        unless_quiet(app, || format!("Wrote {} to {}.\n", count(outcome.checkpoints, "checkpoint"), to.display()));
    Ok(app.report(&outcome, text))
}

fn import(app: &App, file: &Path) -> Done {
    let at = app.open()?;
    let outcome = transfer::import(&at.repo, app.source(file)?, file, app.monitor())?;
    let text = unless_quiet(app, || render::import(&outcome, app.paint));
    Ok(app.report(&outcome, text).note(outcome.gaps > 0, || {
        format!("{} in the middle are not in this document", count(outcome.gaps, "checkpoint"))
    }))
}

fn watch(app: &App, args: WatchArgs) -> Done {
    let at = app.open()?;
    if let Some(name) = &args.label.session {
        session::active(&at.repo.journal().read(), name)?;
    }
    let area = area(&at, args.bundle.as_deref())?;
    let options = watch::Options {
        create: options(args.label, Trigger::Automatic("changed".to_owned()), None, Some(area)),
        interval: args.interval,
        max_count: args.count,
    };
    if !app.global.quiet && !app.global.json {
        crate::cli::say("note: watching; Ctrl-C ends it\n");
    }
    let mut printed = Ok(());
    let mut made = |outcome: &create::Outcome| {
        printed = match app.global.json {
            true => app.print_object("checkpoint-create", &with_state(outcome)),
            false if app.global.quiet => Ok(()),
            false => app.print(render::create(outcome, app.global.verbose, app.paint).as_bytes()),
        };
        if printed.is_err() {
            app.progress.cancel();
        }
    };
    match watch::watch(&at.repo, &options, app.monitor(), &mut made) {
        // Being interrupted is how it ends.
        Ok(_) | Err(Error::Interrupted) => printed.map(|()| Report::printed()),
        Err(error) => Err(error.into()),
    }
}

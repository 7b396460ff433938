//! The repository itself.

use std::io::Read;
use std::time::Duration;

use digstore::base::disk::IoContext;
use digstore::format::proof::MAX_PROOF_LEN;
use digstore::model::id::ObjectId;
use digstore::ops::{fsck, gc, layer, migrate, proof, stats, undo};
use digstore::repo::rebuild::Rebuilt;

use super::{Done, unless_quiet};
use crate::cli::app::{App, Opened};
use crate::cli::args::store::{FsckArgs, GcArgs, LayerCommand, MigrateArgs, ProofCommand, StatsArgs, UndoArgs};
use crate::cli::exit::{Exit, Failure};
use crate::cli::render::store;

pub fn fsck(app: &App, args: &FsckArgs) -> Done {
    let (at, rebuilt) = open_or_rebuild(app, args)?;
    let was_rebuilt = rebuilt.is_some();
    let mut outcome = match args.repair {
        false => fsck::fsck(&at.repo, &fsck::Options { full: args.full }, app.monitor())?,
        true => {
            let other = args.from.as_ref().map(|from| app.open_other(from)).transpose()?;
            fsck::repair(&at.repo, other.as_ref(), app.monitor())?
        }
    };
    if let Some(repair) = &mut outcome.repair {
        repair.journal = rebuilt;
    }
    let text = match app.global.quiet && !outcome.is_damaged() && !was_rebuilt {
        true => String::new(),
        false => store::fsck(&outcome, app.paint),
    };
    Ok(app.report(&outcome, text).exit_if(outcome.is_damaged(), Exit::Damaged))
}

/// Opens the repository; for a repair also one whose journal is damaged or gone, which is made anew.
fn open_or_rebuild(app: &App, args: &FsckArgs) -> Result<(Opened, Option<Rebuilt>), Failure> {
    match app.open() {
        Err(Failure::Ops(error)) if args.repair && error.is_journal() => {
            let rebuilt = app.rebuild()?;
            Ok((app.open()?, rebuilt))
        }
        opened => Ok((opened?, None)),
    }
}

pub fn gc(app: &App, args: &GcArgs) -> Done {
    let at = app.open()?;
    let GcArgs { dry_run, aggressive, prune, now } = *args;
    let options = gc::Options { dry_run, aggressive, prune, grace: now.then_some(Duration::ZERO) };
    let outcome = gc::gc(&at.repo, &options, app.monitor())?;
    let text = unless_quiet(app, || store::gc(&outcome));
    Ok(app.report(&outcome, text))
}

pub fn migrate(app: &App, args: &MigrateArgs) -> Done {
    let at = app.open()?;
    let options = migrate::Options { dry_run: args.dry_run, undo: args.undo };
    let outcome = migrate::migrate(&at.repo, &options, app.monitor())?;
    let text = unless_quiet(app, || store::migrate(&outcome));
    Ok(app.report(&outcome, text))
}

pub fn stats(app: &App, args: &StatsArgs) -> Done {
    let at = app.open()?;
    let outcome = stats::stats(&at.repo, &stats::Options { all: args.all }, app.monitor())?;
    let text = store::stats(&outcome);
    Ok(app.report(&outcome, text))
}

pub fn layer(app: &App, command: LayerCommand) -> Done {
    let at = app.open()?;
    match command {
        LayerCommand::List => {
            let outcome = layer::list(&at.repo, app.monitor())?;
            let text = store::layers(&outcome, app.paint);
            Ok(app.report(&outcome, text))
        }
        LayerCommand::Show { id } => {
            let outcome = layer::show(&at.repo, &layer::ShowOptions { id }, app.monitor())?;
            let text = store::layer(&outcome, app.global.verbose);
            Ok(app.report(&outcome, text))
        }
    }
}

pub fn proof(app: &App, command: ProofCommand) -> Done {
    match command {
        ProofCommand::Create { target, bytes, to } => {
            let at = app.open()?;
            let (revision, Some(path)) = Opened::stored_path(&target)? else {
                let hint = "write REV:PATH, such as HEAD:src/main.rs";
                return Err(Failure::usage(format!("'{}' names no path", target.display()), hint));
            };
            let options = proof::CreateOptions { revision, path, range: bytes };
            let proof = proof::create(&at.repo, &options, app.monitor())?;
            let Some(to) = to else { return Ok(app.report(&proof, proof.encode())) };
            app.write_file(&to, proof.encode().as_bytes())?;
            let text = unless_quiet(app, || store::proof_created(&proof, &app.base.join(&to)));
            Ok(app.report(&proof, text))
        }
        ProofCommand::Verify { proof, root, content, to } => {
            let Some(root) = ObjectId::from_hex(&root) else {
                let hint = "write all 64 digits of the commit's id, as 'digstore log' shows it with --json";
                return Err(Failure::usage(format!("'{}' is no id", root.escape_debug()), hint));
            };
            let bytes = app.input(&proof, MAX_PROOF_LEN)?;
            let content = content.map(|content| app.base.join(content));
            let mut file = content.as_ref().map(|path| std::fs::File::open(path).on("open", path)).transpose()?;
            let content = content.as_deref().zip(file.as_mut().map(|file| file as &mut dyn Read));
            let (outcome, proven) = proof::verify(&bytes, &root, content)?;
            match (&to, &proven.data) {
                (Some(to), Some(data)) => app.write_file(to, data)?,
                (Some(_), None) => {
                    let hint = "make the proof with --bytes: only then it holds bytes";
                    return Err(Failure::usage("a proof of a whole file holds none of its bytes", hint));
                }
                (None, _) => {}
            }
            let text = unless_quiet(app, || store::proof_verified(&outcome, app.paint));
            Ok(app.report(&outcome, text))
        }
    }
}

pub fn undo(app: &App, args: &UndoArgs) -> Done {
    let at = app.open()?;
    let outcome = undo::undo(&at.repo, &undo::Options { dry_run: args.dry_run }, app.monitor())?;
    let text = unless_quiet(app, || store::undo(&outcome, app.paint));
    Ok(app.report(&outcome, text).exit_if(outcome.failed > 0, Exit::Failed))
}

//! From arguments to a verb's options, and from its outcome to a report.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::CommandFactory;
use data_encoding::BASE64;
use digstore::base::clock;
use digstore::base::disk::open_or_create;
use digstore::model::path::RepoPath;
use digstore::ops::{
    add, cat, checkout, commit, diff, export, fsck, layer, log, ls, mv, refs, rm, show, stats, status,
};
use digstore::repo::init;
use digstore::store::refs::RefKind;
use serde_json::json;

use super::app::{App, Opened, Report};
use super::args::{
    AddArgs, BranchArgs, CatArgs, CheckoutArgs, Cli, Command, CommitArgs, ConfigCommand, DiffArgs, DiffStyle,
    ExportArgs, FsckArgs, InitArgs, LayerCommand, LogArgs, LsArgs, MvArgs, RestoreArgs, RmArgs, ShowArgs, StatsArgs,
    StatusArgs, SwitchArgs, TagArgs,
};
use super::exit::{Exit, Failure};
use super::render::{changes, count, grouped, history, store};
use super::{author, config, demo, user_config_file};

type Done = Result<Report, Failure>;

/// Carries a command out.
pub fn run(app: &App, command: Command) -> Done {
    match command {
        Command::Init(args) => init(app, &args),
        Command::Add(args) => add(app, &args),
        Command::Rm(args) => rm(app, &args),
        Command::Mv(args) => mv(app, &args),
        Command::Commit(args) => commit(app, &args),
        Command::Status(args) => status(app, &args),
        Command::Log(args) => log(app, &args),
        Command::Show(args) => show(app, args),
        Command::Diff(args) => diff(app, &args),
        Command::Checkout(args) => checkout(app, args),
        Command::Switch(args) => switch(app, args),
        Command::Restore(args) => restore(app, args),
        Command::Export(args) => export(app, &args),
        Command::Branch(args) => branch(app, args),
        Command::Tag(args) => tag(app, args),
        Command::Cat(args) => cat(app, &args),
        Command::Ls(args) => ls(app, &args),
        Command::Fsck(args) => fsck(app, &args),
        Command::Stats(args) => stats(app, &args),
        Command::Layer(command) => layer(app, command),
        Command::Config { command } => configure(app, command.unwrap_or(ConfigCommand::List)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "digstore", &mut script);
            let script = String::from_utf8_lossy(&script).into_owned();
            Ok(Report::new(&json!({ "shell": shell.to_string(), "script": script }), script))
        }
        Command::Man { to } => man(app, to.as_deref()),
        Command::Demo(args) => demo::run(app, &args),
    }
}

/// The folder of a new repository is for everybody as far as the umask allows; what is inside is its owner's.
const NEW_DIR_MODE: u32 = 0o777;

fn init(app: &App, args: &InitArgs) -> Done {
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
    Ok(Report::new(&json, if app.global.quiet { String::new() } else { text }))
}

/// Text that only says what was done is not asked for under `--quiet`.
fn unless_quiet(app: &App, text: impl FnOnce() -> String) -> String {
    if app.global.quiet { String::new() } else { text() }
}

fn add(app: &App, args: &AddArgs) -> Done {
    let at = app.open()?;
    let paths = if args.all { vec![RepoPath::root()] } else { at.paths(&args.paths)? };
    let options = add::Options { paths, dry_run: args.dry_run, force: args.force, tracked_only: false };
    let outcome = add::add(&at.repo, &options, app.monitor())?;
    let text = unless_quiet(app, || changes::add(&outcome, &at, app.global.verbose));
    Ok(Report::new(&outcome, text)
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

fn rm(app: &App, args: &RmArgs) -> Done {
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
    Ok(Report::new(&outcome, text))
}

fn mv(app: &App, args: &MvArgs) -> Done {
    let at = app.open()?;
    let mut paths = at.paths(&args.paths)?;
    let Some(to) = paths.pop() else {
        return Err(Failure::usage("there is nothing to move", "write: digstore mv FROM TO"));
    };
    let options = mv::Options { from: paths, to, dry_run: args.dry_run };
    let outcome = mv::mv(&at.repo, &options, app.monitor())?;
    let line = |step: &mv::Move| format!("rename {} -> {}\n", at.shown(&step.from), at.shown(&step.to));
    let text = unless_quiet(app, || outcome.moved.iter().map(line).collect());
    Ok(Report::new(&outcome, text))
}

fn commit(app: &App, args: &CommitArgs) -> Done {
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
    Ok(Report::new(&outcome, text).exit_if(outcome.unreadable > 0, Exit::Partial))
}

fn utc_offset_minutes() -> i16 {
    const SECONDS_PER_MINUTE: i32 = 60;
    i16::try_from(jiff::Zoned::now().offset().seconds() / SECONDS_PER_MINUTE).unwrap_or(0)
}

fn status(app: &App, args: &StatusArgs) -> Done {
    let at = app.open()?;
    let options = status::Options { paths: at.paths(&args.paths)? };
    let outcome = status::status(&at.repo, &options, app.monitor())?;
    let text = match args.short {
        true => changes::status_short(&outcome, &at, app.paint),
        false => changes::status(&outcome, &at, app.paint),
    };
    Ok(Report::new(&outcome, text).exit_if(outcome.unreadable > 0, Exit::Partial))
}

fn log(app: &App, args: &LogArgs) -> Done {
    let at = app.open()?;
    let (revisions, paths) = at.revisions_and_paths(&args.targets, &args.paths, 1)?;
    let options = log::Options { revision: revisions.into_iter().next(), max_count: args.max_count, paths };
    let outcome = log::log(&at.repo, &options, app.monitor())?;
    let text = history::log(&outcome.commits, args.oneline, app.paint);
    Ok(Report::new(&outcome, text))
}

fn needs_content(app: &App, style: &DiffStyle) -> bool {
    !style.name_only || app.global.json
}

fn show(app: &App, args: ShowArgs) -> Done {
    let at = app.open()?;
    let options = show::Options { revision: Some(args.revision), content: needs_content(app, &args.style) };
    let outcome = show::show(&at.repo, &options, app.monitor())?;
    let text = history::show(&outcome, &args.style, app.paint);
    Ok(Report::new(&outcome, text))
}

fn diff(app: &App, args: &DiffArgs) -> Done {
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
        (Some(old), None) => (old, Side::WorkTree),
        (Some(old), Some(new)) => (old, new),
    };
    let content = needs_content(app, &args.style);
    let options = diff::Options { old, new, paths, content, context_lines: args.unified };
    let outcome = diff::diff(&at.repo, &options, app.monitor())?;
    let text = changes::diff(&outcome, &args.style, app.paint);
    Ok(Report::new(&outcome, text))
}

fn checked_out(app: &App, at: &Opened, outcome: &checkout::Outcome) -> Report {
    let text = unless_quiet(app, || changes::checkout(outcome, at, app.paint));
    Report::new(outcome, text).exit_if(outcome.failed > 0, Exit::Failed).exit_if(outcome.damaged > 0, Exit::Damaged)
}

fn checkout(app: &App, args: CheckoutArgs) -> Done {
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

fn switch(app: &App, args: SwitchArgs) -> Done {
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

fn restore(app: &App, args: RestoreArgs) -> Done {
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
    Ok(Report::new(&outcome, unless_quiet(app, || format!("{paths} staged again as in {source}.\n"))))
}

fn export(app: &App, args: &ExportArgs) -> Done {
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
    let report = Report::new(&outcome, text);
    Ok(report.exit_if(outcome.failed > 0, Exit::Failed).exit_if(outcome.damaged > 0, Exit::Damaged))
}

fn branch(app: &App, args: BranchArgs) -> Done {
    let BranchArgs { name, revision, delete, rename, force } = args;
    let action = match (name, revision) {
        (None, _) => refs::Action::List,
        (Some(name), _) if delete => refs::Action::Delete { name, force },
        (Some(name), Some(new_name)) if rename => refs::Action::Rename { name, new_name, force },
        (Some(name), revision) => refs::Action::Create { name, revision, force },
    };
    change_refs(app, RefKind::Branch, action)
}

fn tag(app: &App, args: TagArgs) -> Done {
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
    Ok(Report::new(&outcome, text))
}

fn cat(app: &App, args: &CatArgs) -> Done {
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
        return Ok(Report::new(&json, String::new()));
    }
    let mut out = io::stdout().lock();
    let outcome = cat::cat(&at.repo, &options, &mut out, app.monitor())?;
    out.flush()?;
    let blocks = count(outcome.blocks_read, "block");
    Ok(Report::new(&outcome, String::new()).note(app.global.verbose, || format!("read {blocks}")))
}

fn ls(app: &App, args: &LsArgs) -> Done {
    let at = app.open()?;
    let (revision, path) = Opened::stored_path(&args.target)?;
    let options = ls::Options { revision: Some(revision), path: path.unwrap_or_default(), recursive: args.recursive };
    let outcome = ls::ls(&at.repo, &options, app.monitor())?;
    let text = history::ls(&outcome, args.long, app.paint);
    Ok(Report::new(&outcome, text))
}

fn fsck(app: &App, args: &FsckArgs) -> Done {
    let at = app.open()?;
    let outcome = fsck::fsck(&at.repo, &fsck::Options { full: args.full }, app.monitor())?;
    let text = match app.global.quiet && !outcome.is_damaged() {
        true => String::new(),
        false => store::fsck(&outcome, app.paint),
    };
    Ok(Report::new(&outcome, text).exit_if(outcome.is_damaged(), Exit::Damaged))
}

fn stats(app: &App, args: &StatsArgs) -> Done {
    let at = app.open()?;
    let outcome = stats::stats(&at.repo, &stats::Options { all: args.all }, app.monitor())?;
    let text = store::stats(&outcome);
    Ok(Report::new(&outcome, text))
}

fn layer(app: &App, command: LayerCommand) -> Done {
    let at = app.open()?;
    match command {
        LayerCommand::List => {
            let outcome = layer::list(&at.repo, &layer::ListOptions {}, app.monitor())?;
            let text = store::layers(&outcome, app.paint);
            Ok(Report::new(&outcome, text))
        }
        LayerCommand::Show { id } => {
            let outcome = layer::show(&at.repo, &layer::ShowOptions { id }, app.monitor())?;
            let text = store::layer(&outcome, app.global.verbose);
            Ok(Report::new(&outcome, text))
        }
    }
}

fn configure(app: &App, command: ConfigCommand) -> Done {
    let file_of = |user: bool| match user {
        true => user_config_file().ok_or_else(|| {
            Failure::usage("there is no home folder to keep a user's file in", "set HOME or XDG_CONFIG_HOME")
        }),
        false => Ok(config::project_file(&app.base).unwrap_or_else(|| project_root(app).join(config::FILE_NAME))),
    };
    match command {
        ConfigCommand::List => {
            let settings = app.config.list();
            let line = |one: &config::Setting| format!("{:<38} {:<14} {}\n", one.key, one.value, one.origin);
            let text = settings.iter().map(line).collect();
            Ok(Report::new(&json!({ "settings": settings }), text))
        }
        ConfigCommand::Profiles => {
            let profiles = app.config.profiles();
            let line = |one: &config::ProfileInfo| {
                let mark = if app.config.profile() == Some(one.name.as_str()) { '*' } else { ' ' };
                format!("{mark} {:<20} {}\n", one.name, one.description.as_deref().unwrap_or_default())
            };
            let text = profiles.iter().map(line).collect();
            Ok(Report::new(&json!({ "profiles": profiles, "current": app.config.profile() }), text))
        }
        ConfigCommand::Get { key } => {
            let setting = app.config.get(&key)?;
            let text = format!("{}\n", setting.value);
            Ok(Report::new(&setting, text))
        }
        ConfigCommand::Set { key, value, file } => {
            let file = file_of(file.user)?;
            config::set(&file, &key, &value)?;
            let text = unless_quiet(app, || format!("Set {key} in {}.\n", file.display()));
            Ok(Report::new(&json!({ "file": file.display().to_string(), "key": key, "value": value }), text))
        }
        ConfigCommand::Unset { key, file } => {
            let file = file_of(file.user)?;
            let was_set = config::unset(&file, &key)?;
            let text = unless_quiet(app, || match was_set {
                true => format!("Removed {key} from {}.\n", file.display()),
                false => format!("{key} was not set in {}.\n", file.display()),
            });
            Ok(Report::new(&json!({ "file": file.display().to_string(), "key": key, "was_set": was_set }), text))
        }
        ConfigCommand::Example => {
            let text = config::example();
            Ok(Report::new(&json!({ "text": text }), text))
        }
    }
}

/// Where a project's first `digstore.toml` goes: beside the repository if there is one, else here.
fn project_root(app: &App) -> std::path::PathBuf {
    digstore::repo::discover(&app.base).map_or_else(|_| app.base.clone(), |(root, _)| root)
}

fn man(app: &App, to: Option<&Path>) -> Done {
    let command = Cli::command();
    let Some(to) = to else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        let page = String::from_utf8_lossy(&page).into_owned();
        return Ok(Report::new(&json!({ "page": page }), page));
    };
    let dir = open_or_create(&app.base.join(to), NEW_DIR_MODE)?;
    clap_mangen::generate_to(command, dir.path())?;
    let text = unless_quiet(app, || format!("Wrote the manual pages to {}.\n", to.display()));
    Ok(Report::new(&json!({ "folder": to.display().to_string() }), text))
}

//! `wg lock …`: one writer per directory, for any program. No workspace is needed.

mod view;

use std::path::{Path, PathBuf};
use std::time::Duration;

use session_lock::{
    DirLock, DirLockError, DirStatus, Inspection, Kind, Note, Overlap, TakeoverPolicy, Unproven,
    Wait, WaitError,
};

use self::view::{HeldView, LockView, Locks, ReleaseView, UnreadableView};
use super::args::lock::{Hold, LockCommand, One, Release, Run};
use super::table::Table;
use super::takeover;
use crate::clock;
use crate::dir_registry;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::locked_run;
use crate::report::Report;

/// Runs the verb and returns the code that the process leaves with: for `run` that of the command.
pub(super) fn run(report: &Report, command: LockCommand) -> Outcome<u8> {
    let registry = registry()?;
    match command {
        LockCommand::Run(args) => locked(report, &registry, args),
        LockCommand::List => list(report, &registry).map(ExitCode::code),
        LockCommand::Status(one) => status(report, &registry, &one).map(ExitCode::code),
        LockCommand::Hold(args) => hold(report, &registry, &args).map(ExitCode::code),
        LockCommand::Release(args) => release(report, &registry, &args).map(ExitCode::code),
    }
}

fn registry() -> Outcome<PathBuf> {
    dir_registry::of_this_user().ok_or_else(|| {
        Failure::new(ExitCode::System, "there is no place for locks")
            .with_cure("set HOME or XDG_STATE_HOME to an absolute path")
    })
}

/// The name that others are told.
fn user() -> String {
    let uid = nix::unistd::getuid();
    nix::unistd::User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| format!("uid {uid}"), |user| user.name)
}

fn note(by: &str, reason: &str) -> Outcome<Note> {
    Note::new(by, reason)
        .map_err(|error| Failure::new(ExitCode::Usage, "the note cannot be kept").caused_by(error))
}

fn locked(report: &Report, registry: &Path, args: Run) -> Outcome<u8> {
    let dir = args.dir.unwrap_or_else(|| PathBuf::from("."));
    let mut options = DirLock::options(registry)
        .kind(Kind::from("lock-run"))
        .note(note(&user(), args.note.as_deref().unwrap_or_default())?);
    if args.allow_overlap {
        options = options.overlap(Overlap::Allow);
    }
    if let Some(wait) = args.wait {
        options = options.wait(Wait::Until(clock::steady() + wait));
    }
    let lock = match options.acquire(&dir) {
        Ok(lock) => lock,
        Err(error) => {
            if let Some(held) = HeldView::of(&error) {
                if report.is_json() {
                    report.answer(&held, String::new)?;
                }
                return Err(refused(&held, args.wait));
            }
            return Err(failed(&dir, error));
        }
    };
    locked_run::run(lock, &args.command, |text| {
        report.note(&format!("wg lock: {text}"));
    })
}

/// Why a directory was not locked, in one sentence that names who has it.
fn refused(held: &HeldView, waited: Option<Duration>) -> Failure {
    let status = format!("wg lock status {}", quoted(&held.held));
    let cure = if held.holder.as_ref().is_some_and(view::Holder::is_above_us) {
        "this command runs under that lock already: leave the inner `wg lock run` out, or \
         --allow-overlap for a directory above or below"
            .to_owned()
    } else if held.is_a_persons() {
        format!(
            "a person's hold ends with: wg lock release {}",
            quoted(&held.held)
        )
    } else {
        match waited {
            None => format!("wait for it with --wait, or: {status}"),
            Some(_) => status,
        }
    };
    let code = if waited.is_some() {
        ExitCode::TimedOut
    } else {
        ExitCode::Held
    };
    let mut sentence = held.to_text(clock::now());
    if let Some(waited) = waited {
        sentence = format!("gave up after {}: {sentence}", clock::span(waited));
    }
    Failure::new(code, sentence).with_cure(cure)
}

/// A path as an argument that can be pasted into a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+@:,~".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// What went wrong beside somebody having the directory.
fn failed(dir: &Path, error: DirLockError) -> Failure {
    let about = |code| {
        Failure::new(
            code,
            format!("the lock of `{}` cannot be used", dir.display()),
        )
    };
    match error {
        DirLockError::Corrupt { .. } => about(ExitCode::Config).caused_by(error),
        DirLockError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::new(
                ExitCode::Failed,
                format!("there is no directory `{}`", dir.display()),
            )
            .with_cure("make it first, or name another with --dir")
        }
        DirLockError::Io { ref source, .. }
            if source.kind() == std::io::ErrorKind::NotADirectory =>
        {
            Failure::new(
                ExitCode::Failed,
                format!("`{}` is no directory", dir.display()),
            )
            .with_cure("name a directory with --dir")
        }
        DirLockError::Io { ref source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            about(ExitCode::NotPermitted).caused_by(error)
        }
        DirLockError::Held { .. }
        | DirLockError::Acquire(_)
        | DirLockError::Inspect(_)
        | DirLockError::Io { .. }
        | _ => about(ExitCode::System).caused_by(error),
    }
}

fn list(report: &Report, registry: &Path) -> Outcome {
    let listing = DirLock::list(registry).map_err(|error| failed(registry, error))?;
    let held = &listing.held;
    let locks = Locks {
        locks: held
            .iter()
            .map(|status| LockView::of(status, held))
            .collect(),
        unreadable: listing.unreadable.iter().map(UnreadableView::of).collect(),
    };
    report.answer(&locks, || {
        if locks.locks.is_empty() && locks.unreadable.is_empty() {
            return "No directory is locked.".to_owned();
        }
        let now = clock::now();
        let mut table = Table::new(&["DIRECTORY", "HOLDER", "NOTE"]);
        for lock in &locks.locks {
            let note = lock.note.as_ref().or(lock.hold.as_ref());
            table.row(&[
                lock.directory.display().to_string(),
                lock.holder
                    .as_ref()
                    .map_or_else(|| "a person".to_owned(), |holder| holder.to_text(now)),
                note.map(view::NoteView::to_text).unwrap_or_default(),
            ]);
        }
        for unreadable in &locks.unreadable {
            table.row(&unreadable.to_row());
        }
        table.to_text(|_, cell| cell.to_owned())
    })?;
    Ok(ExitCode::Ok)
}

fn look(registry: &Path, dir: &Path) -> Outcome<DirStatus> {
    DirLock::status(registry, dir).map_err(|error| failed(dir, error))
}

fn status(report: &Report, registry: &Path, one: &One) -> Outcome {
    let status = look(registry, &one.directory)?;
    let all = DirLock::list(registry).map_err(|error| failed(registry, error))?;
    let mut view = LockView::of(&status, &all.held);
    view.look_for_occupants(&status).map_err(|error| {
        Failure::new(
            ExitCode::System,
            format!(
                "failed to look who works in `{}`",
                status.directory.display()
            ),
        )
        .caused_by(error)
    })?;
    let now = clock::now();
    report.answer(&view, || view.to_text(now))?;
    Ok(ExitCode::Ok)
}

fn hold(report: &Report, registry: &Path, args: &Hold) -> Outcome {
    let by = args.by.clone().unwrap_or_else(user);
    let note = note(&by, &args.reason)?;
    if let Err(error) = DirLock::hold(registry, &args.directory, &note) {
        return Err(match HeldView::of(&error) {
            Some(held) => refused(&held, None),
            None => failed(&args.directory, error),
        });
    }
    let status = look(registry, &args.directory)?;
    let view = LockView::of(&status, &[]);
    let now = clock::now();
    report.done(&view, || view.to_text(now))?;
    Ok(ExitCode::Ok)
}

fn release(report: &Report, registry: &Path, args: &Release) -> Outcome {
    let status = look(registry, &args.directory)?;
    let view = LockView::of(&status, &[]);
    if let Some(holder) = &view.holder
        && status.inspection.is_held()
        && holder.is_above_us()
    {
        return Err(
            Failure::new(ExitCode::Held, "this command runs under that lock itself")
                .with_cure("it is free when the command has ended"),
        );
    }
    if status.inspection.is_held() {
        report.note(&view.headline(clock::now()));
    }
    let mut signalled = false;
    if status.inspection.is_held() {
        if args.force {
            signalled = take(&status, args)?;
        } else {
            ask(&status, args.wait)?;
        }
    }
    if let Some(hold) = &status.hold {
        if hold.by != user() && !args.force {
            return Err(Failure::new(
                ExitCode::Held,
                format!("`{}` is held by {hold}", status.directory.display()),
            )
            .with_cure("it is not your hold; to end it all the same: --force"));
        }
        DirLock::end_hold(registry, &args.directory)
            .map_err(|error| failed(&args.directory, error))?;
    }
    let after = look(registry, &args.directory)?;
    let after_view = LockView::of(&after, &[]);
    let answer = ReleaseView {
        directory: status.directory.clone(),
        was_held: status.is_held(),
        holder: view.holder,
        hold: view.hold,
        free: !after.is_held(),
        signalled,
    };
    let now = clock::now();
    report.done(&answer, || answer.to_text(now))?;
    // Who waits for nothing has not waited in vain.
    if answer.free || (args.wait == Duration::ZERO && !args.force) {
        return Ok(ExitCode::Ok);
    }
    let cure = format!(
        "wait longer with --wait, or: wg lock release {} --force",
        quoted(&status.directory)
    );
    Err(Failure::new(ExitCode::Held, after_view.headline(now)).with_cure(cure))
}

/// Asks the holder, and waits.
fn ask(status: &DirStatus, wait: Duration) -> Outcome<()> {
    let failure = || {
        Failure::new(
            ExitCode::System,
            format!("failed to ask for `{}`", status.directory.display()),
        )
    };
    session_lock::request_release(&status.entry).map_err(|error| failure().caused_by(error))?;
    match session_lock::wait_free(&status.entry, clock::steady() + wait) {
        // Who has it now is looked at again.
        Ok(_) | Err(WaitError::TimedOut { .. }) => Ok(()),
        Err(error) => Err(failure().caused_by(error)),
    }
}

/// Ends the holder; returns whether it had to be signalled.
fn take(status: &DirStatus, args: &Release) -> Outcome<bool> {
    /// How long a process has after SIGTERM, and the kernel after SIGKILL.
    const SIGNAL_GRACE: Duration = Duration::from_secs(10);
    let policy = TakeoverPolicy {
        request_grace: args.wait,
        term_grace: SIGNAL_GRACE,
        kill_grace: SIGNAL_GRACE,
        unproven: if args.allow_unproven {
            Unproven::Allow
        } else {
            Unproven::Refuse
        },
    };
    session_lock::takeover(&status.entry, &policy)
        .map(|taken| matches!(taken, session_lock::TakenOver::Ended { .. }))
        .map_err(|error| {
            takeover::failure(
                &format!("`{}`", status.directory.display()),
                error,
                format!("wg lock status {}", quoted(&status.directory)),
                "look at the process; if it is the holder: --allow-unproven".to_owned(),
            )
        })
}

/// The state of a lock in one word.
fn state(inspection: &Inspection, held_by_person: bool) -> &'static str {
    match inspection {
        Inspection::Held(_) => "held",
        _ if held_by_person => "hold",
        Inspection::Stale { .. } => "stale",
        Inspection::Corrupt { .. } => "corrupt",
        Inspection::Free | _ => "free",
    }
}

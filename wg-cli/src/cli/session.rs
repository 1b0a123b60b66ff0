//! `wg session …`: the lock's own view of who serves a session.

pub(super) mod check;
mod manage;
mod target;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use session_lock::{
    Freed, Held, HeldReason, Holder, Inspection, Liveness, TakenOver, TakeoverPolicy, Unproven,
    WaitError,
};

use self::target::Target;
use super::args::session::{One, Release, SessionCommand, Takeover};
use super::context::Context;
use super::table::Table;
use super::takeover::failure as takeover_failure;
use crate::clock::{self, Timestamp};
use crate::daemon::holder::Heirs;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::ops::{self, Caller};
use crate::patience::Patience;
use crate::standstill::Standstill;
use crate::store::workspace::Workspace;

pub(super) fn run(cx: &Context<'_>, command: SessionCommand) -> Outcome {
    match command {
        SessionCommand::List => list(cx),
        SessionCommand::Status(one) => status(cx, &one),
        SessionCommand::Release(args) => release(cx, &args),
        SessionCommand::Takeover(args) => takeover(cx, &args),
        SessionCommand::Check(args) => check::run(cx, &args),
        SessionCommand::New(args) => manage::new(cx, &args),
        SessionCommand::Alias(args) => manage::alias(cx, &args.command),
        SessionCommand::Rm(one) => manage::rm(cx, &one),
    }
}

/// The process that holds a session, for `--json`.
#[derive(Debug, Clone, Serialize)]
struct HolderView {
    pid: u32,
    kind: String,
    since: String,
    generation: Option<u64>,
    uid: Option<u32>,
    /// Whether it stands still, and what lets it go on.
    stands_still: Option<Standstill>,
}

impl HolderView {
    /// A process that has the lock from a holder which is gone; by that one's right, so with its time and generation.
    fn heir(heirs: &Heirs) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            pid: heirs.pid,
            kind: heirs.name.clone(),
            uid: std::fs::metadata(format!("/proc/{}", heirs.pid))
                .ok()
                .map(|process| process.uid()),
            stands_still: Standstill::of(heirs.pid),
            ..Self::of(&heirs.left_by)
        }
    }

    fn of(holder: &Holder) -> Self {
        Self {
            pid: holder.pid,
            kind: holder.kind.as_str().to_owned(),
            since: holder.since.clone(),
            generation: holder.generation(),
            uid: holder.uid(),
            stands_still: None,
        }
    }

    /// As [`HolderView::of`], for one whose lock was just looked at.
    fn of_held(held: &Held) -> Option<Self> {
        let holder = held.holder.as_ref()?;
        let is_here = held.liveness == Some(Liveness::Alive);
        Some(Self {
            stands_still: is_here.then(|| Standstill::of(holder.pid)).flatten(),
            ..Self::of(holder)
        })
    }

    /// That it stands still, and what helps, for the end of a sentence.
    fn standing_still(&self) -> String {
        let line = self.stands_still.as_ref().map(Standstill::to_line);
        line.map(|line| format!("; {line}")).unwrap_or_default()
    }

    /// `pid 4711 (chat-nex) since 2 h ago`.
    fn to_text(&self, now: Timestamp) -> String {
        let since = Timestamp::parse(&self.since)
            .map(|since| format!(" since {}", since.ago_in_words(now)))
            .unwrap_or_default();
        format!("pid {} ({}){since}", self.pid, self.kind)
    }
}

/// Who holds a session, for `--json`.
#[derive(Debug, Serialize)]
struct SessionView {
    session: String,
    chat_id: Option<u32>,
    task_id: Option<String>,
    dir: PathBuf,
    /// `free`, `held`, `stale` or `corrupt`.
    state: &'static str,
    holder: Option<HolderView>,
    /// The holder that is gone, where the one above has the lock from it.
    left_by: Option<HolderView>,
    /// Why it counts as it does.
    reason: Option<String>,
    /// Who has the lock from a holder that is gone.
    #[serde(skip)]
    heirs: Option<Heirs>,
    /// Something else stands where the lock keeps a file.
    #[serde(skip)]
    cannot_be_locked: bool,
}

impl SessionView {
    fn of(target: &Target) -> Outcome<Self> {
        let mut heirs = None;
        let mut cannot_be_locked = false;
        let view = |holder: &Holder| Some(HolderView::of(holder));
        let (state, holder, reason) = match look(target)? {
            Inspection::Free => ("free", None, None),
            Inspection::Held(held) => {
                let reason = Some(held.reason.to_string());
                heirs = Heirs::of(&held);
                let holder = match &heirs {
                    Some(heirs) => Some(HolderView::heir(heirs)),
                    None => HolderView::of_held(&held),
                };
                ("held", holder, reason)
            }
            Inspection::Stale { holder, liveness } => (
                "stale",
                view(&holder),
                Some(format!("its holder is gone: {liveness:?}").to_lowercase()),
            ),
            Inspection::Corrupt { path, node } => {
                let what = node.map_or_else(
                    || "is no record, and counts as none".to_owned(),
                    |node| format!("is a {node}, not a regular file (wg session check --fix)"),
                );
                cannot_be_locked = node.is_some();
                (
                    "corrupt",
                    None,
                    Some(format!("`{}` {what}", path.display())),
                )
            }
            _ => (
                "held",
                None,
                Some("the lock says something that this version does not know".to_owned()),
            ),
        };
        Ok(Self {
            session: target.name.clone(),
            chat_id: target.chat.map(|chat| chat.0),
            task_id: target.chat.map(crate::store::graph::ChatId::task_id),
            dir: target.dir.clone(),
            state,
            holder,
            left_by: heirs.as_ref().map(|heirs| HolderView::of(&heirs.left_by)),
            reason,
            heirs,
            cannot_be_locked,
        })
    }

    fn standing_still(&self) -> String {
        self.holder
            .as_ref()
            .map(HolderView::standing_still)
            .unwrap_or_default()
    }

    fn to_text(&self, now: Timestamp) -> String {
        let who = self
            .holder
            .as_ref()
            .map(|holder| match &self.heirs {
                Some(heirs) => format!(" {heirs}"),
                None => format!(" {}", holder.to_text(now)),
            })
            .unwrap_or_default();
        match self.state {
            "held" => format!(
                "{}: held by{}{}",
                self.session,
                if who.is_empty() { " somebody" } else { &who },
                self.standing_still()
            ),
            "stale" => format!("{}: free; its last holder{who} is gone", self.session),
            "corrupt" => format!(
                "{}: {}; {}",
                self.session,
                if self.cannot_be_locked {
                    "cannot be locked"
                } else {
                    "free"
                },
                self.reason.as_deref().unwrap_or_default()
            ),
            _ => format!("{}: free", self.session),
        }
    }
}

/// Looks at a lock; a session whose directory is not made yet is free.
fn look(target: &Target) -> Outcome<Inspection> {
    if !target.dir.exists() {
        return Ok(Inspection::Free);
    }
    session_lock::inspect(&target.dir).map_err(|error| {
        Failure::new(
            ExitCode::System,
            format!("failed to look at the lock of {}", target.name),
        )
        .caused_by(error)
    })
}

fn status(cx: &Context<'_>, one: &One) -> Outcome {
    let workspace = cx.workspace()?;
    let view = SessionView::of(&Target::find(cx, &workspace, &one.session)?)?;
    let now = clock::now();
    cx.report.answer(&view, || view.to_text(now))?;
    Ok(ExitCode::Ok)
}

#[derive(Debug, Serialize)]
struct Sessions {
    sessions: Vec<SessionView>,
}

fn list(cx: &Context<'_>) -> Outcome {
    let workspace = cx.workspace()?;
    let targets = Target::all(cx, &workspace)?;
    let views = Sessions {
        sessions: targets
            .iter()
            .map(SessionView::of)
            .collect::<Outcome<_>>()?,
    };
    cx.report.answer(&views, || {
        if views.sessions.is_empty() {
            return "No sessions. A chat's first message makes one.".to_owned();
        }
        let now = clock::now();
        let mut table = Table::new(&["SESSION", "LOCK", "HOLDER", "DIRECTORY"]);
        for view in &views.sessions {
            let holder = match (&view.heirs, &view.holder) {
                (Some(heirs), _) => heirs.to_string(),
                (None, Some(holder)) => holder.to_text(now),
                (None, None) => String::new(),
            };
            let dir = view
                .dir
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            table.row(&[view.session.clone(), view.state.to_owned(), holder, dir]);
        }
        let mut text = table.to_text(|_, cell| cell.to_owned());
        for view in &views.sessions {
            if let Some(one) = view.holder.as_ref().and_then(|it| it.stands_still.as_ref()) {
                text.extend([view.session.as_str(), ": ", &one.to_line(), "\n"]);
            }
        }
        text
    })?;
    Ok(ExitCode::Ok)
}

/// What became of a release or a takeover, for `--json`.
#[derive(Debug, Serialize)]
struct Handover {
    session: String,
    chat_id: Option<u32>,
    task_id: Option<String>,
    was_held: bool,
    /// Who held it.
    holder: Option<HolderView>,
    /// The holder that was gone already, where the one above had the lock from it.
    left_by: Option<HolderView>,
    /// Whether it may be taken now.
    free: bool,
    /// Who has taken it in the meantime.
    taken_by: Option<HolderView>,
    /// Whether the holder had to be signalled.
    signalled: bool,
}

impl Handover {
    fn of(target: &Target, held: Option<&Held>) -> Self {
        let heirs = held.and_then(Heirs::of);
        Self {
            session: target.name.clone(),
            chat_id: target.chat.map(|chat| chat.0),
            task_id: target.chat.map(crate::store::graph::ChatId::task_id),
            was_held: held.is_some(),
            holder: heirs
                .as_ref()
                .map(HolderView::heir)
                .or_else(|| held.and_then(HolderView::of_held)),
            left_by: heirs.map(|heirs| HolderView::of(&heirs.left_by)),
            free: true,
            taken_by: None,
            signalled: false,
        }
    }

    fn to_text(&self, now: Timestamp) -> String {
        let name = &self.session;
        if let Some(by) = &self.taken_by {
            return format!("{name}: released, and taken by {}", by.to_text(now));
        }
        match (&self.holder, self.free) {
            (None, true) => format!("{name}: nobody holds it"),
            (None, false) => format!("{name}: still held"),
            (Some(holder), true) if self.signalled => {
                format!("{name}: {} was ended; it is free now", holder.to_text(now))
            }
            (Some(holder), true) => {
                format!("{name}: {} has left; it is free now", holder.to_text(now))
            }
            (Some(holder), false) if self.left_by.is_some() => {
                format!(
                    "{name}: still held by {}, whom nobody can ask",
                    holder.to_text(now)
                )
            }
            (Some(holder), false) => format!("{name}: asked {} to leave", holder.to_text(now)),
        }
    }
}

/// Who has a session, named before anything is asked of it.
fn told(cx: &Context<'_>, target: &Target) -> Outcome<Option<Held>> {
    // Whatever else a look may find is not held by anybody who could be asked.
    let Inspection::Held(held) = look(target)? else {
        return Ok(None);
    };
    let name = &target.name;
    if let Some(heirs) = Heirs::of(&held) {
        cx.report.note(&format!(
            "{name}: held by {heirs}; nobody can be asked to leave (wg session takeover {name} ends what was left)"
        ));
    } else if let Some(holder) = HolderView::of_held(&held) {
        cx.report.note(&format!(
            "{name}: held by {}; {}{}",
            holder.to_text(clock::now()),
            held.reason,
            holder.standing_still()
        ));
    }
    Ok(Some(held))
}

/// How long the service may take to answer those who do not wait for the session itself.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// The service must not take back at once what is released to a person, who waits for it no longer than for the session.
fn let_the_service_hold_off(workspace: &Workspace, target: &Target, wait: Duration) -> Outcome<()> {
    let patience = Patience::For(wait.max(SHORTEST_WAIT)).begun();
    match target.chat {
        Some(chat) => ops::hold_off(workspace, chat, &Caller::from_env(), patience),
        None => Ok(()),
    }
}

fn release(cx: &Context<'_>, args: &Release) -> Outcome {
    let workspace = cx.own_workspace()?;
    let target = Target::find(cx, &workspace, &args.session)?;
    let held = told(cx, &target)?;
    let mut handover = Handover::of(&target, held.as_ref());
    if held.is_some() {
        let until = clock::steady() + args.wait;
        let_the_service_hold_off(&workspace, &target, args.wait)?;
        // A holder that is gone reads no request; whoever has the lock from it may end all the same.
        if handover.left_by.is_none() {
            session_lock::request_release(&target.dir).map_err(|error| {
                Failure::new(
                    ExitCode::System,
                    format!("failed to ask for the release of {}", target.name),
                )
                .caused_by(error)
            })?;
        }
        match session_lock::wait_free(&target.dir, until) {
            Ok(Freed::Taken { by }) => {
                handover.free = false;
                handover.taken_by = Some(HolderView::of(&by));
            }
            // It is free now, in whatever way.
            Ok(_) => {}
            Err(WaitError::TimedOut { .. }) => handover.free = false,
            Err(error) => {
                return Err(Failure::new(
                    ExitCode::System,
                    format!("failed to wait for {}", target.name),
                )
                .caused_by(error));
            }
        }
    }
    let now = clock::now();
    cx.report.done(&handover, || handover.to_text(now))?;
    // Who waits for nothing has not waited in vain, unless nobody could be asked.
    if handover.free || (args.wait == Duration::ZERO && handover.left_by.is_none()) {
        return Ok(ExitCode::Ok);
    }
    // Once more: it may have been stopped meanwhile, or have gone on.
    let standing_still = if let Inspection::Held(held) = look(&target)? {
        HolderView::of_held(&held).map(|holder| holder.standing_still())
    } else {
        None
    };
    let by = handover
        .taken_by
        .as_ref()
        .or(handover.holder.as_ref())
        .map(|holder| format!(" by {}", holder.to_text(now)));
    Err(Failure::new(
        ExitCode::Held,
        format!(
            "{} is still held{}{}",
            target.name,
            by.unwrap_or_default(),
            standing_still.unwrap_or_default()
        ),
    )
    .with_cure(format!(
        "wait longer with --wait, or: {}",
        takeover_command(&target.name, held.as_ref())
    )))
}

/// The command that ends whoever has the session; one who is known by a number alone is ended only where that is asked for by name.
fn takeover_command(session: &str, held: Option<&Held>) -> String {
    let is_unproven = held.is_some_and(|held| held.reason == HeldReason::Foreign);
    let flag = if is_unproven { " --allow-unproven" } else { "" };
    format!("wg session takeover {session}{flag}")
}

fn takeover(cx: &Context<'_>, args: &Takeover) -> Outcome {
    /// How long a process has after SIGTERM, and the kernel after SIGKILL.
    const SIGNAL_GRACE: Duration = Duration::from_secs(10);
    let workspace = cx.own_workspace()?;
    let target = Target::find(cx, &workspace, &args.session)?;
    let held = told(cx, &target)?;
    let mut handover = Handover::of(&target, held.as_ref());
    if target.dir.exists() {
        let policy = TakeoverPolicy {
            request_grace: if args.force {
                Duration::ZERO
            } else {
                args.grace
            },
            term_grace: if args.force {
                Duration::ZERO
            } else {
                SIGNAL_GRACE
            },
            kill_grace: SIGNAL_GRACE,
            unproven: if args.allow_unproven {
                Unproven::Allow
            } else {
                Unproven::Refuse
            },
        };
        let name = &target.name;
        let failed = |error| {
            takeover_failure(
                name,
                error,
                format!("wg session status {name}"),
                format!(
                    "wg session release {name} asks it to leave; if it is the holder: wg session takeover {name} --allow-unproven"
                ),
            )
        };
        // Where it is refused, nobody gets the session, and the service need not keep away from it.
        session_lock::check_takeover(&target.dir, &policy).map_err(failed)?;
        let_the_service_hold_off(&workspace, &target, args.grace)?;
        let taken = session_lock::takeover(&target.dir, &policy).map_err(failed)?;
        handover.signalled = matches!(taken, TakenOver::Ended { .. });
    }
    let now = clock::now();
    cx.report.done(&handover, || handover.to_text(now))?;
    Ok(ExitCode::Ok)
}

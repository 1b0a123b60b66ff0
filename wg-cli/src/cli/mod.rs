//! The command line of `wg`: parse, call, print. What a verb *does* lives in the modules that it calls.

pub mod args;
mod attach;
mod chat;
mod completions;
mod context;
mod conversation;
mod doctor;
mod finding;
mod follow;
mod graph;
mod input;
mod lock;
mod man;
mod migrate;
mod nex;
mod run;
mod service;
mod session;
mod table;
mod takeover;
mod top;
mod up;
mod usage;
mod wait;
mod why;
mod workspace;

use std::ffi::OsString;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};

use clap::Parser;

use self::args::service::ServiceCommand;
use self::args::{Cli, Command, Globals};
use self::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::report::Report;

/// Runs the command line of this process and returns what it leaves with.
#[must_use]
pub fn main() -> u8 {
    panic::set_hook(Box::new(|info| {
        // The message may hold anything that a user typed; the log crate is not set up for every verb.
        drop(
            std::io::stderr().lock().write_all(
                format!(
                    "error: a bug in wg: {}\n",
                    crate::report::one_line(&info.to_string())
                )
                .as_bytes(),
            ),
        );
    }));
    // A limit of file sizes is then an error of the write, told like any other, and not a death in the middle of it. A handler, unlike
    // an ignored signal, is not inherited by what is started.
    let unheeded = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    if let Err(error) = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, unheeded) {
        log::debug!("the signal of too large a file keeps its meaning: {error}");
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    // The hook has already told what happened.
    panic::catch_unwind(AssertUnwindSafe(|| run(&args))).unwrap_or(ExitCode::Bug.code())
}

/// Runs one command line, given with the program's name in front, and returns what the process leaves with: a code of the table,
/// or the code of the command that it ran.
#[must_use]
pub fn run(args: &[OsString]) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error, args).code(),
    };
    let report = Report::new(cli.globals.voice());
    if !is_the_service(&cli.command) {
        start_log(&cli.globals);
    }
    let outcome = if let Command::Run(run) = &cli.command {
        run::run(&report, run)
    } else if let Command::Lock(lock) = cli.command {
        lock::run(&report, lock.command)
    } else {
        dispatch(cli.globals, cli.command, &report, args).map(ExitCode::code)
    };
    outcome.unwrap_or_else(|failure| {
        report.failure(&failure);
        failure.code.code()
    })
}

fn dispatch(globals: Globals, command: Command, report: &Report, args: &[OsString]) -> Outcome {
    let cx = Context::new(globals, report);
    match command {
        Command::Up(up) => up::run(&cx, &up),
        Command::Init(init) => workspace::init(&cx, &init),
        Command::Which => workspace::which(&cx),
        Command::List(list) => graph::list(&cx, &list),
        Command::Show(show) => graph::show(&cx, &show),
        Command::Chat(chat) => chat::run(&cx, *chat, args),
        Command::Session(session) => session::run(&cx, session.command),
        Command::Service(service) => service::run(&cx, service.command),
        Command::Why(why) => why::run(&cx, &why),
        Command::Nex(nex) => nex::run(&cx, nex),
        Command::SpawnTask(spawn) => nex::spawn_task(&cx, &spawn),
        Command::Migrate(migrate) => migrate::run(&cx, &migrate.command),
        Command::Doctor(doctor) => doctor::run(&cx, &doctor),
        Command::Completions(completions) => completions::run(&cx, &completions),
        Command::Top(args) => top::run(&cx, &args),
        // They leave with codes of their own, so they do not come here.
        Command::Run(_) | Command::Lock(_) => Err(not_built("this", "this is a bug")),
        Command::Man(args) => man::run(&cx, &args),
    }
}

/// A verb that the manual names and this version does not have: refused, never faked.
fn not_built(verb: &str, instead: &str) -> Failure {
    Failure::new(ExitCode::Usage, format!("`{verb}` is not built yet")).with_cure(instead)
}

/// Whether this process becomes the service, which writes a log of its own.
fn is_the_service(command: &Command) -> bool {
    let Command::Service(service) = command else {
        return false;
    };
    matches!(&service.command, ServiceCommand::Daemon(_))
        || matches!(&service.command, ServiceCommand::Start(args) | ServiceCommand::Restart(args) if args.foreground)
}

/// Logs go to stderr: warnings always, more with `-vv` or by `WG_LOG`.
fn start_log(globals: &Globals) {
    let level = match globals.verbose {
        _ if globals.quiet => log::LevelFilter::Error,
        0 | 1 => log::LevelFilter::Warn,
        2 => log::LevelFilter::Debug,
        3.. => log::LevelFilter::Trace,
    };
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level);
    if let Ok(filter) = std::env::var("WG_LOG") {
        builder.parse_filters(&filter);
    }
    if globals.json {
        builder.format(|out, record| {
            let text = format!(
                "{}: {}",
                record.level().as_str().to_lowercase(),
                record.args()
            );
            out.write_all(crate::report::note_as_json(&text).as_bytes())
        });
    }
    // A second logger in one process is a test's business.
    drop(builder.try_init());
}

//! The settings: what they say when nothing is said, and how they complain.

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use wg_cli::exit_code::ExitCode;
use wg_cli::names::Protocol;
use wg_cli::store::config::{Config, Exclusive, MaxTurns, MemoryCap, OnInterrupted};

use crate::world::World;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("config.toml")).map_err(|failure| {
        assert_eq!(failure.code, ExitCode::Config);
        failure.to_string()
    })
}

#[track_caller]
fn complains(text: &str, says: &str) {
    assert_eq!(parse(text).unwrap_err(), says);
}

#[test]
fn without_a_file_everything_has_its_default() {
    let world = World::new();
    fs::remove_file(world.workspace.config_path()).unwrap();
    let config = Config::load(&world.workspace).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.service.idle_timeout, Duration::from_secs(300));
    assert_eq!(config.service.stall_ceiling, Duration::from_secs(600));
    assert_eq!(config.service.stop_grace, Duration::from_secs(10));
    assert_eq!(config.service.max_starts.get(), 4);
    assert_eq!(
        (config.service.log_max_size, config.service.log_keep),
        (10 << 20, 5)
    );
    assert_eq!(
        (config.service.max_turns, config.service.memory_cap),
        (MaxTurns::Auto, MemoryCap::Auto)
    );
    assert_eq!(config.service.on_interrupted, OnInterrupted::Auto);
    assert_eq!(config.supervisor, supervisor::Policy::standard());
}

#[test]
fn what_a_new_workspace_is_given_reads_as_the_defaults() {
    assert_eq!(
        Config::load(&World::new().workspace).unwrap(),
        Config::default()
    );
}

#[test]
fn every_setting_is_read() {
    let config = parse(
        r#"
        [service]
        agent = "mine"
        max_turns = 3
        idle_timeout = "1.5m"
        stall_ceiling = 20
        stop_grace = "250ms"
        max_starts = 8
        memory_cap = "2GiB"
        on_interrupted = "retry"
        log_max_size = "64KiB"
        log_keep = 2

        [supervisor]
        backoff_first = "2s"
        backoff_cap = "30s"
        jitter = 0
        crash_soft = 5
        contention_pauses = [1, "2s"]

        [agents.mine]
        command = ["my-agent", "--say", "{message}"]
        protocol = "arg"
        env = { KEY = "value" }
        cwd = "sub/dir"
        stop_signals = ["INT", "SIGTERM"]
        stall_ceiling = "15m"
        exclusive = "dir"
        leave_children = true

        [agents.claude]
        stall_ceiling = "30m"
        "#,
    )
    .unwrap();
    let service = &config.service;
    assert_eq!(service.agent.as_deref(), Some("mine"));
    assert_eq!(
        service.max_turns,
        MaxTurns::Count(NonZeroU32::new(3).unwrap())
    );
    assert_eq!(service.idle_timeout, Duration::from_secs(90));
    assert_eq!(service.stall_ceiling, Duration::from_secs(20));
    assert_eq!(service.stop_grace, Duration::from_millis(250));
    assert_eq!(service.max_starts.get(), 8);
    assert_eq!(service.memory_cap, MemoryCap::Bytes(2 << 30));
    assert_eq!(service.on_interrupted, OnInterrupted::Retry);
    assert_eq!((service.log_max_size, service.log_keep), (64 << 10, 2));
    assert_eq!(config.supervisor.backoff_first, Duration::from_secs(2));
    assert_eq!(config.supervisor.crash_soft, 5);
    assert_eq!(
        config.supervisor.contention_pauses,
        [1, 2].map(Duration::from_secs)
    );
    let mine = &config.agents["mine"];
    assert_eq!(
        mine.command.as_deref().unwrap(),
        ["my-agent", "--say", "{message}"]
    );
    assert_eq!(
        (mine.protocol, mine.exclusive, mine.leave_children),
        (Some(Protocol::Arg), Some(Exclusive::Dir), Some(true))
    );
    assert_eq!(mine.env["KEY"], "value");
    assert_eq!(mine.stop_signals.as_ref().unwrap().len(), 2);
    assert_eq!(
        config.agents["claude"].stall_ceiling,
        Some(Duration::from_secs(1800)),
        "a built-in one needs no command"
    );
    assert_eq!(config.agent_names(), ["claude", "codex", "echo", "mine"]);
}

#[test]
fn a_bad_value_is_told_with_file_line_key_and_what_is_allowed() {
    complains(
        "[service]\n\nmax_turns = \"many\"\n",
        "`config.toml` line 3: `service.max_turns` is \"many\", allowed is \"auto\" or a number from 1 on",
    );
    complains(
        "[service]\nidle_timeout = \"soon\"",
        "`config.toml` line 2: `service.idle_timeout` is \"soon\", allowed is a time such as \"300s\", \"10m\", \"1.5h\" or a number of seconds",
    );
    complains(
        "[service]\nmax_starts = 0",
        "`config.toml` line 2: `service.max_starts` is 0, allowed is a number from 1 on",
    );
    complains(
        "[service]\nmax_starts = -1",
        "`config.toml` line 2: `service.max_starts` is -1, allowed is a number from 1 on",
    );
    complains(
        "[service]\nagent = \"nobody\"\n[agents.a]\ncommand = [\"a\"]",
        "`config.toml` line 2: `service.agent` is \"nobody\", allowed is one of a, claude, codex, echo, or a command as a list of texts",
    );
    complains(
        "[service]\nlog_keep = 5000",
        "`config.toml` line 2: `service.log_keep` is 5000, allowed is a number from 0 to 1000",
    );
    complains(
        "[supervisor]\njitter = 3.5",
        "`config.toml` line 2: `supervisor.jitter` is 3.5, allowed is a share from 0.0 to 0.5",
    );
    complains(
        "[agents.x]\ncommand = []",
        "`config.toml` line 2: `agents.x.command` is [], allowed is a list of texts, the program first",
    );
    complains(
        "[agents.x]\nexclusive = \"dir\"",
        "`config.toml` line 2: `agents.x.command` is missing, allowed is a list of texts, the program first",
    );
    complains(
        "[agents.x]\ncommand = [\"x\"]\nprotocol = \"arg\"",
        "`config.toml` line 2: `agents.x.command` is [\"x\"], allowed is under protocol \"arg\" a list with `{message}` in one of the arguments",
    );
    complains(
        "[agents.x]\ncommand = [\"x\"]\nstop_signals = [\"STOP\"]",
        "`config.toml` line 3: `agents.x.stop_signals` is [\"STOP\"], allowed is a list of: HUP, INT, QUIT, TERM, KILL, USR1, USR2",
    );
    complains(
        "service = 7",
        "`config.toml` line 1: `service` is 7, allowed is a section [service]",
    );
    complains(
        "[agents]\nx = 1",
        "`config.toml` line 2: `agents.x` is 1, allowed is a section [agents.x]",
    );
}

#[test]
fn an_unknown_key_is_told_with_those_that_are_known() {
    let complaint = parse("[service]\nstop_grace = \"1s\"\nstop_grcae = \"1s\"\n").unwrap_err();
    assert!(
        complaint.starts_with(
            "`config.toml` line 3: `service.stop_grcae` is no setting, allowed are: agent, "
        ),
        "{complaint}"
    );
    let complaint = parse("[supervisor]\nbackoff = \"1s\"").unwrap_err();
    assert!(
        complaint.contains("`supervisor.backoff` is no setting")
            && complaint.contains("backoff_first"),
        "{complaint}"
    );
    let complaint = parse("[agents.x]\ncommand = [\"x\"]\nstdin = true").unwrap_err();
    assert!(
        complaint.contains("`agents.x.stdin` is no setting"),
        "{complaint}"
    );
}

#[test]
fn the_supervisors_own_rules_are_told_in_the_same_form() {
    let complaint = parse("[supervisor]\nbackoff_first = \"0s\"").unwrap_err();
    assert!(
        complaint
            .starts_with("`config.toml` line 2: `supervisor.backoff_first` is \"0s\", allowed is "),
        "{complaint}"
    );
    assert!(parse("[supervisor]\nbackoff_first = 0\nunsafe_no_backoff = true").is_ok());
    complains(
        "[supervisor]\nbackoff_first = \"100ms\"\nbackoff_cap = \"100ms\"",
        "`config.toml` line 3: `supervisor.backoff_cap` is \"100ms\", allowed is at least 1s, unless `unsafe_no_backoff` is true",
    );
    complains(
        "[supervisor]\nbackoff_first = \"2m\"",
        "`config.toml` line 2: `supervisor.backoff_cap` is 60s where it is not set, allowed is not less than the first pause",
    );
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let complaint = parse("[service]\nagent = echo\n").unwrap_err();
    assert!(
        complaint.starts_with("`config.toml` line 2: "),
        "{complaint}"
    );
    assert!(!complaint.contains('\n'), "{complaint}");
    let world = World::new();
    fs::write(world.workspace.config_path(), b"a = 1\nb = \"\xff\"\n").unwrap();
    let complaint = Config::load(&world.workspace).unwrap_err();
    assert_eq!(complaint.code, ExitCode::Config);
    assert!(
        complaint.to_string().ends_with("line 2: this is not UTF-8"),
        "{complaint}"
    );
}

#[test]
fn sections_of_others_may_say_what_they_like() {
    assert_eq!(
        parse("[dispatcher]\nagent = 7\n[[x]]\ny = 1979-05-27\n").unwrap(),
        Config::default()
    );
}

#[test]
fn the_settings_may_be_a_link_and_a_pipe_hangs_nobody() {
    let world = World::new();
    let path = world.workspace.config_path();
    fs::rename(&path, world.path("real.toml")).unwrap();
    fs::write(world.path("real.toml"), "[service]\nlog_keep = 1").unwrap();
    std::os::unix::fs::symlink("real.toml", &path).unwrap();
    assert_eq!(Config::load(&world.workspace).unwrap().service.log_keep, 1);
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(Config::load(&world.workspace).is_err());
}

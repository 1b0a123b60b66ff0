//! Which agent answers a chat.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use wg_cli::agent::{AgentSpec, Program};
use wg_cli::exit_code::ExitCode;
use wg_cli::names::Protocol;
use wg_cli::store::config::Config;
use wg_cli::store::graph::{ChatId, ChatTask, Graph};

/// Returns a chat whose task has these further fields.
fn chat(fields: &str) -> ChatTask {
    let line = format!("{{\"kind\":\"task\",\"id\":\".chat-0\"{fields}}}\n");
    Graph::parse(line.as_bytes(), "g")
        .graph
        .chat(ChatId(0))
        .unwrap()
}

fn config(text: &str) -> Config {
    Config::parse(text, Path::new("config.toml")).unwrap()
}

/// Returns a directory with executables of these names.
fn bin(names: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in names {
        let path = dir.path().join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

fn argv(spec: &AgentSpec) -> Vec<String> {
    match &spec.program {
        Program::Argv(argv) => argv
            .iter()
            .map(|word| word.to_str().unwrap().to_owned())
            .collect(),
        Program::BuiltInEcho => vec!["(echo)".to_owned()],
    }
}

#[track_caller]
fn answers(config_text: &str, fields: &str, path: &OsStr, expected: &str) -> AgentSpec {
    let spec = AgentSpec::for_chat_on(&config(config_text), &chat(fields), path).unwrap();
    assert_eq!(argv(&spec).join(" "), expected, "{config_text} {fields}");
    spec
}

#[test]
fn the_default_is_the_first_known_agent_on_the_path_and_else_the_echo() {
    let nothing = OsString::new();
    answers("", "", &nothing, "(echo)");
    answers(
        "",
        "",
        bin(&["codex"]).path().as_os_str(),
        "codex exec --skip-git-repo-check -",
    );
    answers(
        "",
        "",
        bin(&["codex", "claude"]).path().as_os_str(),
        "claude -p",
    );
    let command = "[service]\nagent = [\"my-agent\", \"--say\", \"{message}\"]";
    assert_eq!(
        answers(command, "", &nothing, "my-agent --say {message}").protocol,
        Protocol::Arg
    );
    let file = bin(&["claude"]);
    fs::set_permissions(
        file.path().join("claude"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    answers("", "", file.path().as_os_str(), "(echo)");
    answers(
        "[service]\nagent = \"echo\"",
        "",
        bin(&["claude"]).path().as_os_str(),
        "(echo)",
    );
}

#[test]
fn a_chat_is_answered_by_what_it_names() {
    let nothing = OsString::new();
    let mine = "[agents.mine]\ncommand = [\"a\", \"b\"]\nstop_signals = [\"INT\"]\n[service]\nstall_ceiling = \"7s\"";
    let spec = answers(
        mine,
        r#","executor_preset_name":"mine","command_argv":["x"]"#,
        &nothing,
        "a b",
    );
    assert_eq!(
        (
            spec.name.as_str(),
            spec.protocol,
            spec.stop_signals.len(),
            spec.stall_ceiling.as_secs()
        ),
        ("mine", Protocol::Stdin, 1, 7)
    );
    answers(
        "",
        r#","executor_preset_name":"codex""#,
        &nothing,
        "codex exec --skip-git-repo-check -",
    );
    let spec = answers(
        "",
        r#","command_argv":["bash","-lc","cat"]"#,
        &nothing,
        "bash -lc cat",
    );
    assert_eq!(
        (spec.name.as_str(), spec.protocol),
        ("bash", Protocol::Stdin)
    );
    let spec = answers(
        "",
        r#","command_argv":["say","{message}"],"working_dir":"/tmp""#,
        &nothing,
        "say {message}",
    );
    assert_eq!(
        (spec.protocol, spec.cwd.as_deref()),
        (Protocol::Arg, Some(Path::new("/tmp")))
    );
    answers(
        "",
        r#","command_argv":["x"],"executor_preset_name":"custom""#,
        &nothing,
        "x",
    );
}

#[test]
fn the_earlier_tools_own_handler_is_never_the_agent_of_ours() {
    let nothing = OsString::new();
    let fields =
        r#","command_argv":["/usr/bin/wg","nex","-m","fake"],"executor_preset_name":"nex""#;
    answers("", fields, &nothing, "(echo)");
    answers(
        "",
        r#","command_argv":["wg","--dir","x","claude-handler"],"executor_preset_name":"claude""#,
        &nothing,
        "claude -p",
    );
    answers(
        "[service]\nagent = \"codex\"",
        fields,
        &nothing,
        "codex exec --skip-git-repo-check -",
    );
}

#[test]
fn an_agent_that_is_not_there_is_told_with_those_that_are() {
    let failure = AgentSpec::for_chat_on(
        &config(""),
        &chat(r#","executor_preset_name":"gemini""#),
        OsStr::new(""),
    )
    .unwrap_err();
    assert_eq!(failure.code, ExitCode::Config);
    assert_eq!(
        failure.to_string(),
        "there is no agent `gemini` (known here: claude, codex, echo; others are made in config.toml under [agents.NAME])"
    );
}

#[test]
fn settings_go_over_what_is_built_in() {
    let text = "[agents.claude]\nleave_children = true\n[agents.echo]\ncommand = [\"cat\"]";
    let spec = answers(
        text,
        r#","executor_preset_name":"claude""#,
        OsStr::new(""),
        "claude -p",
    );
    assert!(spec.leave_children);
    answers(text, "", OsStr::new(""), "cat");
}

#[test]
fn the_model_goes_where_the_agent_takes_it_and_into_the_environment() {
    let nothing = OsString::new();
    let fields = |preset: &str, model: &str| {
        format!(
            ",\"executor_preset_name\":\"{preset}\",\"model\":\"{model}\",\"endpoint\":\"http://x\""
        )
    };
    let spec = answers(
        "",
        &fields("claude", "claude:opus"),
        &nothing,
        "claude --model opus -p",
    );
    assert_eq!(spec.env[OsStr::new("WG_MODEL")], "claude:opus");
    assert_eq!(spec.env[OsStr::new("WG_ENDPOINT")], "http://x");
    answers(
        "",
        &fields("codex", "gpt"),
        &nothing,
        "codex exec --model gpt --skip-git-repo-check -",
    );
    let other = answers(
        "",
        ",\"command_argv\":[\"x\"],\"model\":\"m\"",
        &nothing,
        "x",
    );
    assert_eq!(other.env[OsStr::new("WG_MODEL")], "m");
}

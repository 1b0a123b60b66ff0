//! What `wg` refuses, and what it says, where the place it is run in is not what it should be: somebody else's workspace, a directory
//! that is gone, a limit on files, a service that does not answer, names that mean the workspace's own files.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::errors::told;
use crate::world::{WATCHDOG, World};

/// An agent that leaves a trace where it runs.
const CANARY: &str = "[service]\nagent = \"canary\"\n[agents.canary]\ncommand = [\"sh\", \"-c\", \": > ran; cat\"]\n";

#[test]
fn the_settings_of_somebody_elses_workspace_run_no_command_under_any_verb() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    fs::write(world.path(".wg/config.toml"), CANARY).unwrap();
    let before = world.read(".wg/graph.jsonl");
    for theirs in [".wg", ".wg/config.toml", ".wg/graph.jsonl"] {
        chown(world.path(theirs), Some(65534), Some(65534)).unwrap();
    }
    for verb in [
        "nex hello",
        "nex --eval-mode hello",
        "nex --chat 0",
        "spawn-task .chat-0",
        "up hello",
        "service start",
        "chat hello",
        "chat send 0 hello",
        "chat new",
        "chat stop 0",
        "session new mine",
        "session release 0",
        "session takeover 0 --force",
        "migrate chat-rename",
    ] {
        let args: Vec<&str> = verb.split(' ').collect();
        told(&world.wg(&args), 77, &["belongs to user 65534"]);
        assert!(!world.path("ran").exists(), "{verb} ran their command");
    }
    assert_eq!(world.read(".wg/graph.jsonl"), before);
    // Looking is no writing.
    world.wg(&["list"]).ok();
    world.wg(&["session", "status", "0"]).ok();
}

#[test]
fn no_reference_and_no_name_means_a_file_of_the_workspace_itself() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let archive = world.path(".wg/chat/.archive/old");
    fs::create_dir_all(&archive).unwrap();
    std::os::unix::fs::symlink(world.here(), world.path(".wg/chat/link")).unwrap();
    for (args, code) in [
        (&["session", "status", "."][..], 2),
        (&["session", "release", "."], 2),
        (&["session", "rm", ".", "--yes"], 2),
        (&["session", "rm", ".archive", "--yes"], 1),
        (&["session", "rm", "link", "--yes"], 1),
        (&["session", "new", "sessions.json"], 1),
        (&["session", "new", "sessions.json.lock"], 1),
        (&["session", "new", " scratch"], 2),
    ] {
        told(&world.wg(args), code, &[]);
    }
    assert!(archive.is_dir());
    assert!(!world.path(".wg/chat/.handler.guard").exists());
    world.wg(&["session", "list"]).ok();
    world.wg(&["chat", "new"]).ok();
}

#[test]
fn a_directory_that_was_removed_under_us_is_said_to_be_gone() {
    let world = World::new();
    let wg = env!("CARGO_BIN_EXE_wg");
    for (verb, code) in [("which", 1), ("list", 1), ("init", 71), ("up hello", 71)] {
        let gone = format!("PATH=/usr/bin:/bin; mkdir gone; cd gone; rmdir ../gone; '{wg}' {verb}");
        told(
            &world.sh_unchecked(&gone),
            code,
            &["the current directory is gone", "--dir"],
        );
    }
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_death_by_a_signal() {
    let world = World::with_workspace();
    let wg = env!("CARGO_BIN_EXE_wg");
    let done = world.sh_unchecked(&format!("ulimit -f 0; '{wg}' chat new"));
    told(&done, 71, &["File too large"]);
    // What is started has the meaning that the signal had.
    let done = world.sh_unchecked(&format!(
        "'{wg}' run --restart never -- cat /proc/self/status"
    ));
    let status = done.ok().stdout;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap();
    assert_eq!(ignored & (1 << (nix::libc::SIGXFSZ - 1)), 0, "{ignored:x}");
}

#[test]
fn a_service_that_could_answer_nobody_for_want_of_descriptors_is_not_started() {
    let world = World::with_workspace();
    let wg = env!("CARGO_BIN_EXE_wg");
    let done = world.sh_unchecked(&format!("ulimit -n 20; '{wg}' service start"));
    told(
        &done,
        71,
        &["only 20 files may be open at once", "ulimit -n"],
    );
}

#[test]
fn a_person_is_named_without_the_variables_that_name_people() {
    let Ok(Some(me)) = nix::unistd::User::from_uid(nix::unistd::geteuid()) else {
        return;
    };
    let mut world = World::with_workspace();
    world.set("USER", "");
    world.wg(&["chat", "new"]).ok();
    world.wg(&["chat", "stop", "0"]).ok();
    let why = world.wg(&["why", "0"]).ok().stdout;
    assert!(why.contains(&format!("stopped by {}", me.name)), "{why}");
}

#[test]
fn what_was_parked_for_its_settings_is_tried_again_when_they_were_mended_while_nobody_looked() {
    let world = World::with_workspace();
    let settings = world.path(".wg/config.toml");
    fs::write(
        &settings,
        "[service]\nagent = \"x\"\n[agents.x]\ncommand = [\"/nowhere/agent\"]\n",
    )
    .unwrap();
    world.wg(&["up", "one"]).with_code(78);
    world.wg(&["service", "stop"]).ok();
    fs::write(&settings, "[service]\nagent = \"echo\"\n").unwrap();
    assert_eq!(world.wg(&["up", "two"]).ok().stdout, "two\n");
    world.stop();
}

/// A service that greets and never answers what comes next; tells of each such request.
fn deaf_service(world: &World) -> (JoinHandle<()>, Receiver<UnixStream>) {
    fs::create_dir_all(world.path(".wg/service")).unwrap();
    let listener = UnixListener::bind(world.path(".wg/service/daemon.sock")).unwrap();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        for _ in 0..2 {
            let (client, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            lines.next().unwrap().unwrap();
            writeln!(&client, "{{\"ok\":true}}").unwrap();
            lines.next().unwrap().unwrap();
            tell.send(client).unwrap();
        }
    });
    (thread, told)
}

#[test]
fn who_asks_for_a_release_waits_for_the_service_no_longer_than_for_the_session() {
    let world = World::with_workspace();
    world.wg(&["chat", "new"]).ok();
    let holder = world.sh(
        "setsid sleep 600 </dev/null >/dev/null 2>&1 & S=$!; printf '%s\\n%s\\nchat-nex\\n' $S \"$(date -Iseconds)\" > .wg/chat/.chat-0/.handler.pid; echo $S",
        b"",
    );
    let (service, asked) = deaf_service(&world);
    let mut patient = world.start(&["session", "release", "0", "--wait", "600"]);
    let client = asked.recv_timeout(WATCHDOG).unwrap();
    world
        .wg(&["session", "release", "0", "--wait", "1"])
        .with_code(69);
    assert!(
        patient.child.try_wait().unwrap().is_none(),
        "it waited as long as somebody with more patience"
    );
    writeln!(&client, "{{\"ok\":true}}").unwrap();
    kill(
        Pid::from_raw(holder.stdout.trim().parse().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    patient.finish().ok();
    service.join().unwrap();
}

/// A pipe without a reader takes whoever opens it prisoner. In a session's directory that may be the service, which has other chats.
#[test]
fn a_pipe_in_the_place_of_any_file_of_a_session_keeps_no_other_chat_waiting() {
    let world = World::with_workspace();
    let files = [
        "handler.log",
        ".tui-driven",
        ".streaming",
        "agent-stderr.log",
        "exit.json",
        ".nex-cursor",
        ".cursor",
        "inbox.jsonl",
        "outbox.jsonl",
        "inbox.jsonl.lock",
        ".handler.pid",
        ".handler.guard",
        ".handler.release-requested",
        "consumers/screen",
    ];
    world.wg(&["chat", "new", "--id", "chat-99"]).ok();
    world.wg(&["service", "start"]).ok();
    for (number, file) in (100_u32..).zip(files) {
        let name = number.to_string();
        world
            .wg(&["chat", "new", "--command", "cat; echo said >&2"])
            .ok();
        let dir = format!(".wg/chat/.chat-{number}");
        world.sh(
            &format!("mkdir -p {dir}/consumers; rm -f {dir}/{file}; mkfifo {dir}/{file}"),
            b"",
        );
        // What becomes of this chat is another matter: it is told of, or the pipe is no matter to it.
        world.wg(&["chat", "send", &name, "hello"]);
        world.wg(&["why", &name]).ok();
        let text = format!("beside {file}");
        assert_eq!(
            world
                .wg(&["chat", &text, "--coordinator", "99"])
                .ok()
                .stdout,
            format!("{text}\n")
        );
        world.wg(&["chat", "stop", &name]).ok();
    }
    world.stop();
}

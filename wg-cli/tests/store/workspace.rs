//! Finding, making and guarding a workspace.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wg_cli::exit_code::ExitCode;
use wg_cli::store::Workspace;
use wg_cli::store::graph::ChatId;
use wg_cli::store::workspace::Surroundings;

use crate::world::World;

/// Directories to look for workspaces in.
struct Places {
    dir: TempDir,
    root: PathBuf,
}

impl Places {
    fn new(dirs: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in dirs {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        Self { dir, root }
    }

    #[track_caller]
    fn finds(
        &self,
        flag: Option<&str>,
        wg_dir: Option<&str>,
        cwd: &str,
        expected: &str,
        reason: &str,
    ) {
        let around = self.around(wg_dir, cwd);
        let flag = flag.map(|flag| self.root.join(flag));
        let found = Workspace::discover_from(flag.as_deref(), &around).unwrap();
        assert_eq!(found.workspace.root(), self.root.join(expected));
        assert!(found.reason.contains(reason), "{}", found.reason);
    }

    fn around(&self, wg_dir: Option<&str>, cwd: &str) -> Surroundings {
        Surroundings {
            wg_dir: wg_dir.map(|dir| {
                if dir.is_empty() {
                    PathBuf::new()
                } else {
                    self.root.join(dir)
                }
            }),
            cwd: Some(self.root.join(cwd)),
            home: Some(self.root.join("home")),
        }
    }
}

#[test]
fn the_flag_goes_before_the_variable_before_the_walk_before_the_home() {
    let places = Places::new(&[
        "flag/.wg",
        "var/.wg",
        "project/.wg",
        "project/a/b",
        "home/.wg",
        "elsewhere",
    ]);
    places.finds(
        Some("flag/.wg"),
        Some("var/.wg"),
        "project/a/b",
        "flag/.wg",
        "--dir",
    );
    places.finds(None, Some("var/.wg"), "project/a/b", "var/.wg", "WG_DIR");
    places.finds(None, Some(""), "project/a/b", "project/.wg", "upwards");
    places.finds(None, None, "project", "project/.wg", "upwards");
    places.finds(None, None, "elsewhere", "home/.wg", "home");
}

#[test]
fn a_project_directory_means_the_workspace_in_it() {
    let places = Places::new(&[
        "project/.wg",
        "old/.workgraph",
        "both/.wg",
        "both/.workgraph",
        "odd/.wg",
        "old/sub",
    ]);
    fs::write(places.root.join("odd/graph.jsonl"), "").unwrap();
    places.finds(Some("project"), None, "", "project/.wg", "--dir");
    places.finds(Some("old"), None, "", "old/.workgraph", "--dir");
    places.finds(Some("both"), None, "", "both/.wg", "--dir");
    places.finds(Some("odd"), None, "", "odd", "--dir");
    places.finds(None, Some("project"), "", "project/.wg", "WG_DIR");
    places.finds(None, None, "old/sub", "old/.workgraph", "upwards");
}

#[test]
fn where_there_is_none_it_says_how_to_make_one() {
    let places = Places::new(&["home"]);
    let failure = |flag: Option<&Path>| {
        Workspace::discover_from(flag, &places.around(None, "home")).unwrap_err()
    };
    assert_eq!(
        failure(None).to_string(),
        "there is no workspace here or above (wg init, or wg up)"
    );
    let nowhere = places.root.join("nowhere");
    let told = failure(Some(&nowhere));
    assert_eq!(
        (told.code, told.to_string()),
        (
            ExitCode::Failed,
            format!(
                "there is no workspace at `{}` (--dir names it; wg init makes one)",
                nowhere.display()
            )
        )
    );
    drop(places.dir);
}

#[test]
fn init_makes_a_workspace_once() {
    let dir = TempDir::new().unwrap();
    let workspace = Workspace::init(dir.path()).unwrap();
    assert_eq!(
        workspace.root(),
        dir.path().canonicalize().unwrap().join(".wg")
    );
    for name in ["graph.jsonl", "config.toml", ".gitignore"] {
        assert!(workspace.root().join(name).is_file(), "{name}");
    }
    workspace.check_owner().unwrap();
    for at in [
        dir.path().to_owned(),
        dir.path().join(".wg"),
        dir.path().join(".workgraph"),
    ] {
        let failure = Workspace::init(&at).unwrap_err();
        assert_eq!(failure.code, ExitCode::Failed);
        assert!(
            failure
                .to_string()
                .starts_with("WG already initialized at /"),
            "{failure}"
        );
    }
    let below = Workspace::init(&dir.path().join("new/project/.wg")).unwrap();
    assert!(below.root().ends_with("new/project/.wg"));
}

#[test]
fn of_several_that_init_at_once_one_makes_it() {
    let dir = TempDir::new().unwrap();
    let made = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| Workspace::init(dir.path()).is_ok()))
            .collect();
        makers
            .into_iter()
            .map(|maker| maker.join().unwrap())
            .filter(|made| *made)
            .count()
    });
    assert_eq!(made, 1);
}

#[test]
fn a_copy_and_a_successor_are_other_workspaces_and_another_path_is_the_same() {
    let dir = TempDir::new().unwrap();
    let first = Workspace::init(&dir.path().join("a")).unwrap();
    let copy = Workspace::init(&dir.path().join("b")).unwrap();
    assert_ne!(first.id(), copy.id());
    symlink(dir.path().join("a"), dir.path().join("link")).unwrap();
    let linked = Workspace::open(&dir.path().join("link/.wg")).unwrap();
    assert_eq!(linked, first);
    fs::rename(dir.path().join("a"), dir.path().join("moved")).unwrap();
    assert_eq!(
        Workspace::open(&dir.path().join("moved/.wg")).unwrap().id(),
        first.id()
    );
    assert!(
        first
            .id()
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-'),
        "{}",
        first.id()
    );
}

#[test]
fn the_service_directory_is_closed_to_others_even_if_an_earlier_tool_left_it_open() {
    let world = World::new();
    let mode = |dir: &Path| fs::metadata(dir).unwrap().mode() & 0o777;
    let dir = world.workspace.ensure_service_dir().unwrap();
    assert_eq!(mode(&dir), 0o700);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    world.workspace.ensure_service_dir().unwrap();
    assert_eq!(mode(&dir), 0o700);
    fs::remove_dir(&dir).unwrap();
    symlink("/tmp", &dir).unwrap();
    assert_eq!(
        world.workspace.ensure_service_dir().unwrap_err().code,
        ExitCode::NotPermitted
    );
}

#[test]
fn a_workspace_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return; // Only root can give a file away.
    }
    for name in ["", "config.toml", "graph.jsonl"] {
        let world = World::new();
        chown(world.path(name), Some(12_345), None).unwrap();
        let failure = world.workspace.check_owner().unwrap_err();
        assert_eq!(failure.code, ExitCode::NotPermitted);
        assert!(
            failure
                .to_string()
                .contains("belongs to user 12345, not to you (user 0)"),
            "{failure}"
        );
    }
}

#[test]
fn a_socket_whose_path_is_too_long_gets_a_short_name_that_both_sides_compute() {
    let dir = TempDir::new().unwrap();
    let near = Workspace::init(dir.path()).unwrap();
    let temporary = TempDir::new().unwrap();
    assert_eq!(
        near.socket_path_from(None, temporary.path()).unwrap(),
        near.service_dir().join("daemon.sock")
    );

    let deep = Workspace::init(&dir.path().join("d".repeat(120))).unwrap();
    let user = format!("wg-{}", nix::unistd::geteuid());
    let path = deep.socket_path_from(None, temporary.path()).unwrap();
    assert_eq!(path.parent().unwrap(), temporary.path().join(&user));
    assert!(path.as_os_str().len() <= 107);
    assert_eq!(
        fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777,
        0o700
    );
    assert_eq!(deep.socket_path_from(None, temporary.path()).unwrap(), path);

    let runtime = TempDir::new().unwrap();
    fs::set_permissions(runtime.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let in_runtime = deep
        .socket_path_from(Some(runtime.path()), temporary.path())
        .unwrap();
    assert_eq!(
        (in_runtime.parent().unwrap(), in_runtime.file_name()),
        (runtime.path(), path.file_name())
    );
    fs::set_permissions(runtime.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        deep.socket_path_from(Some(runtime.path()), temporary.path())
            .unwrap(),
        path,
        "not ours alone: not used"
    );

    let other = Workspace::init(&dir.path().join("e".repeat(120))).unwrap();
    assert_ne!(
        other.socket_path_from(None, temporary.path()).unwrap(),
        path
    );
}

#[test]
fn a_short_name_is_refused_where_somebody_planted_the_directory() {
    let dir = TempDir::new().unwrap();
    let deep = Workspace::init(&dir.path().join("d".repeat(120))).unwrap();
    let user = format!("wg-{}", nix::unistd::geteuid());
    let temporary = TempDir::new().unwrap();
    symlink(dir.path(), temporary.path().join(&user)).unwrap();
    assert_eq!(
        deep.socket_path_from(None, temporary.path())
            .unwrap_err()
            .code,
        ExitCode::NotPermitted
    );
    if nix::unistd::geteuid().is_root() {
        fs::remove_file(temporary.path().join(&user)).unwrap();
        fs::create_dir(temporary.path().join(&user)).unwrap();
        chown(temporary.path().join(&user), Some(12_345), None).unwrap();
        let failure = deep.socket_path_from(None, temporary.path()).unwrap_err();
        assert!(
            failure.to_string().contains("belongs to user 12345"),
            "{failure}"
        );
    }
}

#[test]
fn every_file_has_its_place() {
    let world = World::new();
    let workspace = &world.workspace;
    let relative = |path: PathBuf| {
        path.strip_prefix(workspace.root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(relative(workspace.graph_lock_path()), "graph.lock");
    assert_eq!(relative(workspace.registry_path()), "chat/sessions.json");
    assert_eq!(relative(workspace.state_path()), "service/state.json");
    assert_eq!(relative(workspace.daemon_log_path()), "service/daemon.log");
    assert_eq!(relative(workspace.events_path()), "service/events.jsonl");
    assert_eq!(
        relative(workspace.chat_state_path(ChatId(3))),
        "service/coordinator-state-3.json"
    );
}

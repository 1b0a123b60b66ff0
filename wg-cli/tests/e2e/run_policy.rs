//! The file of `wg run --policy`: what is refused, with which sentence, and that no file holds it up.

use std::fs;

use crate::errors::told;
use crate::world::World;

/// Runs `true` under a policy file and returns the sentence with which that is refused.
#[track_caller]
fn refused(world: &World, file: &str, words: &[&str]) {
    let done = world.wg(&["run", "--policy", file, "--", "touch", "ran"]);
    told(&done, 78, words);
    assert!(!world.path("ran").exists());
}

#[test]
fn a_name_that_a_policy_does_not_have_is_refused_with_the_nearest_that_it_has() {
    let world = World::new();
    for (text, words) in [
        (
            "[supervisr]\ncrash_hard = 1\n",
            &[
                "`p.toml` line 1: `supervisr` is no section of a policy",
                "did you mean [supervisor]?",
            ][..],
        ),
        (
            "[supervisor]\n\ncrash_hrad = 1\n",
            &[
                "`p.toml` line 3: `supervisor.crash_hrad` is no setting",
                "did you mean crash_hard?",
            ],
        ),
        (
            "crash_hard = 1\n",
            &[
                "`p.toml` line 1: `crash_hard` stands in no section",
                "below a line [supervisor]",
            ],
        ),
        (
            "[supervisor]\n[service]\nstop_grcae = 1\n",
            &[
                "`p.toml` line 3: `service.stop_grcae` is no setting",
                "did you mean stop_grace?",
            ],
        ),
        (
            "[supervisor]\n[supervisor.crash]\nhard = 1\n",
            &["`supervisor.crash` is no setting", "did you mean crash_"],
        ),
        (
            "[restart]\n[supervisor]\n",
            &["`restart` is no section of a policy"],
        ),
        (
            "[dispatcher]\n[supervisr]\n",
            &[
                "`supervisr` is no section of a policy",
                "did you mean [supervisor]?",
            ],
        ),
        (
            "[dispatcher]\nmax_agents = 8\n[agent]\nmodel = \"m\"\n",
            &[
                "`p.toml` has no section [supervisor]; by its [dispatcher] it is the config.toml of an earlier wg",
                "add that section",
            ],
        ),
        (
            "x = 1\n[dispatcher]\n[supervisor]\n",
            &["`x` stands in no section"],
        ),
        ("", &["`p.toml` has no section [supervisor]"]),
        ("[supervisor", &["`p.toml` line 1: "]),
        (
            "[supervisor]\nbackoff_first = \"100ms\"\nbackoff_cap = \"100ms\"\n",
            &[
                "`supervisor.backoff_cap` is \"100ms\", allowed is at least 1s, unless `unsafe_no_backoff` is true",
            ],
        ),
    ] {
        fs::write(world.path("p.toml"), text).unwrap();
        refused(&world, "p.toml", words);
    }
}

#[test]
fn a_policy_may_stand_in_the_settings_of_a_workspace() {
    let world = World::with_workspace();
    let text =
        "[service]\nlog_keep = 1\n[agents.x]\ncommand = [\"x\"]\n[supervisor]\ncrash_hard = 1\n";
    fs::write(world.path(".wg/config.toml"), text).unwrap();
    let flags = ["run", "--policy", ".wg/config.toml", "--", "false"];
    world.wg(&flags).with_code(1);
    // Also in one that the earlier tool has made: its sections are its own.
    let theirs = "[dispatcher]\nmax_agents = 8\n[agent]\nmodel = \"m\"\n[chat]\n[tui]\nx = 1\n";
    fs::write(
        world.path(".wg/config.toml"),
        format!("{theirs}[supervisor]\ncrash_hard = 1\n"),
    )
    .unwrap();
    world.wg(&flags).with_code(1);
}

#[test]
fn a_policy_may_come_through_a_pipe() {
    let world = World::new();
    fs::write(world.path("p.toml"), "[supervisor]\ncrash_hard = 1\n").unwrap();
    let wg = crate::world::WG;
    let given =
        |how: &str| world.sh_unchecked(&how.replace("RUN", &format!("'{wg}' run --policy")));
    given("cat p.toml | RUN /dev/stdin -- false").with_code(1);
    // As a shell makes it of `<(cat p.toml)`.
    given("cat p.toml | { exec 7<&0 </dev/null; RUN /dev/fd/7 -- false; }").with_code(1);
    given("mkfifo named; cat p.toml > named & RUN named -- false").with_code(1);
    let refused = given("echo '[supervisr]' | RUN /dev/stdin -- touch ran");
    told(&refused, 78, &["`/dev/stdin` line 1: `supervisr`"]);
    let refused = given("cat /dev/zero | RUN /dev/stdin -- touch ran");
    told(&refused, 78, &["`/dev/stdin` is larger than 1048576 bytes"]);
    assert!(!world.path("ran").exists());
}

#[test]
fn what_is_no_file_of_a_few_lines_is_refused_and_never_read_to_its_end() {
    let world = World::new();
    world.sh(
        "mkfifo pipe; mkdir dir; ln -s /dev/zero link; ln -s nowhere dangling",
        b"",
    );
    let large = fs::File::create(world.path("large")).unwrap();
    large.set_len(1 << 40).unwrap();
    fs::write(world.path("bytes"), b"[supervisor]\n# \xff\n").unwrap();
    for (file, words) in [
        (
            "/dev/zero",
            &[
                "`/dev/zero` is a device, not a regular file",
                "[supervisor]",
            ][..],
        ),
        ("link", &["`link` is a device, not a regular file"]),
        // Nobody writes to it.
        (
            "pipe",
            &["failed to read `pipe`: it did not come to its end within 10 s"],
        ),
        // A pipe that is at its end.
        ("/dev/stdin", &["`/dev/stdin` has no section [supervisor]"]),
        ("dir", &["`dir` is a directory, not a regular file"]),
        ("large", &["`large` is larger than 1048576 bytes"]),
        ("bytes", &["`bytes` line 2: this is not UTF-8"]),
        ("nowhere", &["`nowhere` does not exist"]),
        ("dangling", &["`dangling` does not exist"]),
    ] {
        refused(&world, file, words);
    }
}

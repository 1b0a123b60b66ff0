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
            "[dispatcher]\n[supervisor]\n",
            &["`dispatcher` is no section of a policy"],
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
            &["`/dev/zero` is not a regular file", "[supervisor]"][..],
        ),
        ("link", &["is not a regular file"]),
        ("pipe", &["`pipe` is not a regular file"]),
        // A pipe.
        ("/dev/stdin", &["`/dev/stdin` is not a regular file"]),
        ("dir", &["`dir` is not a regular file"]),
        ("large", &["`large` is larger than 1048576 bytes"]),
        ("bytes", &["`bytes` line 2: this is not UTF-8"]),
        ("nowhere", &["`nowhere` does not exist"]),
        ("dangling", &["`dangling` does not exist"]),
    ] {
        refused(&world, file, words);
    }
}

//! A start that fails because this process has no descriptor left. It is alone in its program, because the limit holds for all threads.
#![cfg(unix)]

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use exit_classifier::{Counts, Ending, Observation, RuleSet, errno};
use rustix::process::{Resource, getrlimit, setrlimit};

#[test]
fn a_start_without_a_free_descriptor_is_transient() {
    let before = getrlimit(Resource::Nofile);
    let mut few = before;
    few.current = Some(32);
    setrlimit(Resource::Nofile, few).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    let failed = Command::new("/bin/true").stdout(Stdio::piped()).spawn();
    drop(taken);
    setrlimit(Resource::Nofile, before).unwrap();

    let ending = Ending::never_started(&failed.unwrap_err());
    assert_eq!(
        ending,
        Ending::NeverStarted {
            errno: errno::EMFILE
        }
    );
    let verdict = RuleSet::handler().classify(&Observation::new(ending, Duration::ZERO));
    assert_eq!(verdict.counts, Counts::Crash);
    assert_eq!(
        verdict.sentence(),
        "never started (EMFILE: too many open files): the system had no room for another process (rule not_started_transient)"
    );
}

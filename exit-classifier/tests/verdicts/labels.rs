//! The closed lists of words. They are written to files that outlive a release, so a change here is a change for others.

use exit_classifier::memory::cgroup::Version;
use exit_classifier::memory::{LimitedBy, Source};
use exit_classifier::{Asked, Cause, Class, Counts, Rule, RuleSet};

#[test]
fn the_words_are_these() {
    let words = |list: &[&str]| list.join(" ");
    let of = |all: Vec<&'static str>| words(&all);
    assert_eq!(
        of(Class::ALL.iter().map(|c| c.as_str()).collect()),
        "success planned stopped blocked permanent turn_failed crash"
    );
    assert_eq!(
        of(Cause::ALL.iter().map(|c| c.as_str()).collect()),
        "clean_exit requested released idle memory_drain lock_held config unavailable not_started out_of_memory \
         killed aborted stalled runtime_error lost"
    );
    assert_eq!(
        of(Counts::ALL.iter().map(|c| c.as_str()).collect()),
        "clean_restart nothing nothing_no_respawn memory contention permanent dependency external_stop crash \
         turn_done turn_failed"
    );
    assert_eq!(
        of(Asked::ALL.iter().map(|a| a.as_str()).collect()),
        "stop restart release interrupt stall"
    );
    assert_eq!(
        of(Source::ALL.iter().map(|s| s.as_str()).collect()),
        "anon_plus_shmem vm_rss_fallback"
    );
    assert_eq!(
        of(LimitedBy::ALL.iter().map(|l| l.as_str()).collect()),
        "host control_group"
    );
    assert_eq!(
        of(Version::ALL.iter().map(|v| v.as_str()).collect()),
        "v2 v1"
    );
}

#[test]
fn the_rules_are_these_in_this_order() {
    let names = |rules: RuleSet| rules.rules().map(Rule::name).collect::<Vec<_>>().join(" ");
    assert_eq!(
        names(RuleSet::handler()),
        "stop_asked restart_asked stalled interrupt_asked released released_clean idle memory_drain memory_drain_clean \
         memory_drain_signal clean_exit lock_held_by_own lock_held lock_held_by_other config shell_cannot_run unavailable \
         not_started_permanent not_started_transient not_started_unknown out_of_memory out_of_memory_137 killed external_stop \
         aborted lost runtime_error unknown_ending"
    );
    assert_eq!(
        names(RuleSet::command()),
        "stop_asked restart_asked stalled interrupt_asked released_clean memory_drain_clean memory_drain_signal clean_exit \
         lock_held_by_other shell_cannot_run not_started_permanent not_started_transient not_started_unknown out_of_memory \
         out_of_memory_137 killed external_stop aborted lost runtime_error unknown_ending"
    );
    assert_eq!(
        names(RuleSet::agent()),
        "stop_asked restart_asked turn_stalled turn_interrupted turn_done agent_config shell_cannot_run agent_unavailable \
         not_started_permanent not_started_transient not_started_unknown turn_out_of_memory turn_out_of_memory_137 turn_killed \
         turn_aborted turn_lost turn_failed"
    );
}

#[test]
fn a_word_reads_back_as_what_it_was() {
    for cause in Cause::ALL {
        assert_eq!(cause.to_string().parse(), Ok(*cause));
    }
    for counts in Counts::ALL {
        assert_eq!(counts.to_string().parse(), Ok(*counts));
    }
    for class in Class::ALL {
        assert_eq!(class.to_string().parse(), Ok(*class));
    }
    for wrong in ["", "Crash", "crash ", "oom"] {
        let error = wrong.parse::<Cause>().unwrap_err();
        assert_eq!(error.to_string(), format!("`{wrong}` is no label of Cause"));
    }
    assert_eq!(format!("[{:<10}]", Cause::Idle), "[idle      ]");
}

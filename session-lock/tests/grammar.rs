//! Records, and the judge: for any input, not only for the ones somebody thought of.

use proptest::prelude::*;
use session_lock::record::{Content, LARGEST, Record, parse};
use session_lock::{
    Claimant, Facts, Kind, Liveness, ProcessFacts, ProcessIdentity, Surroundings, judge,
};

prop_compose! {
    fn time()(
        year in 0u32..10_000, month in 1u32..13, day in 1u32..29, hour in 0u32..24, minute in 0u32..60,
        second in 0u32..61, fraction in "(\\.[0-9]{1,9})?", zone in "Z|z|[+-][0-2][0-9]:[0-5][0-9]",
    ) -> String {
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}")
    }
}

prop_compose! {
    fn record()(pid in 1u32..=i32::MAX.cast_unsigned(), since in time(), kind in "[^\\n\\r\\x00]{1,60}") -> Record {
        Record { pid, since, kind: Kind::from(kind.as_str()) }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(record in record()) {
        prop_assert_eq!(parse(record.format().as_bytes()), Content::Complete(record));
    }

    #[test]
    fn every_beginning_of_a_record_may_be_in_the_making(record in record(), cut in any::<prop::sample::Index>()) {
        let bytes = record.format().into_bytes();
        let content = parse(&bytes[..cut.index(bytes.len())]);
        let whole_characters = std::str::from_utf8(&bytes[..cut.index(bytes.len())]).is_ok();
        match content {
            Content::InFlight => {}
            Content::Unterminated(torn) => prop_assert_eq!(torn.pid, record.pid),
            // A kind may be torn within a character; everything else is ASCII.
            Content::Corrupt => prop_assert!(!whole_characters),
            Content::Complete(torn) => prop_assert!(false, "a torn record is complete: {:?}", torn),
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_name_an_impossible_process(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Content::Complete(record) | Content::Unterminated(record) = parse(&bytes) {
            prop_assert!(record.pid >= 1 && i32::try_from(record.pid).is_ok());
        }
    }

    #[test]
    fn noise_in_the_process_number_is_corrupt(noise in "[^0-9\\n]{1,5}", pid in 1u32..99_999, since in time()) {
        let text = format!("{pid}{noise}\n{since}\nadapter\n");
        prop_assert_eq!(parse(text.as_bytes()), Content::Corrupt);
    }

    #[test]
    fn what_is_too_long_is_no_record(record in record(), more in LARGEST..2 * LARGEST) {
        let text = record.format() + &"x".repeat(more);
        prop_assert_eq!(parse(text.as_bytes()), Content::Corrupt);
    }

    #[test]
    fn nobody_is_gone_without_a_proof(
        start in any::<Option<u64>>(), seen in any::<Option<u64>>(), boot in any::<Option<bool>>(),
        here in any::<Option<bool>>(), shared in any::<bool>(), process in 0..4,
    ) {
        let boot_id = |boot: Option<bool>| boot.map(|boot| boot.to_string());
        let claimant = Claimant {
            process: ProcessIdentity { pid: 7, start_ticks: start, boot_id: boot_id(boot) },
            ..Claimant::unproven(7)
        };
        let process = match process {
            0 => ProcessFacts::Absent,
            1 => ProcessFacts::Ended,
            2 => ProcessFacts::Unknown,
            _ => ProcessFacts::Running { start_ticks: seen },
        };
        let proof = matches!(process, ProcessFacts::Absent | ProcessFacts::Ended)
            || boot.zip(here).is_some_and(|(one, other)| one != other)
            || matches!(process, ProcessFacts::Running { .. })
                && start.zip(seen).is_some_and(|(one, other)| one != other);
        let here = Surroundings { boot_id: boot_id(here), pid_namespace: None, host: "h".to_owned(), shared_file_system: shared };
        let liveness = judge(&claimant, &Facts { process, here });
        prop_assert!(!liveness.is_gone() || proof, "{:?}", liveness);
    }
}

struct Case {
    claimant: Claimant,
    process: ProcessFacts,
    shared: bool,
}

impl Case {
    fn new(process: ProcessFacts) -> Self {
        let identity = ProcessIdentity {
            pid: 7,
            start_ticks: Some(100),
            boot_id: Some("this".to_owned()),
        };
        let claimant = Claimant {
            process: identity,
            pid_namespace: Some(1),
            host: Some("here".to_owned()),
            left: false,
        };
        Self {
            claimant,
            process,
            shared: false,
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    #[track_caller]
    fn is(self, expected: Liveness) {
        let here = Surroundings {
            boot_id: Some("this".to_owned()),
            pid_namespace: Some(1),
            host: "here".to_owned(),
            shared_file_system: self.shared,
        };
        assert_eq!(
            judge(
                &self.claimant,
                &Facts {
                    process: self.process,
                    here
                }
            ),
            expected
        );
    }
}

const RUNNING: ProcessFacts = ProcessFacts::Running {
    start_ticks: Some(100),
};

#[test]
fn the_judge_follows_its_table() {
    Case::new(RUNNING).is(Liveness::Alive);
    Case::new(ProcessFacts::Running { start_ticks: None }).is(Liveness::Alive);
    Case::new(ProcessFacts::Running {
        start_ticks: Some(101),
    })
    .is(Liveness::Reused);
    Case::new(ProcessFacts::Absent).is(Liveness::Dead);
    Case::new(ProcessFacts::Ended).is(Liveness::Zombie);
    Case::new(ProcessFacts::Unknown).is(Liveness::Unknown);
    Case::new(RUNNING)
        .change(|case| case.claimant.left = true)
        .is(Liveness::Left);
    let other_boot = |case: &mut Case| case.claimant.process.boot_id = Some("other".to_owned());
    let other_host = |case: &mut Case| case.claimant.host = Some("there".to_owned());
    Case::new(RUNNING).change(other_boot).is(Liveness::Rebooted);
    Case::new(RUNNING)
        .change(other_boot)
        .change(other_host)
        .is(Liveness::Rebooted);
    let shared = |case: &mut Case| case.shared = true;
    Case::new(RUNNING)
        .change(other_boot)
        .change(other_host)
        .change(shared)
        .is(Liveness::OtherHost);
    // A host that was renamed is the same host: its boot says so.
    Case::new(RUNNING)
        .change(other_host)
        .change(shared)
        .is(Liveness::Alive);
    let other_namespace = |case: &mut Case| case.claimant.pid_namespace = Some(2);
    Case::new(ProcessFacts::Absent)
        .change(other_namespace)
        .is(Liveness::OtherNamespace);
    let three_lines = |case: &mut Case| case.claimant = Claimant::unproven(7);
    Case::new(RUNNING).change(three_lines).is(Liveness::Alive);
    Case::new(ProcessFacts::Absent)
        .change(three_lines)
        .is(Liveness::Dead);
}

#[test]
fn a_golden_record_is_read_as_ever() {
    let golden = include_bytes!("golden/handler.pid");
    let Content::Complete(record) = parse(golden) else {
        panic!()
    };
    assert_eq!(record.pid, 4711);
    assert_eq!(record.kind, Kind::ChatNex);
    assert_eq!(record.format().as_bytes(), golden);
    let strange = "1\n2026-11-21 02:45:50+00:00\nx\n";
    assert!(matches!(parse(strange.as_bytes()), Content::Complete(_)));
    assert_eq!(
        Kind::from("x").as_str().parse::<Kind>().unwrap(),
        Kind::Other("x".to_owned())
    );
}

//! From one holder to the next: requests, waits, takeovers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use session_lock::protocol::Step;
use session_lock::{
    AcquireError, Freed, Kind, RefusedBecause, ReleaseRequest, ReleaseWatch, SessionLock,
    TakenOver, TakeoverError, TakeoverPolicy, Unproven, Wait, WaitError, check_takeover, inspect,
    request_release, takeover, wait_free,
};

use crate::support::{Idler, Player, lines, plant};

fn take(dir: &Path) -> Result<SessionLock, AcquireError> {
    SessionLock::try_acquire(dir, Kind::Adapter)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn marker(dir: &Path) -> std::path::PathBuf {
    dir.join(".handler.release-requested")
}

/// A policy whose stages wait long enough for anything that happens at all, except those that are left out.
fn policy(request: bool, term: bool) -> TakeoverPolicy {
    let grace = |wanted| {
        if wanted {
            Duration::from_secs(60)
        } else {
            Duration::ZERO
        }
    };
    TakeoverPolicy {
        request_grace: grace(request),
        term_grace: grace(term),
        kill_grace: Duration::from_secs(60),
        unproven: Unproven::Refuse,
    }
}

#[test]
fn a_waiter_gets_the_lock_when_the_holder_releases_it() {
    let dir = tempfile::tempdir().unwrap();
    let lock = take(dir.path()).unwrap();
    let mut waiter = Player::start("wait", dir.path());
    assert_eq!(waiter.hear(), "waiting");
    let generation = lock.generation();
    lock.release().unwrap();
    assert_eq!(waiter.hear(), format!("got it {}", generation + 1));
}

#[test]
fn a_waiter_gets_the_lock_when_the_holder_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("hold", dir.path());
    holder.hear();
    let mut waiter = Player::start("wait", dir.path());
    assert_eq!(waiter.hear(), "waiting");
    holder.kill();
    assert!(waiter.hear().starts_with("got it"));
}

#[test]
fn a_waiter_outlasts_the_record_of_another_tool() {
    let (dir, idler) = (tempfile::tempdir().unwrap(), Idler::new());
    plant(dir.path(), lines(idler.pid()));
    let mut waiter = Player::start("wait", dir.path());
    assert_eq!(waiter.hear(), "waiting");
    fs::remove_file(dir.path().join(".handler.pid")).unwrap();
    assert!(waiter.hear().starts_with("got it"));
    drop(idler);
}

#[test]
fn every_waiter_gets_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let lock = take(dir.path()).unwrap();
    let turns = std::sync::atomic::AtomicU32::new(0);
    let inside = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let options = SessionLock::options().wait(Wait::Until(soon()));
                    let lock = options.acquire(dir.path()).unwrap();
                    assert!(
                        !inside.swap(true, std::sync::atomic::Ordering::SeqCst),
                        "two at once"
                    );
                    turns.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    assert!(inside.swap(false, std::sync::atomic::Ordering::SeqCst));
                    lock.release().unwrap();
                }
            });
        }
        lock.release().unwrap();
    });
    assert_eq!(turns.into_inner(), 80);
}

#[test]
fn a_deadline_that_has_passed_waits_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let _lock = take(dir.path()).unwrap();
    let options = SessionLock::options().wait(Wait::Until(Instant::now()));
    assert!(matches!(
        options.acquire(dir.path()),
        Err(AcquireError::Held { .. })
    ));
    let timed_out = wait_free(dir.path(), Instant::now());
    assert!(matches!(
        timed_out,
        Err(WaitError::TimedOut {
            holder: Some(_),
            ..
        })
    ));
}

#[test]
fn waiting_for_a_free_directory_ends_at_once_and_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(wait_free(dir.path(), soon()).unwrap(), Freed::Free);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn waiting_ends_when_a_successor_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("hold", dir.path());
    holder.hear();
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait_free(dir.path(), soon()));
        let mut next = Player::start("wait", dir.path());
        next.hear();
        holder.tell("");
        assert!(next.hear().starts_with("got it"));
        // It stays, so whoever did not see the moment in between sees it.
        let waiting = waiting.join().unwrap().unwrap();
        if let Freed::Taken { by } = &waiting {
            assert_eq!(by.pid, next.pid());
        }
        waiting
    });
    assert!(
        matches!(waiting, Freed::Taken { .. } | Freed::Free),
        "{waiting:?}"
    );
}

#[test]
fn a_holder_that_is_asked_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("obey", dir.path());
    holder.hear();
    let asked = request_release(dir.path()).unwrap();
    let ReleaseRequest::Asked { holder: asked } = asked else {
        panic!("{asked:?}")
    };
    assert_eq!(asked.pid, holder.pid());
    assert_eq!(wait_free(dir.path(), soon()).unwrap(), Freed::Free);
    assert_eq!(holder.hear(), "Ok(Released)");
}

#[test]
fn nobody_is_asked_where_nobody_holds() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(request_release(dir.path()).unwrap(), ReleaseRequest::Free);
    assert!(!marker(dir.path()).exists());
}

#[test]
fn a_successor_does_not_obey_its_predecessors_request() {
    let dir = tempfile::tempdir().unwrap();
    let first = take(dir.path()).unwrap();
    request_release(dir.path()).unwrap();
    assert!(first.is_release_requested());
    let request = fs::read(marker(dir.path())).unwrap();
    drop(first);
    let second = take(dir.path()).unwrap();
    assert!(!marker(dir.path()).exists(), "it is cleared");
    // As if it had been written between the acquisition and this look.
    fs::write(marker(dir.path()), request).unwrap();
    assert!(!second.is_release_requested());
    let mut watch = ReleaseWatch::new(&second).unwrap();
    assert!(!watch.is_requested());
    assert!(!watch.wait(Instant::now()).unwrap());
    request_release(dir.path()).unwrap();
    assert!(watch.wait(soon()).unwrap());
}

#[test]
fn a_plain_request_is_obeyed_if_it_is_newer_than_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let lock = take(dir.path()).unwrap();
    for (request, obeyed) in [
        ("1999-01-01T00:00:00Z\n", false),
        ("2999-01-01T00:00:00+02:00\n", true),
        ("2999-01-01T00:00:00Z", true),
        ("", false),
        ("soon\n", false),
        ("2999-01-01T00:00:00Z\nfor 1 2026-11-21T02:45:50Z\n", false),
    ] {
        fs::write(marker(dir.path()), request).unwrap();
        assert_eq!(lock.is_release_requested(), obeyed, "{request:?}");
    }
}

#[test]
fn a_plain_request_that_comes_while_the_lock_is_taken_is_judged_by_its_time() {
    for (step, request, obeyed) in [
        // Cleared: it was there before anybody could know of us.
        (Step::ReadRecord, "2999-01-01T00:00:00Z\n", false),
        (Step::ClearMarker, "1999-01-01T00:00:00Z\n", false),
        (Step::ClearMarker, "2999-01-01T00:00:00Z\n", true),
        (Step::WriteClaim, "2999-01-01T00:00:00Z\n", true),
        (Step::LinkRecord, "2999-01-01T00:00:00Z\n", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = marker(dir.path());
        let options = SessionLock::options().observe(move |done| {
            if done == step {
                fs::write(&path, request).unwrap();
            }
        });
        let lock = options.acquire(dir.path()).unwrap();
        assert_eq!(
            lock.is_release_requested(),
            obeyed,
            "{request:?} at {step:?}"
        );
    }
}

#[test]
fn a_takeover_asks_first() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        takeover(dir.path(), &policy(true, true)).unwrap(),
        TakenOver::WasFree
    );
    let mut holder = Player::start("obey", dir.path());
    holder.hear();
    let taken = takeover(dir.path(), &policy(true, true)).unwrap();
    let TakenOver::Released { from } = taken else {
        panic!("{taken:?}")
    };
    assert_eq!(from.pid, holder.pid());
    assert_eq!(holder.hear(), "Ok(Released)");
    drop(take(dir.path()).unwrap());
}

#[test]
fn a_holder_that_does_not_listen_is_told_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("hold", dir.path());
    holder.hear();
    let taken = takeover(dir.path(), &policy(false, true)).unwrap();
    assert!(
        matches!(taken, TakenOver::Ended { killed: false, .. }),
        "{taken:?}"
    );
    drop(take(dir.path()).unwrap());
}

#[test]
fn a_holder_that_ignores_being_told_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let deaf = ["sh", "-c", "trap '' TERM; exec \"$@\"", "sh"];
    let mut holder = Player::start_behind(&deaf, "hold", dir.path());
    holder.hear();
    let taken = takeover(dir.path(), &policy(false, false)).unwrap();
    assert!(
        matches!(taken, TakenOver::Ended { killed: true, .. }),
        "{taken:?}"
    );
    drop(take(dir.path()).unwrap());
}

#[test]
fn a_holder_that_stands_still_hears_that_it_is_told_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("hold", dir.path());
    holder.hear();
    holder.signal("STOP");
    let taken = takeover(dir.path(), &policy(false, true)).unwrap();
    assert!(
        matches!(taken, TakenOver::Ended { killed: false, .. }),
        "{taken:?}"
    );
}

#[test]
fn who_inherited_the_lock_is_ended_like_a_holder() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut holder = Player::start("lend", dir.path());
    let borrower: u32 = holder.hear().parse().unwrap();
    let borrower = session_lock::watch(borrower).unwrap().unwrap();
    holder.kill();
    let taken = takeover(dir.path(), &policy(true, true)).unwrap();
    assert!(matches!(taken, TakenOver::Ended { .. }), "{taken:?}");
    assert!(borrower.wait(soon()).unwrap());
    assert!(
        !marker(dir.path()).exists(),
        "the one who is gone was asked"
    );
    drop(take(dir.path()).unwrap());
}

#[test]
fn who_borrowed_from_a_holder_that_is_ended_meanwhile_is_ended_with_it() {
    for term in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut holder = Player::start("lend", dir.path());
        let borrower: u32 = holder.hear().parse().unwrap();
        let borrower = session_lock::watch(borrower).unwrap().unwrap();
        let taken = takeover(dir.path(), &policy(false, term)).unwrap();
        let TakenOver::Ended { from, killed } = taken else {
            panic!("{taken:?}")
        };
        assert_eq!(from.pid, holder.pid());
        // Without a grace either signal may have ended it first.
        assert!(!(term && killed), "it was given its grace and used it");
        assert!(borrower.wait(soon()).unwrap());
        drop(take(dir.path()).unwrap());
    }
}

#[test]
fn who_has_the_lock_through_its_holder_does_not_end_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("lend-to-a-taker", dir.path());
    assert!(holder.hear().contains("because: ThisProcess"));
    assert!(inspect(dir.path()).unwrap().is_held());
    holder.tell("");
    assert_eq!(holder.hear(), "Ok(Released)");
}

#[track_caller]
fn assert_refused(dir: &Path, policy: &TakeoverPolicy, expected: RefusedBecause) {
    let known = check_takeover(dir, policy).unwrap_err();
    for error in [known, takeover(dir, policy).unwrap_err()] {
        let TakeoverError::Refused { because, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(because, expected);
    }
}

#[test]
fn a_takeover_does_not_signal_whom_it_must_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut own = policy(false, true);
    let lock = take(dir.path()).unwrap();
    assert_refused(dir.path(), &own, RefusedBecause::ThisProcess);
    drop(lock);

    plant(dir.path(), lines(1));
    own.unproven = Unproven::Allow;
    assert_refused(dir.path(), &own, RefusedBecause::Init);

    let mut idler = Idler::new();
    plant(dir.path(), lines(idler.pid()));
    assert_refused(dir.path(), &policy(false, true), RefusedBecause::Unproven);
    assert!(idler.0.try_wait().unwrap().is_none(), "it was signalled");
    let taken = takeover(dir.path(), &own).unwrap();
    assert!(
        matches!(taken, TakenOver::Ended { killed: false, .. }),
        "{taken:?}"
    );

    plant(dir.path(), "");
    assert_refused(dir.path(), &own, RefusedBecause::Unnamed);
}

#[test]
fn a_takeover_that_must_not_signal_is_refused_before_anybody_is_asked_or_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let idler = Idler::new();
    plant(dir.path(), lines(idler.pid()));
    assert_refused(dir.path(), &policy(true, true), RefusedBecause::Unproven);
    assert!(!marker(dir.path()).exists());
}

#[test]
fn a_takeover_does_not_reach_into_another_namespace() {
    if !crate::support::works("unshare", &["--pid", "--fork", "--mount-proc", "true"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut holder = Player::start_behind(&wrapper, "hold", dir.path());
    holder.hear();
    let mut own = policy(false, true);
    own.unproven = Unproven::Allow;
    assert_refused(dir.path(), &own, RefusedBecause::OtherNamespace);
    holder.tell("");
    assert_eq!(holder.hear(), "Ok(Released)");
}

#[test]
fn of_two_that_take_over_one_gets_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Player::start("hold", dir.path());
    holder.hear();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    takeover(dir.path(), &policy(false, true)).ok();
                    take(dir.path())
                })
            })
            .collect();
        takers
            .into_iter()
            .map(|taker| taker.join().unwrap())
            .collect()
    });
    // Whoever lost is told who won, unless the winner had released it by then.
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        1,
        "{outcomes:?}"
    );
}

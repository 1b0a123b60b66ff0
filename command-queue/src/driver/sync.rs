//! The primitives of the code that hands tasks, tokens and sleep over. Under `--cfg shuttle` the unit tests run the
//! same code on primitives that try one interleaving after the other.

#[cfg(not(all(test, shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

#[cfg(all(test, shuttle))]
pub(crate) use explored::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// The primitives of `shuttle` behind the face of `parking_lot`'s.
#[cfg(all(test, shuttle))]
mod explored {
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    /// Empty only while its thread sleeps.
    pub(crate) struct MutexGuard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(
                self.0
                    .lock()
                    .expect("no thread panics while it holds a lock"),
            ))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0
                .as_ref()
                .expect("a guard is empty only while its thread sleeps")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0
                .as_mut()
                .expect("a guard is empty only while its thread sleeps")
        }
    }

    pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> shuttle::sync::RwLockReadGuard<'_, T> {
            self.0
                .read()
                .expect("no thread panics while it holds a lock")
        }

        pub(crate) fn write(&self) -> shuttle::sync::RwLockWriteGuard<'_, T> {
            self.0
                .write()
                .expect("no thread panics while it holds a lock")
        }
    }

    pub(crate) struct Condvar(shuttle::sync::Condvar);

    /// No time passes here, so nothing ever times out: a lost wake-up is a deadlock, which is reported.
    pub(crate) struct InTime;

    impl InTime {
        #[expect(clippy::unused_self, reason = "it stands for a value that knows")]
        pub(crate) fn timed_out(&self) -> bool {
            false
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(shuttle::sync::Condvar::new())
        }

        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _span: Duration) -> InTime {
            let inner = guard
                .0
                .take()
                .expect("a guard is empty only while its thread sleeps");
            guard.0 = Some(
                self.0
                    .wait(inner)
                    .expect("no thread panics while it holds a lock"),
            );
            InTime
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

//! The child that every supervisor runs: says that it lives, then does nothing.

use std::fs::OpenOptions;
use std::io::Write;

pub(crate) fn run() {
    let path = std::env::var_os("BENCH_FIFO").unwrap_or_default();
    if let Ok(mut fifo) = OpenOptions::new().write(true).open(path) {
        let line = format!("{}\n", std::process::id());
        if fifo.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
    if std::env::var_os("BENCH_READY").is_some()
        && let Ok(mut ready) = OpenOptions::new().write(true).open("/proc/self/fd/3")
        && ready.write_all(b"\n").is_err()
    {
        return;
    }
    loop {
        nix::unistd::pause();
    }
}

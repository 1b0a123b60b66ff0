//! Holds a directory until standard input ends: `hold DIR [KIND]`. Without arguments, a temporary directory.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use session_lock::{Kind, SessionLock};

#[expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let temporary = tempfile::tempdir()?;
    let dir = args
        .next()
        .map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let kind = args
        .next()
        .as_deref()
        .map_or(Kind::InteractiveNex, Kind::from);

    let lock = SessionLock::try_acquire(&dir, kind)?;
    println!(
        "held by {}, generation {}",
        lock.holder(),
        lock.generation()
    );
    io::copy(&mut io::stdin(), &mut io::sink())?;
    println!("{:?}", lock.release()?);
    Ok(())
}

//! Arguments that make no sense: every answer is a code of the manual and a sentence, never a panic or a hang.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use crate::frame::Attack;

/// Words that the verbs know, and words that hurt.
const WORDS: [&[u8]; 44] = [
    b"run",
    b"list",
    b"status",
    b"hold",
    b"release",
    b"takeover",
    b"check",
    b"new",
    b"alias",
    b"add",
    b"rm",
    b"--dir",
    b"--wait",
    b"--note",
    b"--allow-overlap",
    b"--by",
    b"--reason",
    b"--force",
    b"--allow-unproven",
    b"--grace",
    b"--fix",
    b"--json",
    b"--yes",
    b"-q",
    b"--",
    b"true",
    b".",
    b"..",
    b"/",
    b"/proc/self",
    b"/dev/null",
    b"0",
    b"-1",
    b"99999999999999999999",
    b"1e9",
    b"nan",
    b"",
    b"\n",
    b"a\nb",
    b"\xff\xfe",
    b"chat-0",
    b".chat-0",
    b"-",
    b"'; rm x",
];

pub(super) fn round(attack: &mut Attack) -> io::Result<()> {
    let mut args: Vec<OsString> = vec![attack.one_of(&["lock", "session"]).into()];
    for _ in 0..attack.dice.below(6) {
        args.push(OsString::from_vec(attack.one_of(&WORDS).to_vec()));
    }
    attack.count("arguments");
    let done = attack.run(&args)?;
    // 126 and 127: the words made a command that cannot be started.
    if !matches!(
        done.code,
        Some(0..=3 | 69 | 71 | 75 | 77 | 78 | 124 | 126 | 127)
    ) {
        attack.found(format!(
            "{args:?} left with {:?}: {}",
            done.code, done.stderr
        ));
    }
    if done.code != Some(0) && done.stderr.is_empty() && done.stdout.is_empty() {
        attack.found(format!("{args:?} left with {:?} without a word", done.code));
    }
    Ok(())
}

//! Why a program cannot be started, where the system's word for it leads astray.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use nix::errno::Errno;

/// So much of a script is its first line; see execve(2).
const FIRST_LINE: u64 = 256;

/// Returns the system's word for why `program` was not started in `cwd`, and what it leaves out.
pub(crate) fn in_words(cwd: &Path, program: &OsStr, error: &io::Error) -> String {
    // A name without a slash was looked for in many places.
    let is_path = program.as_encoded_bytes().contains(&b'/');
    let program = &cwd.join(program);
    let more = match error.raw_os_error().map(Errno::from_raw) {
        _ if !is_path => None,
        // The file may be there: what is missing is what reads it.
        Some(Errno::ENOENT) if program.is_file() => Some(match interpreter(program) {
            Some(name) => format!("it is there, but its interpreter `{name}` is not"),
            None => "it is there, but what loads it is not".to_owned(),
        }),
        Some(Errno::EACCES) if program.is_dir() => Some("it is a directory".to_owned()),
        Some(Errno::ENOEXEC) => {
            Some("it is no program for this machine, and no script that begins with #!".to_owned())
        }
        _ => None,
    };
    match more {
        Some(more) => format!("{error}: {more}"),
        None => error.to_string(),
    }
}

/// Returns the code with which a shell says so: 127 for what is not there, 126 for what cannot be run.
pub(crate) fn shell_code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    }
}

/// What stands behind the `#!` of a script.
fn interpreter(script: &Path) -> Option<String> {
    let mut line = Vec::new();
    BufReader::new(File::open(script).ok()?.take(FIRST_LINE))
        .read_until(b'\n', &mut line)
        .ok()?;
    let text = String::from_utf8_lossy(line.strip_prefix(b"#!")?);
    // A carriage return at its end belongs to the name, and is what is wrong with it.
    let name = text.trim_matches([' ', '\t', '\n']);
    let name = name.split([' ', '\t']).next()?;
    Some(name.escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_interpreter_is_no_missing_script() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        let told = |program: &str, errno: Errno| {
            in_words(dir.path(), program.as_ref(), &io::Error::from(errno))
        };
        for (text, words) in [
            (
                "#!/nowhere/at/all -x\nexit 0\n",
                "its interpreter `/nowhere/at/all` is not",
            ),
            (
                "#! /bin/sh\r\nexit 0\r\n",
                "its interpreter `/bin/sh\\r` is not",
            ),
            ("\x7fELF", "it is there, but what loads it is not"),
            ("", "it is there, but what loads it is not"),
        ] {
            std::fs::write(&path, text).unwrap();
            let told = told("./script", Errno::ENOENT);
            assert!(told.ends_with(words), "{told}");
        }
        assert!(told(".", Errno::EACCES).ends_with("denied (os error 13)"));
        assert!(told("./", Errno::EACCES).ends_with(": it is a directory"));
        for (program, errno) in [
            ("./gone", Errno::ENOENT),
            ("./script", Errno::EACCES),
            ("script", Errno::ENOENT),
        ] {
            assert_eq!(told(program, errno), io::Error::from(errno).to_string());
        }
    }
}

//! The last words of a process, made safe to print.

/// How many of the last lines are kept.
const LINES: usize = 5;
/// How many characters are kept in all.
const CHARS: usize = 600;

/// Returns the last lines that are not blank, without anything that a terminal would obey.
///
/// What a dying process wrote is shown to a person by another program, long after: escape sequences in it must not act there.
pub(crate) fn printable_tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<String> = text
        .split(['\n', '\r'])
        .map(printable)
        .filter(|line| !line.is_empty())
        .collect();
    lines.drain(..lines.len().saturating_sub(LINES));
    let kept = lines.join("\n");
    let surplus = kept.chars().count().saturating_sub(CHARS);
    if surplus == 0 {
        kept
    } else {
        std::iter::once('…')
            .chain(kept.chars().skip(surplus + 1))
            .collect()
    }
}

/// Returns a line without escape sequences, control characters and the blanks around it.
fn printable(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(next) = chars.next() {
        match next {
            '\u{1b}' => skip_escape(&mut chars),
            '\t' => kept.push(' '),
            // Marks that turn the direction of the text round can make a line read as something else.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            _ if next.is_control() => {}
            _ => kept.push(next),
        }
    }
    kept.trim().to_owned()
}

/// Skips what follows an escape character: a control sequence, a string sequence, or one character (ECMA-48, 5.3–5.6).
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => {
            // Parameters and intermediates, then one final byte.
            while let Some(next) = chars.next_if(|c| ('\u{20}'..='\u{7e}').contains(c)) {
                if ('@'..='~').contains(&next) {
                    break;
                }
            }
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            // A string runs to BEL or to the terminator `ESC \`.
            while let Some(next) = chars.next() {
                if next == '\u{7}' {
                    break;
                }
                if next == '\u{1b}' {
                    chars.next_if_eq(&'\\');
                    break;
                }
            }
        }
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_cannot_move_a_terminal() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"\n \n\r\n", ""),
            (b"error: no\n", "error: no"),
            (b"\x1b[31merror\x1b[0m: \x1b[1mbad\x1b[m", "error: bad"),
            (b"\x1b]0;title\x07said", "said"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"cut\x1b[", "cut"),
            (b"cut\x1b", "cut"),
            (b"a\tb\x00\x08c", "a bc"),
            (b"\xff\xfeodd", "\u{fffd}\u{fffd}odd"),
            ("\u{202e}abc\u{9b}1m".as_bytes(), "abc1m"),
            (b"1\n2\n3\n4\n5\n6\n7\n", "3\n4\n5\n6\n7"),
            (b"10%\r20%\rdone", "10%\n20%\ndone"),
        ] {
            assert_eq!(printable_tail(bytes), text, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_last_words_are_short() {
        let long = "é".repeat(10_000);
        let told = printable_tail(long.as_bytes());
        assert_eq!(told.chars().count(), CHARS);
        assert!(told.starts_with('…'), "{told}");
    }
}

//! Takes comments and literals out of Rust source, so that a rule about code is not broken by a
//! sentence about it. This is a scanner for this repository's own, formatted sources.

/// Returns `text` with every comment, string and character literal blanked. Line breaks stay, so that a
/// line number in the result is one in the source.
pub(super) fn only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            let blank = |c: &char| if *c == '\n' { '\n' } else { ' ' };
            out.extend(chars[at..end].iter().map(blank));
            at = end;
        }
    }
    out
}

/// Returns the end of the comment or literal that starts at `at`, or `at` if none does.
fn literal_or_comment(chars: &[char], at: usize) -> usize {
    match chars[at..] {
        ['/', '/', ..] => line_end(chars, at),
        ['/', '*', ..] => block_end(chars, at),
        ['"', ..] => string_end(chars, at + 1),
        ['r', '"' | '#', ..] if !within_word(chars, at) => raw_string_end(chars, at),
        ['\'', '\\', ..] => char_end(chars, at + 3),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

/// `br"…"` and `cr"…"` start a raw string at their `r`; the `r` of any other word does not.
fn within_word(chars: &[char], at: usize) -> bool {
    let is_word = |at: usize| chars[at].is_alphanumeric() || chars[at] == '_';
    match at {
        0 => false,
        1 => is_word(0) && !"bc".contains(chars[0]),
        _ => is_word(at - 1) && (!"bc".contains(chars[at - 1]) || is_word(at - 2)),
    }
}

fn line_end(chars: &[char], at: usize) -> usize {
    let rest = chars[at..].iter();
    at + rest.take_while(|c| **c != '\n').count()
}

/// Block comments nest.
fn block_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    loop {
        match chars[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            [_, ..] => at += 1,
            [] => return at,
        }
    }
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    loop {
        match chars[at..] {
            ['\\', _, ..] => at += 2,
            ['"', ..] => return at + 1,
            [_, ..] => at += 1,
            [] => return at,
        }
    }
}

/// Returns the end of `r#"…"#`; a raw name such as `r#type` is no literal.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    let mut at = start + 1 + hashes;
    if chars.get(at) != Some(&'"') {
        return start;
    }
    at += 1;
    while at < chars.len() {
        let close = chars[at] == '"';
        let following = chars[at + 1..].iter().take_while(|c| **c == '#').count();
        if close && following >= hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

/// Returns the end of a character literal whose escape ends somewhere after `at`.
fn char_end(chars: &[char], at: usize) -> usize {
    let rest = chars.get(at..).unwrap_or_default();
    (at + rest.iter().take_while(|c| **c != '\'').count() + 1).min(chars.len())
}

/// Returns the number of the line in which the character at byte `at` stands.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Returns the words of `text` with the byte at which each starts.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let not_word = |c: char| !c.is_alphanumeric() && c != '_';
    let mut at = 0;
    text.split(not_word).filter_map(move |word| {
        let start = at;
        // Every separator may have its own length, so the next start is looked up in the text.
        at += word.len();
        at += text[at..].chars().next().map_or(0, char::len_utf8);
        (!word.is_empty()).then_some((start, word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let squeezed: Vec<String> = only(text)
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(squeezed.join("\n"), expected);
    }

    #[test]
    fn comments_are_no_code() {
        check("a; // b\nc;", "a;\nc;");
        check("a /* b /* c */ d */ e", "a e");
        check("/// ```\n/// x\nfn f() {}", "\n\nfn f() {}");
    }

    #[test]
    fn literals_are_no_code() {
        check(r#"f("a \" // b", 1)"#, "f( , 1)");
        check(r###"f(r#"a " b"#, br"c\", cr##"d"#e"##)"###, "f( , b , c )");
        check(r"['a', '\'', '\u{1F980}', '\\', b'x']", "[ , , , , b ]");
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("for r in r#type {}", "for r in r#type {}");
        check("'outer: loop {}", "'outer: loop {}");
    }

    #[test]
    fn words_know_where_they_start() {
        let found: Vec<_> = words("aé::b_1 (c").collect();
        assert_eq!(found, [(0, "aé"), (5, "b_1"), (10, "c")]);
    }
}

//! The only module that prints: results on stdout, everything else on stderr.
//!
//! A closed pipe on stdout is no error: whoever reads has seen enough. It is remembered, so that a verb that streams can stop.
//!
//! Under `--json` every line of stderr is a JSON document too: `{"error":…,"code":…}` for what went wrong, `{"note":…}` for the rest.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};

/// The longest error sentence, in characters: a hostile argument must not flood the terminal.
const LONGEST_SENTENCE: usize = 1_000;

/// What colours mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Well.
    Good,
    /// Waits or will be tried again.
    Waiting,
    /// Needs a person.
    Bad,
    /// Less important.
    Faint,
    /// A heading.
    Strong,
    /// What the next key is about.
    Chosen,
}

impl Paint {
    const fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Waiting => "33",
            Self::Bad => "31",
            Self::Faint => "2",
            Self::Strong => "1",
            Self::Chosen => "7",
        }
    }
}

/// When words are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set or the terminal is a dumb one.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How a report speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice {
    /// One JSON document instead of text.
    pub json: bool,
    /// Results only.
    pub quiet: bool,
    /// How much more is said on stderr.
    pub verbose: u8,
    /// When words are coloured.
    pub colour: Colour,
}

/// Where a verb's words go.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts about two streams, each looked up once"
)]
pub struct Report {
    voice: Voice,
    colour_out: bool,
    colour_err: bool,
    out_is_terminal: bool,
    err_is_terminal: bool,
    gone: Cell<bool>,
    /// Whether a progress line stands on the terminal and must be wiped before other words.
    progress_shown: RefCell<bool>,
}

impl Report {
    /// Returns a report that speaks as it is told to.
    #[must_use]
    pub fn new(voice: Voice) -> Self {
        let out_is_terminal = io::stdout().is_terminal();
        let err_is_terminal = io::stderr().is_terminal();
        // https://no-color.org: set and not empty, whatever its value.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colour = |terminal: bool| match voice.colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => terminal && !no_colour && !dumb,
        };
        Self {
            voice,
            colour_out: colour(out_is_terminal),
            colour_err: colour(err_is_terminal),
            out_is_terminal,
            err_is_terminal,
            gone: Cell::new(false),
            progress_shown: RefCell::new(false),
        }
    }

    /// Whether only results are wanted.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.voice.quiet
    }

    /// Whether one JSON document was asked for.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.voice.json
    }

    /// Whether stdout is a terminal.
    #[must_use]
    pub fn out_is_terminal(&self) -> bool {
        self.out_is_terminal
    }

    /// Whether the reader of stdout has left.
    #[must_use]
    pub fn reader_is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Answers a read or a summary: `dto` as one JSON document, or `text`.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn answer<T: Serialize>(&self, dto: &T, text: impl FnOnce() -> String) -> Outcome<()> {
        if self.voice.json {
            let mut document = serde_json::to_string_pretty(dto).map_err(|error| {
                Failure::new(ExitCode::Bug, "failed to write the answer as JSON").caused_by(error)
            })?;
            document.push('\n');
            return self.write_out(&document);
        }
        let mut text = text();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.write_out(&text)
    }

    /// Tells that something was done: as [`Report::answer`], and silent under `-q`, where the exit code says it.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn done<T: Serialize>(&self, dto: &T, text: impl FnOnce() -> String) -> Outcome<()> {
        if self.voice.quiet && !self.voice.json {
            return Ok(());
        }
        self.answer(dto, text)
    }

    /// Prints one JSON value on one line, for verbs that stream.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn json_line<T: Serialize>(&self, dto: &T) -> Outcome<()> {
        let mut line = serde_json::to_string(dto).map_err(|error| {
            Failure::new(ExitCode::Bug, "failed to write the answer as JSON").caused_by(error)
        })?;
        line.push('\n');
        self.write_out(&line)
    }

    /// Prints a line of the result.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn line(&self, text: &str) -> Outcome<()> {
        self.write_out(&format!("{text}\n"))
    }

    /// Prints what an agent or a person said: as it is into a pipe, without cursor games on a terminal.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn speech(&self, text: &str) -> Outcome<()> {
        if self.out_is_terminal {
            self.write_out(&tame(text))
        } else {
            self.write_out(text)
        }
    }

    /// Goes back to the beginning of a terminal's line and empties it.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn restart_line(&self) -> Outcome<()> {
        if self.out_is_terminal {
            self.write_out("\r\x1b[K")
        } else {
            Ok(())
        }
    }

    /// Says on stderr what is going on, unless `-q`.
    pub fn note(&self, text: &str) {
        if !self.voice.quiet {
            self.say(text, one_line);
        }
    }

    /// Says on stderr what `-v` asked for.
    pub fn detail(&self, text: &str) {
        if self.voice.verbose > 0 && !self.voice.quiet {
            self.say(text, one_line);
        }
    }

    /// Shows on stderr what belongs to an error that follows, over as many lines as it has.
    pub fn aside(&self, text: &str) {
        if !self.voice.quiet {
            self.say(text.trim_matches('\n'), tame);
        }
    }

    /// One JSON document a line, or the text in a form that a terminal can bear.
    fn say(&self, text: &str, bearable: fn(&str) -> String) {
        if self.voice.json {
            self.write_err(&note_as_json(text));
        } else {
            self.write_err(&format!("{}\n", bearable(text)));
        }
    }

    /// Draws a bar on a terminal's stderr; elsewhere nothing.
    pub fn progress(&self, what: &str, done: usize, total: usize) {
        const CELLS: usize = 30;
        if self.voice.quiet || !self.err_is_terminal || total == 0 {
            return;
        }
        let filled = CELLS * done.min(total) / total;
        let bar = format!(
            "\r{what} [{}{}] {done}/{total}",
            "#".repeat(filled),
            " ".repeat(CELLS - filled)
        );
        self.progress_shown.replace(false);
        self.write_err(&bar);
        self.progress_shown.replace(true);
    }

    /// Prints the one sentence that says what went wrong and what helps; under `--json` the same as one JSON document on one line.
    pub fn failure(&self, failure: &Failure) {
        if self.voice.json {
            self.write_err(&FailureDto::of(failure).to_line());
            return;
        }
        let prefix = paint_if(self.colour_err, Paint::Bad, "error:");
        self.write_err(&format!("{prefix} {}\n", sentence(&failure.to_string())));
    }

    /// Colours a word for stdout.
    #[must_use]
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        paint_if(self.colour_out, paint, text)
    }

    /// Colours a word for stderr.
    #[must_use]
    pub fn paint_err(&self, paint: Paint, text: &str) -> String {
        paint_if(self.colour_err, paint, text)
    }

    fn write_out(&self, text: &str) -> Outcome<()> {
        if self.gone.get() {
            return Ok(());
        }
        self.wipe_progress();
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone.set(true);
                Ok(())
            }
            Err(error) => Err(
                Failure::new(ExitCode::System, "failed to write to standard output")
                    .caused_by(error),
            ),
        }
    }

    fn write_err(&self, text: &str) {
        self.wipe_progress();
        // There is nobody left to tell where stderr itself is closed.
        drop(io::stderr().lock().write_all(text.as_bytes()));
    }

    fn wipe_progress(&self) {
        if self.progress_shown.replace(false) {
            drop(io::stderr().lock().write_all(b"\r\x1b[K"));
        }
    }
}

/// What went wrong, for `--json`.
#[derive(Debug, Serialize)]
struct FailureDto {
    /// The whole sentence, as a person reads it.
    error: String,
    /// What the process leaves with.
    code: u8,
    /// What that code means.
    meaning: &'static str,
    /// What failed, without cause and cure.
    message: String,
    /// Why, the nearest cause first.
    causes: Vec<String>,
    /// What helps.
    cure: Option<String>,
}

impl FailureDto {
    fn of(failure: &Failure) -> Self {
        Self {
            error: sentence(&failure.to_string()),
            code: failure.code.code(),
            meaning: failure.code.meaning(),
            message: sentence(failure.message()),
            causes: failure
                .causes()
                .iter()
                .map(|cause| sentence(cause))
                .collect(),
            cure: failure.cure().map(one_line),
        }
    }

    fn to_line(&self) -> String {
        let line = serde_json::to_string(self).expect("because texts and a number are JSON");
        format!("{line}\n")
    }
}

/// Something said on stderr under `--json`: one document on one line.
#[must_use]
pub fn note_as_json(text: &str) -> String {
    format!("{}\n", serde_json::json!({ "note": text }))
}

/// Colours a word for a screen, which is always a terminal; `NO_COLOR` leaves what marks a place and takes the rest.
#[must_use]
pub fn paint_for_a_terminal(paint: Paint, text: &str) -> String {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    paint_if(!no_colour || paint == Paint::Chosen, paint, text)
}

fn paint_if(colour: bool, paint: Paint, text: &str) -> String {
    if colour {
        format!("\x1b[{}m{text}\x1b[0m", paint.code())
    } else {
        text.to_owned()
    }
}

/// Says something on stderr from another thread than the one that has the report.
pub fn aside(text: &str) {
    // Whoever closed stderr does not want to hear.
    drop(writeln!(io::stderr().lock(), "{}", one_line(text)));
}

/// Tells an event as one JSON line on stderr.
pub fn event_to_stderr<T: Serialize>(event: &T) {
    if let Ok(line) = serde_json::to_string(event) {
        drop(writeln!(io::stderr().lock(), "{line}"));
    }
}

/// Returns the text with every control character shown instead of obeyed, on one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// Returns an error's words as one sentence of bearable length.
fn sentence(text: &str) -> String {
    let line = one_line(text.trim_end());
    let length = line.chars().count();
    if length <= LONGEST_SENTENCE {
        return line;
    }
    // The head names what failed and the tail holds the cure; what was too long stands between them.
    let head: String = line.chars().take(LONGEST_SENTENCE * 2 / 3).collect();
    let tail: String = line.chars().skip(length - LONGEST_SENTENCE / 3).collect();
    format!("{head} … {} characters … {tail}", length - LONGEST_SENTENCE)
}

/// Returns the text without the control sequences that move a cursor, retitle a window or worse; colours stay.
#[must_use]
pub fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match c {
            '\x1b' => match colour_sequence(rest) {
                Some(sequence) => {
                    tamed.push_str(sequence);
                    rest = &rest[sequence.len()..];
                    continue;
                }
                None => tamed.push('␛'),
            },
            '\n' | '\t' => tamed.push(c),
            '\r' => {}
            c if c.is_control() => tamed.extend(c.escape_default()),
            c => tamed.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    tamed
}

/// The sequence that sets a colour or a weight at the start of the text: `ESC [ … m`.
fn colour_sequence(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("\x1b[")?;
    let length = inner
        .find(|c: char| !c.is_ascii_digit() && c != ';')
        .filter(|&at| inner[at..].starts_with('m'))?;
    Some(&text[..=2 + length])
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_SENTENCE, one_line, sentence, tame};

    #[test]
    fn an_error_is_one_line_whatever_an_argument_holds() {
        assert_eq!(one_line("a\nb\tc\x1b[2Jd"), "a b c\\u{1b}[2Jd");
        assert_eq!(sentence("trailing\n"), "trailing");
    }

    #[test]
    fn a_huge_argument_does_not_flood_the_terminal_and_the_cure_stays() {
        let told = sentence(&format!(
            "chat `{}` does not exist (wg chat list)",
            "x".repeat(1_000_000)
        ));
        assert!(told.chars().count() < LONGEST_SENTENCE + 100);
        assert!(told.starts_with("chat `xxx") && told.ends_with("(wg chat list)"));
    }

    #[test]
    fn speech_keeps_colours_and_loses_cursor_games() {
        assert_eq!(tame("\x1b[1;31mred\x1b[0m"), "\x1b[1;31mred\x1b[0m");
        assert_eq!(tame("a\x1b[2Jb"), "a␛[2Jb");
        assert_eq!(tame("a\x1b]0;title\x07b"), "a␛]0;title\\u{7}b");
        assert_eq!(tame("progress\r\nnext"), "progress\nnext");
        assert_eq!(tame("\x1b"), "␛");
    }
}

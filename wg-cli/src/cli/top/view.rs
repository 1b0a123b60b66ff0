//! What stands on the screen: a pure function of what is known, of a width and of a height.

use super::memory;
use super::said::Said;
use crate::cli::table::Table;
use crate::columns::{clip, of_char, pad};
use crate::names::ChatState;
use crate::ops::ChatRow;
use crate::report::{Paint, one_line, paint_for_a_terminal};
use crate::store::graph::ChatId;

/// One chat.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) row: ChatRow,
    /// How long it has been in its state.
    pub(super) since: Option<String>,
    /// Of its handler and everything below, in bytes.
    pub(super) memory: Option<u64>,
    /// How old its turn is.
    pub(super) turn: Option<String>,
    pub(super) restarts: u32,
}

const HEADINGS: [&str; 10] = [
    "CHAT", "STATE", "FOR", "PID", "MEM", "TURN", "QUEUE", "RESTARTS", "AGENT", "TITLE",
];

/// Which columns a terminal of this width has room for: whole cells of few are worth more than pieces of all.
fn columns(width: usize) -> &'static [usize] {
    match width {
        72.. => &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        56.. => &[0, 1, 2, 3, 4, 5, 6, 7],
        36.. => &[0, 1, 5, 6],
        18.. => &[0, 1],
        _ => &[0],
    }
}

impl Line {
    fn cells(&self) -> [String; 10] {
        [
            ChatId(self.row.chat_id).to_string(),
            match self.row.stands_still.first() {
                Some(one) => format!("{}: {}", self.row.state, one.text),
                None => self.row.state.to_string(),
            },
            self.since.clone().unwrap_or_default(),
            self.row.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            self.memory.map(memory::in_words).unwrap_or_default(),
            self.turn.clone().unwrap_or_default(),
            self.row.unread.to_string(),
            self.restarts.to_string(),
            self.row.agent.clone(),
            self.row.title.clone(),
        ]
    }
}

/// What stands in the middle.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Body {
    /// The chats.
    #[default]
    Chats,
    /// Why one of them is as it is.
    Why(String),
    /// Whether this one is to be purged.
    AskToPurge(ChatId),
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct Screen {
    pub(super) body: Body,
    service: Option<u32>,
    paused: bool,
    lines: Vec<Line>,
    selected: usize,
    pub(super) said: Said,
}

/// Whether a chat is out of sight unless it is asked for.
pub(super) fn is_retired(state: ChatState) -> bool {
    matches!(state, ChatState::Archived | ChatState::Purged)
}

const KEYS: &str =
    "j/k choose  a attach  w why  i interrupt  s stop  r release  c resume  p purge  q leave";

impl Screen {
    /// Shows these chats; the one that was chosen stays chosen.
    pub(super) fn show(&mut self, service: Option<u32>, paused: bool, lines: Vec<Line>) {
        let chosen = self.selected();
        self.service = service;
        self.paused = paused;
        self.lines = lines;
        let at = chosen.and_then(|chat| {
            self.lines
                .iter()
                .position(|line| ChatId(line.row.chat_id) == chat)
        });
        self.selected = at
            .unwrap_or(self.selected)
            .min(self.lines.len().saturating_sub(1));
    }

    /// The chat that the keys are about.
    pub(super) fn selected(&self) -> Option<ChatId> {
        self.lines
            .get(self.selected)
            .map(|line| ChatId(line.row.chat_id))
    }

    /// The chat whose purge waits for a word.
    pub(super) fn asked_to_purge(&self) -> Option<ChatId> {
        match self.body {
            Body::AskToPurge(chat) => Some(chat),
            Body::Chats | Body::Why(_) => None,
        }
    }

    /// Chooses another chat, so many below.
    pub(super) fn select(&mut self, by: isize) {
        let last = self.lines.len().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(by).min(last);
    }

    /// The picture: at most `height` lines of at most `width` columns.
    pub(super) fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let mut picture = vec![paint_for_a_terminal(
            Paint::Strong,
            &clip(&self.headline(), width),
        )];
        let question = self
            .asked_to_purge()
            .map(|chat| format!("end {chat} for good? its history stays (y/N)"));
        // A low terminal is for the chats first.
        let most = (height / 4).max(1) - usize::from(question.is_some());
        let mut words: Vec<String> = self.said.last(most).map(one_line).collect();
        words.extend(question);
        if words.is_empty() {
            words.push(String::new());
        }
        let keys = match self.body {
            Body::Why(_) => "any key goes back",
            Body::Chats | Body::AskToPurge(_) => KEYS,
        };
        // The head, the words and the keys stand around it.
        let room = height.saturating_sub(2 + words.len());
        match &self.body {
            Body::Why(text) => picture.extend(
                text.lines()
                    .flat_map(|line| fold(&one_line(line), width))
                    .take(room),
            ),
            Body::Chats | Body::AskToPurge(_) => picture.extend(self.table(width, room)),
        }
        picture.resize(room + 1, String::new());
        picture.extend(words.iter().map(|words| clip(words, width)));
        picture.push(paint_for_a_terminal(Paint::Faint, &clip(keys, width)));
        picture.truncate(height.max(1));
        picture
    }

    fn headline(&self) -> String {
        let service = match self.service {
            Some(pid) => format!("service {pid}"),
            None => "no service (wg service start)".to_owned(),
        };
        let paused = if self.paused { ", starts paused" } else { "" };
        let running = self.lines.iter().filter(|line| line.row.pid.is_some());
        format!(
            "wg top  {service}{paused}  {} chats, {} served",
            self.lines.len(),
            running.count()
        )
    }

    /// The headings, and as many chats as fit, the chosen one among them.
    fn table(&self, width: usize, room: usize) -> Vec<String> {
        if self.lines.is_empty() {
            return vec![clip("no chats: wg chat new", width)];
        }
        let columns = columns(width);
        let headings: Vec<&'static str> = columns.iter().map(|&at| HEADINGS[at]).collect();
        let mut table = Table::new(&headings);
        for line in &self.lines {
            let cells = line.cells();
            let kept: Vec<String> = columns.iter().map(|&at| cells[at].clone()).collect();
            table.row(&kept);
        }
        let text = table.to_text_within(width, |_, cell| cell.to_owned());
        let mut lines = text.lines();
        let mut shown: Vec<String> = lines
            .next()
            .map(|headings| paint_for_a_terminal(Paint::Faint, &clip(headings, width)))
            .into_iter()
            .collect();
        let room = room.saturating_sub(1);
        let first = (self.selected + 1).saturating_sub(room);
        let chats = lines.enumerate().skip(first).take(room);
        shown.extend(chats.map(|(at, line)| {
            let line = clip(line, width);
            if at == self.selected {
                paint_for_a_terminal(Paint::Chosen, &pad(&line, width))
            } else {
                line
            }
        }));
        shown
    }
}

/// A long line as several, broken between words where it can be.
fn fold(line: &str, width: usize) -> Vec<String> {
    let mut rest: Vec<char> = line.chars().collect();
    let mut folded = Vec::new();
    loop {
        let mut taken = 0;
        let fits = rest
            .iter()
            .take_while(|c| {
                taken += of_char(**c);
                taken <= width
            })
            .count();
        if fits == rest.len() {
            folded.push(rest.into_iter().collect());
            return folded;
        }
        let at = rest[..fits]
            .iter()
            .rposition(|c| *c == ' ')
            .filter(|at| *at > 0)
            // Where not even one sign fits, one is shown all the same.
            .unwrap_or(fits.max(1));
        folded.push(rest.drain(..at).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::{Body, Line, Screen};
    use crate::names::ChatState;
    use crate::ops::ChatRow;
    use crate::store::graph::ChatId;

    fn line(chat_id: u32) -> Line {
        Line {
            row: ChatRow {
                chat_id,
                task_id: format!(".chat-{chat_id}"),
                title:
                    "a title\x1b[2J 日本語の名前 that is longer than any narrow terminal is wide"
                        .into(),
                name: None,
                state: ChatState::Running,
                waits_for: None,
                since: None,
                pid: Some(4711),
                unread: 3,
                consumers: 0,
                holder: None,
                stands_still: Vec::new(),
                control_group: false,
                agent: "echo".into(),
                task_status: "in-progress".into(),
            },
            since: Some("2 min".into()),
            memory: Some(12 << 20),
            turn: Some("31 s".into()),
            restarts: 2,
        }
    }

    /// Without the colours that this module itself puts in.
    fn plain(line: &str) -> String {
        let mut plain = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("\x1b[") {
            plain.push_str(before);
            rest = after.split_once('m').map_or("", |(_, rest)| rest);
        }
        plain + rest
    }

    #[test]
    fn the_picture_fits_every_size_and_holds_the_chosen_chat() {
        let mut screen = Screen::default();
        screen.show(Some(1), false, (0..50).map(line).collect());
        screen.select(37);
        for n in 0..4 {
            let words = format!("{n} {}", "said\nsomething long ".repeat(20));
            screen.said.say(words);
        }
        for (width, height) in [(80, 24), (200, 60), (20, 6), (1, 1), (3, 2), (80, 3)] {
            let picture = screen.lines(width, height);
            assert!(
                picture.len() <= height,
                "{width}x{height}: {}",
                picture.len()
            );
            for line in &picture {
                assert!(
                    crate::columns::of(&plain(line)) <= width,
                    "{width}x{height}: {line:?}"
                );
                assert!(!plain(line).chars().any(char::is_control), "{line:?}");
            }
            if height >= 6 && width >= 20 {
                assert!(
                    picture.iter().any(|line| line.contains("chat-37")),
                    "{picture:?}"
                );
            }
        }
    }

    #[test]
    fn what_two_keys_led_to_stands_there_together() {
        let mut screen = Screen::default();
        screen.show(Some(1), false, vec![line(0)]);
        let deeds = [0, 1].map(|n| screen.said.begin(format!("stopping {n} …")));
        for (n, deed) in deeds.into_iter().enumerate() {
            screen.said.end(deed, format!("stopped {n}"));
        }
        screen.body = Body::AskToPurge(ChatId(0));
        let picture = screen.lines(80, 24);
        assert_eq!(picture.len(), 24);
        for words in ["stopped 0", "stopped 1", "end chat-0 for good?", "chat-0"] {
            assert!(
                picture.iter().any(|line| line.contains(words)),
                "no `{words}`: {picture:?}"
            );
        }
        assert!(screen.lines(80, 4)[2].contains("end chat-0 for good?"));
    }

    #[test]
    fn the_chosen_chat_stays_chosen_when_others_come_and_go() {
        let mut screen = Screen::default();
        screen.show(None, false, (0..3).map(line).collect());
        screen.select(1);
        screen.show(None, false, [0, 5, 6, 1].map(line).into());
        assert_eq!(screen.selected(), Some(ChatId(1)));
        screen.show(None, false, vec![line(0)]);
        assert_eq!(screen.selected(), Some(ChatId(0)));
        screen.show(None, false, Vec::new());
        screen.select(-1);
        assert_eq!(screen.selected(), None);
        assert!(screen.lines(80, 24)[1].contains("wg chat new"));
    }

    #[test]
    fn an_explanation_is_folded_and_not_cut() {
        let body = Body::Why(
            "chat-3  held by another process\n  next  nothing is tried while 4711 lives".into(),
        );
        let screen = Screen {
            body,
            ..Screen::default()
        };
        let picture = screen.lines(20, 12).concat();
        assert!(picture.contains("lives"), "{picture}");
    }
}

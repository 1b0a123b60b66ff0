//! What is said below the chats: what was asked for, each with its result once there is one, and what went wrong.

use std::collections::VecDeque;

/// Something that was asked for and takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deed(u64);

/// The last things that were said, the newest last.
#[derive(Debug, Default)]
pub(super) struct Said {
    lines: VecDeque<Line>,
    deeds: u64,
}

#[derive(Debug)]
struct Line {
    /// What is under way and has its result told here.
    deed: Option<Deed>,
    words: String,
}

/// So many are kept: one key after the other may ask for something, and their results come at once.
const KEPT: usize = 5;

impl Said {
    /// Says something; what was said in the same words already is not said twice.
    pub(super) fn say(&mut self, words: String) {
        self.lines
            .retain(|line| line.deed.is_some() || line.words != words);
        self.push(None, words);
    }

    /// Says what is being done.
    pub(super) fn begin(&mut self, words: String) -> Deed {
        self.deeds += 1;
        let deed = Deed(self.deeds);
        self.push(Some(deed), words);
        deed
    }

    /// Says what came of it, in the place of what was being done.
    pub(super) fn end(&mut self, deed: Deed, words: String) {
        match self.lines.iter_mut().find(|line| line.deed == Some(deed)) {
            Some(line) => *line = Line { deed: None, words },
            None => self.push(None, words),
        }
    }

    /// Returns the newest, at most so many.
    pub(super) fn last(&self, most: usize) -> impl Iterator<Item = &str> {
        let before = self.lines.len().saturating_sub(most);
        self.lines
            .iter()
            .skip(before)
            .map(|line| line.words.as_str())
    }

    fn push(&mut self, deed: Option<Deed>, words: String) {
        self.lines.push_back(Line { deed, words });
        if self.lines.len() > KEPT {
            self.lines.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(said: &Said) -> Vec<&str> {
        said.last(usize::MAX).collect()
    }

    #[test]
    fn no_result_takes_the_place_of_another() {
        let mut said = Said::default();
        let first = said.begin("stopping 1".into());
        let second = said.begin("stopping 2".into());
        said.end(second, "stopped 2".into());
        said.end(first, "stopped 1".into());
        assert_eq!(all(&said), ["stopped 1", "stopped 2"]);
        assert_eq!(said.last(1).collect::<Vec<_>>(), ["stopped 2"]);
    }

    #[test]
    fn a_result_whose_beginning_is_out_of_sight_is_said_all_the_same() {
        let mut said = Said::default();
        let first = said.begin("stopping 0".into());
        for n in 1..=KEPT {
            said.begin(format!("stopping {n}"));
        }
        said.end(first, "stopped 0".into());
        assert_eq!(all(&said).last(), Some(&"stopped 0"));
        assert_eq!(all(&said).len(), KEPT);
    }

    #[test]
    fn what_goes_wrong_each_second_is_one_line() {
        let mut said = Said::default();
        for _ in 0..3 {
            said.say("no answer".into());
            said.say("no events".into());
        }
        assert_eq!(all(&said), ["no answer", "no events"]);
    }
}

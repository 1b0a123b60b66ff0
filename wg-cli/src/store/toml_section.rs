//! Reading one section of a TOML file so that every complaint names the file, the line, the key and what is allowed.

use std::collections::BTreeSet;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::spelling;

/// The file that is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'t> {
    pub(super) path: &'t Path,
    pub(super) text: &'t str,
}

impl Source<'_> {
    /// Returns the failure for something at `offset` bytes.
    pub(super) fn failure(self, offset: usize, what: &str) -> Failure {
        let line = self.line(offset);
        Failure::new(
            ExitCode::Config,
            format!("`{}` line {line}: {what}", self.path.display()),
        )
    }

    /// Reads the text.
    pub(super) fn root(&self) -> Result<Spanned<DeTable<'_>>, Failure> {
        DeTable::parse(self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            self.failure(offset, &error.message().replace('\n', ", "))
        })
    }

    /// Returns the number of the line at `offset` bytes, from 1.
    pub(super) fn line(self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or(self.text);
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    /// Returns the text of a value, shortened.
    fn shown(self, value: &Spanned<DeValue<'_>>) -> String {
        let text = self.text.get(value.span()).unwrap_or("?");
        let mut shown: String = text.chars().take(40).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        shown.escape_debug().to_string().replace("\\\"", "\"")
    }
}

/// A table of the file, and which of its keys were asked for.
#[derive(Debug)]
pub(super) struct Section<'t> {
    source: Source<'t>,
    name: String,
    table: &'t DeTable<'t>,
    known: BTreeSet<&'static str>,
}

impl<'t> Section<'t> {
    /// Returns the table of this name; `None` if the file has none.
    pub(super) fn of(
        source: Source<'t>,
        root: &'t DeTable<'t>,
        name: &str,
    ) -> Result<Option<Self>, Failure> {
        match root.iter().find(|(key, _)| key.get_ref().as_ref() == name) {
            None => Ok(None),
            Some((_, value)) => Self::from_value(source, name.to_owned(), value).map(Some),
        }
    }

    /// Returns every table in this one, by name.
    pub(super) fn of_each(
        source: Source<'t>,
        root: &'t DeTable<'t>,
        name: &str,
    ) -> Result<Vec<(String, Self)>, Failure> {
        let Some(section) = Self::of(source, root, name)? else {
            return Ok(Vec::new());
        };
        section
            .table
            .iter()
            .map(|(key, value)| {
                let key = key.get_ref().to_string();
                let inner = Self::from_value(source, format!("{name}.{key}"), value)?;
                Ok((key, inner))
            })
            .collect()
    }

    fn from_value(
        source: Source<'t>,
        name: String,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Result<Self, Failure> {
        let Some(table) = value.get_ref().as_table() else {
            let what = format!(
                "`{name}` is {}, allowed is a section [{name}]",
                source.shown(value)
            );
            return Err(source.failure(value.span().start, &what));
        };
        Ok(Self {
            source,
            name,
            table,
            known: BTreeSet::new(),
        })
    }

    /// Returns a key's value, read by `read`; `allowed` says what that takes.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        self.known.insert(key);
        let Some((_, value)) = self
            .table
            .iter()
            .find(|(there, _)| there.get_ref().as_ref() == key)
        else {
            return Ok(None);
        };
        match read(value.get_ref()) {
            Some(read) => Ok(Some(read)),
            None => Err(self.refuse(key, allowed)),
        }
    }

    /// As [`Section::get`], and puts the value where it belongs.
    pub(super) fn set<T>(
        &mut self,
        place: &mut T,
        key: &'static str,
        allowed: &str,
        read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Result<(), Failure> {
        if let Some(value) = self.get(key, allowed, read)? {
            *place = value;
        }
        Ok(())
    }

    /// Returns the failure for a key's value, or for its absence.
    pub(super) fn refuse(&self, key: &str, allowed: &str) -> Failure {
        self.refuse_as(key, "is missing", allowed)
    }

    /// As [`Section::refuse`], for a key that has the default `value` where it is absent.
    pub(super) fn refuse_value(&self, key: &str, value: &str, allowed: &str) -> Failure {
        self.refuse_as(key, &format!("is {value} where it is not set"), allowed)
    }

    fn refuse_as(&self, key: &str, absent: &str, allowed: &str) -> Failure {
        let there = self
            .table
            .iter()
            .find(|(there, _)| there.get_ref().as_ref() == key);
        let (offset, state) = if let Some((_, value)) = there {
            (
                value.span().start,
                format!("is {}", self.source.shown(value)),
            )
        } else {
            let first = self.table.iter().map(|(key, _)| key.span().start).min();
            (first.unwrap_or(0), absent.to_owned())
        };
        let what = format!("`{}.{key}` {state}, allowed is {allowed}", self.name);
        self.source.failure(offset, &what)
    }

    /// Refuses keys that nobody asked for.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let unknown = self
            .table
            .iter()
            .filter(|(key, _)| !self.known.contains(key.get_ref().as_ref()));
        match unknown.min_by_key(|(key, _)| key.span().start) {
            None => Ok(()),
            Some((key, _)) => {
                let known: Vec<&str> = self.known.iter().copied().collect();
                let nearest = spelling::nearest(key.get_ref(), known.iter().copied());
                let shown: String = key.get_ref().chars().take(40).collect();
                let what = format!(
                    "`{}.{}` is no setting, allowed are: {}",
                    self.name,
                    shown.escape_debug(),
                    known.join(", ")
                );
                let failure = self.source.failure(key.span().start, &what);
                Err(match nearest {
                    Some(nearest) => failure.with_cure(format!("did you mean {nearest}?")),
                    None => failure,
                })
            }
        }
    }
}

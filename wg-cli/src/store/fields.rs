//! A JSON object that is shared with others: fields that nobody touches keep their very bytes and their order.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::json;

/// The fields of an object, their values still text.
///
/// A value is only read when it is asked for and only written when it is set: numbers of any size and form survive.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// Returns a field's text.
    pub(super) fn raw(&self, name: &str) -> Option<&RawValue> {
        // The last of two fields of one name counts, as in other readers of JSON.
        let (_, raw) = self.0.iter().rev().find(|(field, _)| field == name)?;
        Some(raw)
    }

    /// Returns a field's value.
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        serde_json::from_str(self.raw(name)?.get()).ok()
    }

    /// Returns a field that is an object itself.
    pub(super) fn inner(&self, name: &str) -> Option<Self> {
        serde_json::from_str(self.raw(name)?.get()).ok()
    }

    /// Returns every field.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0
            .iter()
            .map(|(name, raw)| (name.as_str(), raw.as_ref()))
    }

    /// Sets a field, in its place if it is there, else at the end. Returns whether that changed its value.
    pub(super) fn set(&mut self, name: &str, value: &impl Serialize) -> bool {
        let value = json::value(value);
        if self.get(name).as_ref() == Some(&value) {
            return false;
        }
        self.set_raw(name, json::raw(&value));
        true
    }

    /// Sets a field to an object whose own fields keep their bytes.
    pub(super) fn set_inner(&mut self, name: &str, inner: &Self) {
        self.set_raw(name, json::raw(inner));
    }

    fn set_raw(&mut self, name: &str, raw: Box<RawValue>) {
        match self.0.iter_mut().rev().find(|(field, _)| field == name) {
            Some((_, there)) => *there = raw,
            None => self.0.push((name.to_owned(), raw)),
        }
    }

    /// Removes a field. Returns whether it was there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(field, _)| field != name);
        self.0.len() != before
    }

    /// Returns the whole object.
    pub(super) fn to_map(&self) -> Map<String, Value> {
        let value = |raw: &RawValue| serde_json::from_str(raw.get()).ok();
        self.iter()
            .filter_map(|(name, raw)| Some((name.to_owned(), value(raw)?)))
            .collect()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

//! Values that are JSON already, as bytes.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{StoreError, files};

/// Why none of these can fail.
const SURE: &str = "because text keys and plain values always serialize to memory";

/// Returns one line.
pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect(SURE)
}

/// Returns an indented text with a line feed at its end, for files that people read.
pub(super) fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect(SURE);
    text.push(b'\n');
    text
}

/// Returns a value of a record of ours.
pub(super) fn value(record: &impl Serialize) -> Value {
    serde_json::to_value(record).expect(SURE)
}

/// Returns a value's text.
pub(super) fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect(SURE)
}

/// Reads a small record; `None` if there is no file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let Some(bytes) = files::read(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| corrupt(path, &error))
}

/// The error of a file that is no JSON, or not what it should be. The line stands in it once.
pub(super) fn corrupt(path: &Path, error: &serde_json::Error) -> StoreError {
    let (line, column) = (error.line(), error.column());
    let told = error.to_string();
    let reason = match told.strip_suffix(&format!(" at line {line} column {column}")) {
        Some(reason) => format!("{reason} at column {column}"),
        None => told,
    };
    StoreError::Corrupt {
        path: path.to_owned(),
        line,
        reason,
    }
}

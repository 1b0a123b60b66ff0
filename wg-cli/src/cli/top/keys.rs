//! Keys, as a terminal sends them.

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A letter.
    Letter(char),
    /// The arrow.
    Up,
    /// The arrow.
    Down,
    /// Ctrl-C, Ctrl-D or a lone escape.
    Leave,
    /// Anything else.
    Other,
}

/// Turns bytes into keys; an arrow may come in two pieces.
#[derive(Debug, Default)]
pub(super) struct Keys {
    half: Vec<u8>,
}

impl Keys {
    /// Returns the keys that these bytes end.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Key> {
        // A lone escape is a key of its own once something else than a sequence follows it, or nothing does in the same read.
        let mut bytes: &[u8] = &[std::mem::take(&mut self.half), bytes.to_vec()].concat();
        let mut keys = Vec::new();
        while let Some((&first, rest)) = bytes.split_first() {
            let (key, used) = match (first, rest) {
                (0x1b, [b'[' | b'O']) => {
                    self.half = bytes.to_vec();
                    return keys;
                }
                (0x1b, [b'[' | b'O', more @ ..]) => sequence(more),
                (0x1b, []) | (0x03 | 0x04, _) => (Key::Leave, 1),
                (byte, _) if byte.is_ascii_alphabetic() => {
                    (Key::Letter(char::from(byte.to_ascii_lowercase())), 1)
                }
                _ => (Key::Other, 1),
            };
            keys.push(key);
            bytes = &bytes[used.min(bytes.len())..];
        }
        keys
    }
}

/// What follows `ESC [`: parameters, then a letter that says what it is. Returns the key and the length of the whole sequence.
fn sequence(more: &[u8]) -> (Key, usize) {
    let end = more
        .iter()
        .position(|byte| (0x40..0x7f).contains(byte))
        .unwrap_or(more.len());
    let key = match more.get(end) {
        Some(b'A') => Key::Up,
        Some(b'B') => Key::Down,
        _ => Key::Other,
    };
    (key, 2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::{Key, Keys};

    #[test]
    fn keys_are_read_whole_and_in_pieces() {
        let mut keys = Keys::default();
        assert_eq!(
            keys.take(b"jK\x1b[A\x1b[1;5B\x1b[5~ \x03"),
            [
                Key::Letter('j'),
                Key::Letter('k'),
                Key::Up,
                Key::Down,
                Key::Other,
                Key::Other,
                Key::Leave
            ]
        );
        assert!(keys.take(b"\x1b[").is_empty());
        assert_eq!(keys.take(b"Bq"), [Key::Down, Key::Letter('q')]);
        assert_eq!(keys.take(b"\x1b"), [Key::Leave]);
    }

    #[test]
    fn no_bytes_break_it() {
        let mut keys = Keys::default();
        for byte in 0..=u8::MAX {
            drop(keys.take(&[0x1b, b'[', byte]));
            drop(keys.take(&[byte, 0x1b]));
        }
    }
}

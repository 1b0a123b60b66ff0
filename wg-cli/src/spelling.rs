//! What a word that is not known was probably meant to be.

/// A longer word is no slip of anybody's.
const LONGEST: usize = 64;

/// Whether a word is one letter more, one fewer, one wrong, or two neighbours swapped away from the one that was meant.
pub(crate) fn is_one_slip_from(word: &str, meant: &str) -> bool {
    word.len() <= LONGEST && strsim::osa_distance(word, meant) == 1
}

/// Returns the known word that is most like this one, if any is like it at all.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    /// As clap has it for verbs and flags, a little stricter: settings are longer words.
    const LIKE: f64 = 0.8;
    if word.len() > LONGEST {
        return None;
    }
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(likeness, _)| *likeness > LIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::{is_one_slip_from, nearest};

    #[test]
    fn the_nearest_word_is_named_and_none_where_nothing_is_near() {
        let known = ["backoff_cap", "backoff_first", "crash_hard", "crash_soft"];
        for (word, meant) in [
            ("backoff_frist", Some("backoff_first")),
            ("backof_cap", Some("backoff_cap")),
            ("max_crashes", None),
            ("crash_hrad", Some("crash_hard")),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        assert_eq!(nearest(&"b".repeat(1_000_000), known), None);
    }

    #[test]
    fn one_slip_is_one_letter_or_two_that_changed_places() {
        for word in ["lst", "liist", "lisp", "lsit"] {
            assert!(is_one_slip_from(word, "list"), "{word}");
        }
        for word in ["list", "lt", "tsil", "stop"] {
            assert!(!is_one_slip_from(word, "list"), "{word}");
        }
    }
}

//! How wide a text is on a terminal, where a character may take two columns, or none.

use unicode_width::UnicodeWidthChar;

/// The width that everything printed for people fits.
pub(crate) const WIDTH: usize = 80;

/// The width of standard output where it is a terminal and narrower than [`WIDTH`], else that.
pub(crate) fn available() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => WIDTH.min(usize::from(size.ws_col)),
        Ok(_) | Err(_) => WIDTH,
    }
}

/// Returns how many columns the text takes.
///
/// Each character counts for itself, as terminals that join nothing show it, so a joined sign is never taken for less than it may be.
pub(crate) fn of(text: &str) -> usize {
    text.chars().map(of_char).sum()
}

pub(crate) fn of_char(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Returns the text in at most `width` columns, with `…` where something was cut.
pub(crate) fn clip(text: &str, width: usize) -> String {
    if of(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let mut taken = 0;
    let mut clipped: String = text
        .chars()
        .take_while(|c| {
            taken += of_char(*c);
            taken <= room
        })
        .collect();
    clipped.push('…');
    clipped
}

/// Returns the text with spaces behind it until it is `width` columns wide.
pub(crate) fn pad(text: &str, width: usize) -> String {
    let owed = width.saturating_sub(of(text));
    format!("{text}{}", " ".repeat(owed))
}

#[cfg(test)]
mod tests {
    use super::{clip, of, pad};

    #[test]
    fn a_wide_sign_takes_two_columns_and_a_combining_one_none() {
        for (text, columns) in [("größe", 5), ("e\u{301}", 1), ("日本", 4), ("", 0)] {
            assert_eq!(of(text), columns, "{text}");
        }
    }

    #[test]
    fn what_is_cut_fits_and_ends_in_a_mark() {
        for (text, width, clipped) in [
            ("größe", 5, "größe"),
            ("größer", 5, "größ…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            // Half a sign cannot be shown.
            ("日本語", 4, "日…"),
        ] {
            assert_eq!(clip(text, width), clipped, "{text} in {width}");
        }
    }

    #[test]
    fn what_is_padded_ends_where_the_others_end() {
        assert_eq!(pad("日本", 5), "日本 ");
        assert_eq!(pad("größe", 3), "größe");
    }
}

//! A reader for the JSON that `cargo` writes about the workspace. It takes well-formed JSON and does
//! no more than that; the crates of the product use a real library.

use std::str::Chars;

/// One JSON value. Numbers keep their text, because nothing here calculates with them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

static NULL: Json = Json::Null;

impl Json {
    /// Reads one value that fills the whole text; `None` if the text is not JSON.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text.chars() };
        let value = reader.value()?;
        reader.skip_space();
        reader.rest.as_str().is_empty().then_some(value)
    }

    /// Returns the member `key` of an object, `Null` where there is none.
    pub(crate) fn get(&self, key: &str) -> &Self {
        if let Self::Object(members) = self {
            let found = members.iter().find(|(name, _)| name == key);
            found.map_or(&NULL, |(_, value)| value)
        } else {
            &NULL
        }
    }

    /// Returns the text of a string value.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// Returns the elements of a list, none where the value is no list.
    pub(crate) fn list(&self) -> &[Self] {
        if let Self::List(elements) = self {
            elements
        } else {
            &[]
        }
    }

    /// Returns the texts of a list of strings; other elements are left out.
    pub(crate) fn texts(&self) -> Vec<String> {
        let texts = self.list().iter().filter_map(Self::text);
        texts.map(str::to_owned).collect()
    }
}

struct Reader<'a> {
    rest: Chars<'a>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|c| " \t\r\n".contains(c)) {
            self.rest.next();
        }
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        self.skip_space();
        (self.rest.next()? == wanted).then_some(())
    }

    fn value(&mut self) -> Option<Json> {
        self.skip_space();
        match self.peek()? {
            '{' => self.object(),
            '[' => self.list(),
            '"' => Some(Json::Text(self.string()?)),
            _ => self.word(),
        }
    }

    fn object(&mut self) -> Option<Json> {
        self.take('{')?;
        let mut members = Vec::new();
        self.skip_space();
        if self.peek()? == '}' {
            self.rest.next();
            return Some(Json::Object(members));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.take(':')?;
            members.push((key, self.value()?));
            self.skip_space();
            match self.rest.next()? {
                ',' => {}
                '}' => return Some(Json::Object(members)),
                _ => return None,
            }
        }
    }

    fn list(&mut self) -> Option<Json> {
        self.take('[')?;
        let mut elements = Vec::new();
        self.skip_space();
        if self.peek()? == ']' {
            self.rest.next();
            return Some(Json::List(elements));
        }
        loop {
            elements.push(self.value()?);
            self.skip_space();
            match self.rest.next()? {
                ',' => {}
                ']' => return Some(Json::List(elements)),
                _ => return None,
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        self.take('"')?;
        let mut text = String::new();
        loop {
            match self.rest.next()? {
                '"' => return Some(text),
                '\\' => text.push(self.escape()?),
                plain => text.push(plain),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        Some(match self.rest.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let high = self.hex4()?;
                if !(0xD800..0xDC00).contains(&high) {
                    return char::from_u32(high);
                }
                // A character beyond the first 65,536 comes as two escapes.
                (self.rest.next()? == '\\' && self.rest.next()? == 'u').then_some(())?;
                let low = self.hex4()?.checked_sub(0xDC00)?;
                char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + low)?
            }
            same @ ('"' | '\\' | '/') => same,
            _ => return None,
        })
    }

    fn hex4(&mut self) -> Option<u32> {
        let mut number = 0;
        for _ in 0..4 {
            number = number * 16 + self.rest.next()?.to_digit(16)?;
        }
        Some(number)
    }

    fn word(&mut self) -> Option<Json> {
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| !" \t\r\n,]}:".contains(*c)) {
            word.push(c);
            self.rest.next();
        }
        match word.as_str() {
            "null" => Some(Json::Null),
            "true" => Some(Json::Bool(true)),
            "false" => Some(Json::Bool(false)),
            number => number
                .parse::<f64>()
                .is_ok()
                .then(|| Json::Number(number.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        let text = r#" {"a": [1, -2.5e3, true, null], "b": {"c": "d"}, "e": [], "f": {}} "#;
        let json = Json::parse(text).unwrap();
        assert_eq!(json.get("a").list()[1], Json::Number("-2.5e3".to_owned()));
        assert_eq!(json.get("a").list()[2], Json::Bool(true));
        assert_eq!(json.get("b").get("c").text(), Some("d"));
        assert_eq!(json.get("nothing").get("here"), &Json::Null);
    }

    #[test]
    fn escapes_and_surrogate_pairs_become_characters() {
        let json = Json::parse(r#""\"\\\/\n\u00e9\ud83e\udd80""#).unwrap();
        assert_eq!(json.text(), Some("\"\\/\né🦀"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            "{",
            "[1,",
            "nul",
            "\"open",
            "{\"a\" 1}",
            "1 2",
            "\"\\ud800x\"",
        ] {
            assert_eq!(Json::parse(text), None, "{text}");
        }
    }
}

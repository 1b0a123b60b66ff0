//! The label on line three of a record.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// What sort of program holds the directory.
///
/// A kind is a label for people. It never decides who may have the lock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A conversation that a person drives in a terminal (`interactive-nex`).
    InteractiveNex,
    /// A conversation that runs by itself (`autonomous-nex`).
    AutonomousNex,
    /// The handler of one chat (`chat-nex`).
    ChatNex,
    /// A screen that embeds a terminal (`tui-pty`).
    TuiPty,
    /// A foreign agent behind an adapter (`adapter`).
    Adapter,
    /// Any other text, kept verbatim.
    Other(String),
}

impl Kind {
    /// Returns the text that stands in the record.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::InteractiveNex => "interactive-nex",
            Self::AutonomousNex => "autonomous-nex",
            Self::ChatNex => "chat-nex",
            Self::TuiPty => "tui-pty",
            Self::Adapter => "adapter",
            Self::Other(text) => text,
        }
    }

    /// Returns whether the text can stand in a record: one line, not empty, at most 255 bytes.
    ///
    /// A line break in a kind would forge further record lines.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        let text = self.as_str();
        !text.is_empty() && text.len() <= 255 && !text.contains(['\n', '\r', '\0'])
    }
}

impl From<&str> for Kind {
    fn from(text: &str) -> Self {
        match text {
            "interactive-nex" => Self::InteractiveNex,
            "autonomous-nex" => Self::AutonomousNex,
            "chat-nex" => Self::ChatNex,
            "tui-pty" => Self::TuiPty,
            "adapter" => Self::Adapter,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl FromStr for Kind {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::from(text))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

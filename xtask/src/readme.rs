//! The commands that the README promises, read from the README itself so that they cannot drift.

/// Returns the lines of every shell block of a Markdown text, block by block.
pub(crate) fn shell_blocks(text: &str) -> Vec<Vec<String>> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, Vec<String>)> = None;
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        open = match (open, fence) {
            (None, Some(language)) => {
                let shell = ["sh", "bash", "console"].contains(&language.trim());
                Some((shell, Vec::new()))
            }
            (None, None) => None,
            (Some((shell, lines)), Some(_)) => {
                if shell {
                    blocks.push(lines);
                }
                None
            }
            (Some((shell, mut lines)), None) => {
                let line = line.trim();
                if !line.is_empty() {
                    lines.push(line.trim_start_matches("$ ").to_owned());
                }
                Some((shell, lines))
            }
        };
    }
    blocks
}

/// Returns the two commands that the README starts with: the one that answers, and the one that tests.
///
/// `None` unless each of the first two shell blocks holds exactly one command.
pub(crate) fn front_commands(text: &str) -> Option<(String, String)> {
    let mut blocks = shell_blocks(text).into_iter();
    let mut command = || {
        let mut lines = blocks.next()?.into_iter();
        lines.next().filter(|_| lines.next().is_none())
    };
    Some((command()?, command()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_shell_blocks_are_the_front_commands() {
        let text = "# T\n\nOne.\n\n```sh\na b\n```\n\nor\n\n```toml\nx = 1\n```\n\n```console\n$ c d\n```\n";
        assert_eq!(
            front_commands(text),
            Some(("a b".to_owned(), "c d".to_owned()))
        );
    }

    #[test]
    fn a_front_block_with_two_commands_is_no_front_command() {
        assert_eq!(front_commands("```sh\na\nb\n```\n```sh\nc\n```\n"), None);
        assert_eq!(front_commands("```sh\na\n```\n"), None);
    }
}

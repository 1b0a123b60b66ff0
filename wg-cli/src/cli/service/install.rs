//! `wg service install`: a unit of the user's systemd for this workspace's service.
//!
//! What systemd asks of a service is in `daemon::service_manager`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::args::service::Install;
use crate::cli::context::Context;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, Outcome};
use crate::store::StoreError;
use crate::store::workspace::Workspace;

/// The first words of every unit that this verb wrote: nothing else is ever replaced.
const MARK: &str = "# Made by `wg service install`";

#[derive(Debug, Serialize)]
struct Installed {
    /// The unit's name, for `systemctl --user`.
    unit: String,
    path: PathBuf,
    /// Whether a file was written: not with `--print`, and not where it said the same already.
    written: bool,
    text: String,
}

pub(super) fn run(cx: &Context<'_>, args: &Install) -> Outcome {
    let workspace = cx.workspace()?;
    let unit = unit_name(&workspace);
    let path = units_directory()?.join(&unit);
    let text = unit_text(&program()?, workspace.root());
    let mut installed = Installed {
        unit,
        path,
        written: false,
        text,
    };
    if args.print {
        cx.report.answer(&installed, || installed.text.clone())?;
        return Ok(ExitCode::Ok);
    }
    installed.written = write(&installed.path, &installed.text)?;
    cx.report.done(&installed, || {
        let did = if installed.written {
            "Wrote"
        } else {
            "Already there:"
        };
        format!(
            "{did} {}\nNow:\n  systemctl --user daemon-reload\n  systemctl --user enable --now {}\n\
             To keep it running while you are not logged in: loginctl enable-linger",
            installed.path.display(),
            installed.unit
        )
    })?;
    Ok(ExitCode::Ok)
}

/// `wg-PROJECT-ID.service`, where the id is the workspace's own: two projects of one name are two units.
fn unit_name(workspace: &Workspace) -> String {
    let project: String = workspace
        .root()
        .parent()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(40)
        .collect();
    let id: String = workspace.id().chars().take(8).collect();
    format!("wg-{project}-{id}.service")
}

fn units_directory() -> Outcome<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|config| config.join("systemd/user"))
        .ok_or_else(|| {
            Failure::new(ExitCode::System, "there is no place for the unit")
                .with_cure("set HOME or XDG_CONFIG_HOME to an absolute path, or use --print")
        })
}

/// The program by its path: the unit outlives this process.
fn program() -> Outcome<PathBuf> {
    std::env::current_exe().map_err(|error| {
        Failure::new(ExitCode::System, "failed to find the path of this program").caused_by(error)
    })
}

fn write(path: &Path, text: &str) -> Outcome<bool> {
    match std::fs::read_to_string(path) {
        Ok(there) if there == text => return Ok(false),
        Ok(there) if !there.starts_with(MARK) => {
            return Err(Failure::new(
                ExitCode::Failed,
                format!("`{}` is there and is not ours", path.display()),
            )
            .with_cure("move it away, or take what you need from --print"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("read", path)(error).into()),
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(StoreError::io("create", dir))?;
    }
    std::fs::write(path, text).map_err(StoreError::io("write", path))?;
    Ok(true)
}

fn unit_text(program: &Path, root: &Path) -> String {
    let (wg, dir) = (word(program), word(root));
    // A `#` comment ends with its line, whatever a path holds.
    let of = crate::report::one_line(&root.display().to_string());
    format!(
        "\
{MARK} for {of}
[Unit]
Description=wg keeps the chats of {description} alive
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={wg} --dir {dir} service start --foreground
ExecReload={wg} --dir {dir} service reload
Restart=on-failure
RestartSec=2
# Only the daemon is signalled: it ends its agents itself at a stop. At a restart it leaves them to its successor.
KillMode=process
KillSignal=SIGTERM
RestartKillSignal=SIGUSR1
# Each agent is ended with its whole control group, which the daemon makes below this one.
Delegate=yes
TimeoutStartSec=90
TimeoutStopSec=120
WatchdogSec=60
# 78 is a configuration that must be mended first.
RestartPreventExitStatus=78

[Install]
WantedBy=default.target
",
        description = of.replace('%', "%%"),
    )
}

/// A path as one word of a command line in a unit: no specifier, no variable and no escape is read out of it.
fn word(path: &Path) -> String {
    let mut quoted = String::from("\"");
    for c in path.display().to_string().chars() {
        match c {
            '%' => quoted.push_str("%%"),
            '$' => quoted.push_str("$$"),
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::{unit_text, word};
    use std::path::Path;

    #[test]
    fn a_path_is_one_word_whatever_it_holds() {
        for (path, expected) in [
            ("/srv/a/.wg", r#""/srv/a/.wg""#),
            ("/a b/100%/$HOME", r#""/a b/100%%/$$HOME""#),
            ("/say \"hi\"\\", r#""/say \"hi\"\\""#),
        ] {
            assert_eq!(word(Path::new(path)), expected);
        }
    }

    #[test]
    fn a_line_break_in_a_path_adds_no_line_to_the_unit() {
        let plain = unit_text(Path::new("/bin/wg"), Path::new("/a/.wg"));
        let broken = unit_text(
            Path::new("/bin/wg"),
            Path::new("/a\nExecStartPre=/evil/.wg"),
        );
        assert_eq!(plain.lines().count(), broken.lines().count());
    }
}

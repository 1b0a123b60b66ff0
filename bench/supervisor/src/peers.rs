//! Who is measured, set up as their documentation recommends.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

pub(crate) struct Peer {
    kind: Kind,
    /// This program, which is also our supervisor and the floor.
    bin: PathBuf,
    /// What each of them runs.
    child: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    OneThread,
    ThreadPerChild,
    Ours,
    OursElsewhere,
    S6,
    Supervisord,
}

pub(crate) struct Running {
    kind: Kind,
    process: Child,
    directory: PathBuf,
}

impl Peer {
    pub(crate) fn all(bin: &Path, child: &Path) -> Vec<Self> {
        [
            Kind::OneThread,
            Kind::Ours,
            Kind::S6,
            Kind::ThreadPerChild,
            Kind::OursElsewhere,
            Kind::Supervisord,
        ]
        .map(|kind| Self {
            kind,
            bin: bin.to_owned(),
            child: child.to_owned(),
        })
        .into()
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::OneThread => "bare loop",
            Kind::ThreadPerChild => "bare threads",
            Kind::Ours => "ours",
            Kind::OursElsewhere => "ours, no reaper",
            Kind::S6 => "s6 (ready fd)",
            Kind::Supervisord => "supervisord",
        }
    }

    /// One whose restart takes a second need not be asked forty times.
    pub(crate) fn is_slow(&self) -> bool {
        self.kind == Kind::Supervisord
    }

    /// Whether it belongs in the short form with so many units.
    pub(crate) fn is_quick(&self, units: usize) -> bool {
        match self.kind {
            Kind::OneThread | Kind::Ours => true,
            Kind::S6 => units < 1_000,
            Kind::ThreadPerChild | Kind::OursElsewhere | Kind::Supervisord => false,
        }
    }

    /// Says what is missing for it to be measured.
    pub(crate) fn missing(&self) -> Option<String> {
        let (program, package) = match self.kind {
            Kind::OneThread | Kind::ThreadPerChild | Kind::Ours | Kind::OursElsewhere => {
                return None;
            }
            Kind::S6 => ("s6-svscan", "s6"),
            Kind::Supervisord => ("supervisord", "supervisor"),
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        (!there).then(|| format!("`{program}` is not on PATH (Debian: apt install {package})"))
    }

    pub(crate) fn prepare(
        &self,
        directory: &Path,
        fifo: &Path,
        size: usize,
    ) -> Result<(), Box<dyn Error>> {
        match self.kind {
            Kind::OneThread | Kind::ThreadPerChild | Kind::Ours | Kind::OursElsewhere => {}
            Kind::S6 => {
                for unit in 0..size {
                    let service = directory.join("scan").join(format!("u{unit}"));
                    fs::create_dir_all(&service)?;
                    symlink(&self.child, service.join("run"))?;
                    fs::write(service.join("notification-fd"), "3\n")?;
                }
            }
            Kind::Supervisord => {
                let mut config = format!(
                    "[supervisord]\nnodaemon=true\nlogfile={0}/log\npidfile={0}/pid\nminfds=8192\n\
                     childlogdir={0}\n",
                    directory.display()
                );
                writeln!(
                    config,
                    "[program:u]\ncommand={}\nprocess_name=%(process_num)d\nnumprocs={size}\n\
                     startsecs=0\nautorestart=true\nstartretries=1000000\n\
                     stdout_logfile=/dev/null\nstderr_logfile=/dev/null\n\
                     environment=BENCH_FIFO=\"{}\"",
                    self.child.display(),
                    fifo.display(),
                )?;
                fs::write(directory.join("supervisord.conf"), config)?;
            }
        }
        Ok(())
    }

    pub(crate) fn start(
        &self,
        directory: &Path,
        fifo: &Path,
        size: usize,
    ) -> Result<Running, Box<dyn Error>> {
        let mut command = match self.kind {
            Kind::OneThread => self.own(directory, size, "loop"),
            Kind::ThreadPerChild => self.own(directory, size, "threads"),
            Kind::Ours => self.own(directory, size, "ours"),
            Kind::OursElsewhere => self.own(directory, size, "elsewhere"),
            Kind::S6 => {
                let mut command = Command::new("s6-svscan");
                let most = (size + 10).to_string();
                command.args(["-c", &most]).arg(directory.join("scan"));
                command.env("BENCH_READY", "1");
                command
            }
            Kind::Supervisord => {
                let mut command = Command::new("supervisord");
                command.arg("-c").arg(directory.join("supervisord.conf"));
                command
            }
        };
        let process = command
            .env("BENCH_FIFO", fifo)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Running {
            kind: self.kind,
            process,
            directory: directory.to_owned(),
        })
    }

    /// This program in another role.
    fn own(&self, directory: &Path, size: usize, role: &str) -> Command {
        let mut command = Command::new(&self.bin);
        command
            .arg(size.to_string())
            .arg(&self.child)
            .arg(directory.join("events"))
            .env(crate::ROLE, role);
        command
    }
}

impl Running {
    /// The supervisor's processes: everything below it that is no child of ours.
    pub(crate) fn own_processes(&self, children: &[u32]) -> Vec<u32> {
        let own = self.process.id();
        let below = supervisor::tree::descendants(own).unwrap_or_default();
        let mut pids: Vec<u32> = below.into_iter().map(|process| process.pid).collect();
        pids.retain(|pid| !children.contains(pid));
        pids.push(own);
        pids
    }

    pub(crate) fn stop(&mut self) -> Result<(), Box<dyn Error>> {
        match self.kind {
            Kind::OneThread | Kind::ThreadPerChild | Kind::Ours | Kind::OursElsewhere => {
                drop(self.process.stdin.take());
            }
            Kind::S6 => {
                let scan = self.directory.join("scan");
                Command::new("s6-svscanctl").arg("-t").arg(scan).status()?;
            }
            Kind::Supervisord => {
                let pid = Pid::from_raw(i32::try_from(self.process.id())?).ok_or("pid 0")?;
                rustix::process::kill_process(pid, Signal::TERM)?;
            }
        }
        Ok(())
    }

    pub(crate) fn join(&mut self) -> Result<(), Box<dyn Error>> {
        let status = self.process.wait()?;
        // s6 ends with a code of its own; ours fails if there were survivors.
        if self.kind == Kind::Ours && !status.success() {
            return Err(format!("it ended with {status}").into());
        }
        Ok(())
    }
}

impl Drop for Running {
    /// A bench that failed leaves nothing behind.
    fn drop(&mut self) {
        let own = self.process.id();
        if self.process.try_wait().ok().flatten().is_none()
            && let Some(start) = supervisor::tree::start_ticks(own)
        {
            let within = std::time::Duration::from_secs(10);
            drop(supervisor::tree::end(
                Some((own, start)),
                None,
                within,
                &mut |_| false,
            ));
            drop(self.process.wait());
        }
    }
}

//! The daemon and the client as programs: started, asked, killed, and cleared away.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::records::{ensure_bpffs, pin_dir, record_process, remove_tree};
use crate::{Host, Lab, eventually, sys};

/// The kernel verifies the programs first, which takes it a minute where the processor is emulated.
const START: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(10);
const COMMAND: Duration = Duration::from_secs(60);
/// How much of the log is shown with a failure.
const LOG_TAIL: usize = 40;

/// What a daemon's configuration has beyond the paths that the lab chooses.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Lines for the `[api]` table, such as `listen`.
    pub api: String,
    /// Further tables, such as `[limits]`.
    pub more: String,
    /// Environment variables of the process.
    pub environment: Vec<(String, String)>,
}

/// A `wardlined` in a lab's router. Dropping it kills it, detaches and removes what it pinned.
#[derive(Debug)]
pub struct Daemon {
    binary: PathBuf,
    router: Host,
    dir: PathBuf,
    config: PathBuf,
    pins: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Daemon {
    /// Starts the program in the lab's router and waits until its socket accepts.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub fn start(lab: &Lab, binary: &Path, settings: &Settings) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        ensure_bpffs()?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = lab.dir().join(format!("daemon-{number}"));
        fs::create_dir(&dir).context("making the daemon's directory")?;
        let mut daemon = Self {
            binary: absolute(binary)?,
            router: lab.router().clone(),
            config: dir.join("wardlined.toml"),
            pins: pin_dir(lab.id(), number),
            socket: dir.join("api.sock"),
            log: dir.join("log"),
            environment: settings.environment.clone(),
            child: None,
            dir,
        };
        let text = format!(
            "router = \"lab-router\"\nstate_dir = {:?}\npin_dir = {:?}\n\n[api]\nsocket = {:?}\n{}\n\n{}\n",
            daemon.dir.join("state"),
            daemon.pins,
            daemon.socket,
            settings.api,
            settings.more,
        );
        fs::write(&daemon.config, text).context("writing the daemon's configuration")?;
        daemon.launch()?;
        Ok(daemon)
    }

    /// The socket that it serves.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its pin directory.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Everything that it has logged, over restarts.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it as a crash would: nothing of it runs after this call.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        self.end(libc::SIGKILL).map(|_| ())
    }

    /// Waits until it has died by itself.
    ///
    /// # Errors
    /// When it lives on.
    pub fn await_death(&mut self) -> Result<()> {
        self.ended().map(|_| ())
    }

    /// Sets a variable for the next start, or takes it away.
    pub fn set_environment(&mut self, name: &str, value: Option<&str>) {
        self.environment.retain(|(known, _)| known != name);
        let value = value.map(|value| (name.to_owned(), value.to_owned()));
        self.environment.extend(value);
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Errors
    /// When it does not run, does not end in time, or ends with a failure.
    pub fn terminate(&mut self) -> Result<()> {
        let status = self.end(libc::SIGTERM)?;
        ensure!(
            status.success(),
            "the daemon ended with {status}\n{}",
            self.log_tail()
        );
        Ok(())
    }

    /// Starts it where it left off, after ending it if it runs.
    ///
    /// # Errors
    /// When it does not end or does not come up.
    pub fn restart(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.terminate()?;
        }
        self.launch()
    }

    /// Runs the program once more with its configuration and these arguments, such as `--check`.
    ///
    /// # Errors
    /// When it can't be run, or does not end in time.
    pub fn run(&self, arguments: &[&str]) -> Result<Answer> {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(&self.config).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        answer(command, |command| self.router.spawn(command))
    }

    /// Removes everything that it ever attached or pinned; it must not run.
    ///
    /// # Errors
    /// When `--detach` fails, with what it said.
    pub fn detach(&self) -> Result<()> {
        self.run(&["--detach"])?
            .ok()
            .context("wardlined --detach")
            .map(|_| ())
    }

    /// Leaves it running after this process; goes with [`Lab::keep`].
    ///
    /// # Errors
    /// When the lab's removal script can't be extended.
    pub fn keep(mut self) -> Result<()> {
        let lab = self
            .dir
            .parent()
            .context("the daemon's directory has no parent")?;
        let mut script = String::new();
        if let Some(child) = self.child.take() {
            let pid = child.id();
            let binary = self.binary.display();
            // The process id may have been reused by then: only this program is ended, also when
            // its file has been replaced meanwhile.
            script.push_str(&format!(
                "case \"$(readlink /proc/{pid}/exe)\" in\n'{binary}'*)\n  kill {pid}\n  \
                 timeout 10 tail --pid={pid} -f /dev/null ;;\nesac\n"
            ));
        }
        script.push_str(&format!(
            "nsenter --net={} '{}' --config {} --detach\n",
            self.router.netns_path().display(),
            self.binary.display(),
            self.config.display()
        ));
        fs::write(lab.join("teardown"), script).context("writing the daemon's teardown")?;
        // Nothing is left for `drop` to do.
        self.dir = PathBuf::new();
        Ok(())
    }

    fn launch(&mut self) -> Result<()> {
        self.begin()?;
        let mut ended = None;
        let serving = eventually(START, || {
            let child = self.child.as_mut();
            ended = child.and_then(|child| child.try_wait().ok().flatten());
            ended.is_some() || UnixStream::connect(&self.socket).is_ok()
        });
        if let Some(status) = ended {
            self.child = None;
            bail!("the daemon ended with {status}\n{}", self.log_tail());
        }
        ensure!(
            serving,
            "the daemon does not serve its socket\n{}",
            self.log_tail()
        );
        Ok(())
    }

    /// Starts it, and does not wait until it serves.
    ///
    /// # Errors
    /// When the program can't be run.
    pub fn begin(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command
            .arg("--config")
            .arg(&self.config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A terminal's interrupt is for the test; the lab ends the daemon.
            .process_group(0);
        let child = self.router.spawn(&mut command)?;
        let id = child.id();
        self.child = Some(child);
        if let Some(lab) = self.dir.parent() {
            record_process(lab, id)?;
        }
        Ok(())
    }

    fn end(&mut self, signal: libc::c_int) -> Result<ExitStatus> {
        let child = self.child.as_ref().context("the daemon does not run")?;
        sys::signal(child.id(), signal).context("signalling the daemon")?;
        self.ended()
            .with_context(|| format!("after signal {signal}"))
    }

    fn ended(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("the daemon does not run")?;
        let mut ended = None;
        eventually(STOP, || {
            ended = child.try_wait().ok().flatten();
            ended.is_some()
        });
        let status = ended.context("the daemon runs on")?;
        self.child = None;
        Ok(status)
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
        format!("the end of {}:\n{}", self.log.display(), tail.join("\n"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        if self.child.is_some()
            && let Err(problem) = self.kill9()
        {
            eprintln!("lab: {problem:#}");
        }
        // A lab that was dropped first has removed router, pins and files.
        if !self.dir.exists() {
            return;
        }
        if let Err(problem) = self.detach() {
            eprintln!("lab: {problem:#}");
        }
        if let Err(problem) = remove_tree(&self.pins) {
            eprintln!("lab: {problem:#}");
        }
    }
}

/// A `wardctl` and the daemon that it asks.
#[derive(Debug, Clone)]
pub struct Ctl {
    binary: PathBuf,
    server: String,
    scratch: PathBuf,
}

impl Ctl {
    /// The client program, pointed at a daemon's socket.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn new(binary: &Path, daemon: &Daemon) -> Result<Self> {
        Ok(Self {
            binary: absolute(binary)?,
            server: format!("unix://{}", daemon.socket.display()),
            scratch: daemon.dir.clone(),
        })
    }

    /// The program's path.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The value of `--server`.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Runs a command.
    ///
    /// # Errors
    /// When the program can't be run or does not end in time; a refusal is an answer.
    pub fn run(&self, arguments: &[&str]) -> Result<Answer> {
        let mut command = Command::new(&self.binary);
        command.args(["--server", &self.server]).args(arguments);
        answer(command, |command| {
            command.spawn().context("starting wardctl")
        })
    }

    /// Runs a command that must succeed, and reads what it prints as one JSON document.
    ///
    /// # Errors
    /// When it fails, or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let answer = self.run(&[&["-o", "json"], arguments].concat())?;
        let text = answer
            .ok()
            .with_context(|| format!("wardctl {}", arguments.join(" ")))?;
        serde_json::from_str(&text).with_context(|| format!("wardctl printed {text:?}"))
    }

    /// The events that the daemon keeps.
    ///
    /// # Errors
    /// When they can't be fetched.
    pub fn events(&self) -> Result<Vec<Value>> {
        let text = self
            .run(&["-o", "json", "events"])?
            .ok()
            .context("wardctl events")?;
        text.lines()
            .map(|line| Ok(serde_json::from_str(line)?))
            .collect()
    }

    /// Applies a document given as text.
    ///
    /// # Errors
    /// When the program can't be run; a refusal is an answer.
    pub fn apply(&self, document: &str) -> Result<Answer> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let file = self.scratch.join(format!("document-{number}.yaml"));
        fs::write(&file, document).context("writing the document")?;
        self.run(&["apply", "-f", &file.to_string_lossy()])
    }
}

/// How a program ended and what it printed.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// Standard output, if the program succeeded.
    ///
    /// # Errors
    /// The exit code and standard error, if it did not.
    pub fn ok(self) -> Result<String> {
        ensure!(
            self.code == 0,
            "exit code {}: {}",
            self.code,
            self.stderr.trim_end()
        );
        Ok(self.stdout)
    }
}

fn answer(
    mut command: Command,
    start: impl FnOnce(&mut Command) -> Result<Child>,
) -> Result<Answer> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = start(&mut command)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let out = scope.spawn(|| text(out));
        let err = scope.spawn(|| text(err));
        let mut ended = None;
        eventually(COMMAND, || {
            ended = child.try_wait().ok().flatten();
            ended.is_some()
        });
        if ended.is_none() {
            // The reader threads wait for the pipes to close.
            child.kill().context("ending a program that hangs")?;
        }
        let status = child.wait().context("waiting for a program")?;
        let stdout = out.join().unwrap_or_default();
        let stderr = err.join().unwrap_or_default();
        ensure!(
            ended.is_some(),
            "{command:?} did not end in time: {stdout}{stderr}"
        );
        let code = status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal));
        Ok(Answer {
            code: code.unwrap_or(-1),
            stdout,
            stderr,
        })
    })
}

fn absolute(program: &Path) -> Result<PathBuf> {
    program
        .canonicalize()
        .with_context(|| format!("looking for {}", program.display()))
}

fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

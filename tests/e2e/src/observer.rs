//! The observer under test.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use crate::{
    hooks, http,
    metrics::Metrics,
    net::free_address,
    process::Process,
    request_log::{RequestLine, RequestLog},
    require,
    scratch::Scratch,
    wait::{self, SOON},
};

/// The observer may take this long from SIGTERM to its end.
pub const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A running observer. Dropping it ends it, and demands that it ends in order.
#[derive(Debug)]
pub struct Observer {
    process: Option<Process>,
    listen: SocketAddr,
    log: RequestLog,
    scratch: Scratch,
    attached_after: Duration,
}

impl Observer {
    /// Observes these ports of the test, and waits until it is attached.
    #[must_use]
    pub fn start(ports: &[u16]) -> Self {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        Self::with(&["--ports", &ports.join(",")])
    }

    /// Runs it with these arguments (they must name a scope of the test's own) and a request log, and waits until it
    /// is attached.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn with(arguments: &[&str]) -> Self {
        Self::tuned(arguments, &[])
    }

    /// As [`Self::with`], with these settings in its environment besides.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn tuned(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::at(free_address(), arguments, settings)
    }

    /// As [`Self::tuned`], with its HTTP interface at this address.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn at(listen: SocketAddr, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new();
        let log = scratch.file("requests.jsonl");
        let mut command = command();
        command.envs(settings.iter().copied()).arg("run").args(arguments);
        command.args(["--log-format", "json", "--request-log-chunks", "--request-log"]).arg(log);
        Self::launch(command, listen, scratch)
    }

    /// Runs it with these arguments (they must name a scope of the test's own) and nothing more, and waits until it is
    /// attached.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn bare(arguments: &[&str]) -> Self {
        let mut command = command();
        command.arg("run").args(arguments);
        Self::launch(command, free_address(), Scratch::new())
    }

    /// Runs it without any argument: all that it knows, it has from these settings (they must name a scope of the
    /// test's own) and from two more, its address and its request log. Waits until it is attached.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn by_environment(settings: &[(&str, &str)]) -> Self {
        let (scratch, listen) = (Scratch::new(), free_address());
        let mut command = command();
        command.arg("run").envs(settings.iter().copied());
        command.env("OBSERVER_LISTEN", listen.to_string());
        command.env("OBSERVER_REQUEST_LOG_PATH", scratch.file("requests.jsonl"));
        Self::spawn(command, listen, scratch)
    }

    /// Observes these ports of the test and records to `file`, with these further arguments and a request log, and waits
    /// until it is attached.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn recording(file: &Path, ports: &[u16], arguments: &[&str]) -> Self {
        let scratch = Scratch::new();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut command = command();
        command.arg("record").arg(file).args(["--ports", &ports.join(",")]).args(arguments);
        command.args(["--request-log-chunks", "--request-log"]).arg(scratch.file("requests.jsonl"));
        Self::launch(command, free_address(), scratch)
    }

    fn launch(mut command: Command, listen: SocketAddr, scratch: Scratch) -> Self {
        command.args(["--listen", &listen.to_string()]);
        Self::spawn(command, listen, scratch)
    }

    fn spawn(command: Command, listen: SocketAddr, scratch: Scratch) -> Self {
        let log = RequestLog(scratch.file("requests.jsonl"));
        let begun = Instant::now();
        let mut process = Process::spawn("observer", command);
        wait::until("the observer to be ready", SOON, || {
            if let Some(status) = process.exited() {
                thread::sleep(Duration::from_millis(100));
                panic!("the observer ended with {status}: {:#?}", process.output());
            }
            http::get(listen, "/readyz").ok().filter(|response| response.status == 200)
        });
        Self { process: Some(process), listen, log, scratch, attached_after: begun.elapsed() }
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it has not been stopped")
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it has been stopped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it has not been stopped").pid()
    }

    /// Where its HTTP interface listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Time from its start to its readiness.
    #[must_use]
    pub const fn attached_after(&self) -> Duration {
        self.attached_after
    }

    /// Its own files, for more of them.
    #[must_use]
    pub const fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Its request log.
    #[must_use]
    pub const fn log(&self) -> &RequestLog {
        &self.log
    }

    /// What it printed so far.
    ///
    /// # Panics
    /// If it has been stopped.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.process.as_ref().expect("it has not been stopped").output()
    }

    /// Demands that it still runs.
    ///
    /// # Panics
    /// If it does not, or does not answer.
    pub fn expect_alive(&mut self) {
        assert!(self.process().exited().is_none(), "the observer ended by itself");
        let health = http::get(self.listen, "/healthz").expect("the observer answers");
        assert_eq!(health.status, 200);
    }

    /// Scrapes it.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let response = http::get(self.listen, "/metrics").expect("the observer answers");
        assert_eq!(response.status, 200);
        Metrics::parse(&response.text())
    }

    /// Scrapes it and keeps only what it says of this port: nothing else is read, and thus printed, of an observer
    /// whose scope is not the test's alone.
    ///
    /// # Panics
    /// If it does not answer.
    #[must_use]
    pub fn metrics_of_port(&self, port: u16) -> Metrics {
        let text = http::get(self.listen, "/metrics").expect("the observer answers").text();
        let label = format!("server_port=\"{port}\"");
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains(&label));
        Metrics::parse(&lines.collect::<Vec<_>>().join("\n"))
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: i32) {
        self.process().signal(signal);
    }

    /// All lines of its request log so far.
    #[must_use]
    pub fn lines(&self) -> Vec<RequestLine> {
        self.log.read()
    }

    /// Its lines about the request with this `x-request-id`, so far.
    #[must_use]
    pub fn lines_of(&self, id: &str) -> Vec<RequestLine> {
        self.lines().into_iter().filter(|line| line.request_id.as_deref() == Some(id)).collect()
    }

    /// Waits for its line about the request with this `x-request-id`.
    ///
    /// # Panics
    /// If none comes, or more than one does.
    pub fn line(&self, id: &str) -> RequestLine {
        let what = format!("a line about request {id}");
        let mut lines = wait::until(&what, SOON, || Some(self.lines_of(id)).filter(|lines| !lines.is_empty()));
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines.remove(0)
    }

    /// Waits until the log holds at least `count` lines, gives more of them a moment to come, and returns all.
    ///
    /// # Panics
    /// If fewer come.
    #[must_use]
    pub fn lines_when(&self, count: usize, limit: Duration) -> Vec<RequestLine> {
        let mut seen = 0;
        let enough = wait::try_until(limit, || {
            seen = self.lines().len();
            (seen >= count).then_some(())
        });
        assert!(enough.is_some(), "only {seen} of {count} lines within {limit:?}");
        self.settle();
        self.lines()
    }

    /// Gives it time to finish whatever it has begun to say.
    pub fn settle(&self) {
        thread::sleep(Duration::from_millis(300));
    }

    /// Ends it with `signal`, demands an orderly end in time, and returns its last words.
    ///
    /// # Panics
    /// If it ends otherwise.
    pub fn stop(&mut self, signal: i32) -> Vec<String> {
        let Some(mut process) = self.process.take() else { return Vec::new() };
        let status = process.stop(signal, STOP_LIMIT);
        assert!(status.success(), "the observer ended with {status}: {:#?}", process.output());
        process.output()
    }

    /// Kills it: SIGKILL, which it cannot know of.
    ///
    /// # Panics
    /// If it had ended before, or does not end soon.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it has not been stopped");
        assert!(process.exited().is_none(), "the observer ended by itself: {:#?}", process.output());
        process.stop(libc::SIGKILL, SOON);
    }

    /// Waits for it to end by itself, and demands an orderly end.
    ///
    /// # Panics
    /// If it does not end in time, or not in order.
    pub fn wait(&mut self, limit: Duration) -> Vec<String> {
        let Some(mut process) = self.process.take() else { return Vec::new() };
        let status = process.wait(limit);
        assert!(status.success(), "the observer ended with {status}: {:#?}", process.output());
        process.output()
    }
}

impl Observer {
    /// Waits for it to end by itself, and demands that it says so with an error.
    ///
    /// # Panics
    /// If it does not end in time, or as if all were well.
    pub fn fails(&mut self, limit: Duration) -> Vec<String> {
        let Some(mut process) = self.process.take() else { return Vec::new() };
        let status = process.wait(limit);
        assert_eq!(status.code(), Some(1), "the observer ended with {status}: {:#?}", process.output());
        process.settled_output()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // A failing test has said enough; its observer ends with the process's owner.
        if !thread::panicking() {
            self.stop(libc::SIGTERM);
        }
    }
}

/// Runs a command of the observer that is to end by itself: how it ended, and what it said.
///
/// # Panics
/// If it does not end soon.
#[must_use]
pub fn run(command: Command) -> (ExitStatus, Vec<String>) {
    let mut process = Process::spawn("observer", command);
    let status = process.wait(SOON);
    // The last lines may still be on their way.
    thread::sleep(Duration::from_millis(100));
    (status, process.output())
}

/// A command of a copy of the observer as a user without any privilege. Needs `setpriv`.
///
/// # Panics
/// If there is no such copy, or no `setpriv`.
#[must_use]
pub fn command_of_nobody(scratch: &Scratch) -> Command {
    // Where anybody may run it.
    let copy = scratch.file("observer");
    fs::copy(require::observer(), &copy).expect("a copy");
    for path in [scratch.path(), &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours to change");
    }
    let mut command = Command::new(require::tool("setpriv").expect("required"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&copy).current_dir("/");
    command
}

/// The observer's command, without any setting from this process's environment.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(require::observer());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OBSERVER_") {
            command.env_remove(name);
        }
    }
    if let Some(hook) = hooks::named() {
        command.env("OBSERVER_KERNEL_SOCKET_HOOK", hook);
    }
    command
}

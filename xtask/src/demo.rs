//! `cargo xtask demo`: a sample server under load, watched by the observer, live.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    build, paths,
    process::{Service, end_with_this, is_root, note, step, terminate},
    setup,
};

/// How to show it.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// End by itself after this time; default: with Ctrl-C, or q.
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Plain lines instead of a live screen; the default where stdout is no terminal.
    #[arg(long)]
    plain: bool,
}

/// Where the observer listens, if it is free.
const METRICS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9478));
/// The observer has attached by then, or will not.
const READY: Duration = Duration::from_secs(30);
/// Longest demo: the load is never without a bound.
const LONGEST: Duration = Duration::from_secs(12 * 3600);

/// The pace of the sample server: errors and variance, so that there is something to see.
const SERVER: [&str; 12] = [
    "--ttft",
    "250ms",
    "--ttft-jitter",
    "200ms",
    "--token-interval",
    "15ms",
    "--interval-jitter",
    "8ms",
    "--error-rate",
    "0.02",
    "--stream-error-rate",
    "0.02",
];

/// Two kinds of clients, two models: name, requests per second, tokens of an answer, bytes of a prompt.
const CLIENTS: [(&str, &str, &str, &str); 2] =
    [("sample-small", "12", "48", "600"), ("sample-large", "3", "200", "12000")];

/// SIGINT or SIGTERM has come.
static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    STOPPED.store(true, Ordering::Relaxed);
}

/// From now on both signals only set [`STOPPED`]: the demo ends in order. Programs started later have them as usual.
fn catch_signals() {
    let handler: extern "C" fn(libc::c_int) = on_signal;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is safe in a signal handler.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    if !is_root() {
        bail!("the observer loads programs into the kernel, which takes root: sudo -E cargo xtask demo");
    }
    setup::build_tools()?;
    build::release(&["observer", "sample-llm"])?;
    catch_signals();
    let folder = paths::target().join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;

    // Dropped in reverse order, also on errors: clients, observer, server.
    step("start the sample server");
    let (mut server, address) = start_server()?;
    note(&format!("http://{address} (pid {})", server.pid()));
    step("start the observer");
    let metrics = free_metrics_address()?;
    let mut observer = start_observer(&folder, address, metrics)?;
    wait_ready(&mut observer, metrics, &folder.join("observer.log"))?;
    note(&format!("http://{metrics}/metrics (pid {})", observer.pid()));
    step("start the clients");
    let mut clients = Vec::new();
    for client in CLIENTS {
        clients.push(start_clients(&folder, address, client, args.duration.unwrap_or(LONGEST))?);
    }
    let mut top = start_top(metrics, args)?;
    let result = watch(&mut top, &mut observer, args.duration);
    top.stop();

    step("stop");
    for client in &mut clients {
        client.stop();
    }
    let left = observer.stop();
    server.stop();
    report(&folder, metrics, left);
    result
}

fn start_server() -> Result<(Service, SocketAddr)> {
    let mut command = Command::new(paths::release("sample-llm"));
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(SERVER).stdout(Stdio::piped());
    let mut server = Service::start("the sample server", &mut command)?;
    let mut line = String::new();
    if let Some(stdout) = server.stdout() {
        BufReader::new(stdout).read_line(&mut line).context("read where the sample server listens")?;
    }
    let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
    Ok((server, address.with_context(|| format!("the sample server does not say where it listens: {line:?}"))?))
}

fn free_metrics_address() -> Result<SocketAddr> {
    if TcpListener::bind(METRICS).is_ok() {
        return Ok(METRICS);
    }
    let other = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let other = other.context("find a free port on 127.0.0.1")?;
    note(&format!("{METRICS} is taken: {other} instead"));
    Ok(other)
}

fn start_observer(folder: &Path, server: SocketAddr, metrics: SocketAddr) -> Result<Service> {
    let log = create(&folder.join("observer.log"))?;
    let errors = log.try_clone().context("share the observer's log")?;
    let mut command = Command::new(paths::release("observer"));
    command.args(["run", "--ports", &server.port().to_string(), "--listen", &metrics.to_string(), "--request-log"]);
    command.arg(folder.join("requests.jsonl")).stdout(log).stderr(errors);
    Service::start("the observer", &mut command)
}

fn start_clients(
    folder: &Path,
    server: SocketAddr,
    (model, rate, tokens, prompt): (&'static str, &str, &str, &str),
    duration: Duration,
) -> Result<Service> {
    let mut command = Command::new(paths::release("sample-llm"));
    let duration = humantime::format_duration(duration).to_string().replace(' ', "");
    let url = format!("http://{server}");
    command.args(["load", "--url", &url, "--concurrency", "64", "--for", &duration, "--cancel-rate", "0.05"]);
    command.args([
        "--rate",
        rate,
        "--tokens",
        tokens,
        "--prompt-bytes",
        prompt,
        "--model",
        model,
        "--id-prefix",
        model,
    ]);
    command.stdout(create(&summary(folder, model))?);
    Service::start("the clients", &mut command)
}

fn summary(folder: &Path, model: &str) -> PathBuf {
    folder.join(format!("load-{model}.json"))
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("create {}", path.display()))
}

fn start_top(metrics: SocketAddr, args: &DemoArgs) -> Result<Foreground> {
    let mut command = Command::new(paths::release("observer"));
    command.args(["top", "--url", &format!("http://{metrics}")]);
    if args.plain || !std::io::stdout().is_terminal() {
        command.arg("--plain");
    }
    if let Some(duration) = args.duration {
        command.args(["--for", &humantime::format_duration(duration).to_string().replace(' ', "")]);
    }
    end_with_this(&mut command);
    let child = command.spawn().context("start `observer top`")?;
    Ok(Foreground(child))
}

/// A program that has the terminal: Ctrl-C reaches it as well.
struct Foreground(std::process::Child);

impl Foreground {
    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    fn stop(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(5);
        if self.ended().is_none() {
            // It restores the terminal before it ends.
            terminate(&self.0);
        }
        while self.ended().is_none() {
            if Instant::now() > deadline {
                drop(self.0.kill());
                return self.0.wait().ok();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.ended()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks `/readyz` until it answers 200.
fn wait_ready(observer: &mut Service, metrics: SocketAddr, log: &Path) -> Result<()> {
    let deadline = Instant::now() + READY;
    loop {
        if let Some(status) = observer.ended() {
            bail!("the observer ended ({status}). Its log, {}, ends with:\n{}", log.display(), tail(log));
        }
        if is_ready(metrics) {
            return Ok(());
        }
        if STOPPED.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if Instant::now() > deadline {
            let waited = READY.as_secs();
            bail!("the observer is not ready after {waited} s. Its log, {}, ends with:\n{}", log.display(), tail(log));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn is_ready(metrics: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&metrics, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Until the screen is left, the time is over, a signal comes, or the observer dies.
fn watch(top: &mut Foreground, observer: &mut Service, duration: Option<Duration>) -> Result<()> {
    // `observer top` ends by itself; a little later it is ended.
    let end = duration.map(|duration| Instant::now() + duration + Duration::from_secs(3));
    loop {
        if let Some(status) = top.ended() {
            let stopped = STOPPED.load(Ordering::Relaxed);
            if !status.success() && !stopped {
                bail!("`observer top` failed ({status})");
            }
            return Ok(());
        }
        if STOPPED.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() > end) {
            return Ok(());
        }
        if let Some(status) = observer.ended() {
            bail!("the observer ended before the demo did ({status}); see target/demo/observer.log");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn report(folder: &Path, metrics: SocketAddr, observer: Option<ExitStatus>) {
    note(&format!("metrics were at   http://{metrics}/metrics"));
    note(&format!("observer's log    {}", folder.join("observer.log").display()));
    note(&format!("log of requests   {}", folder.join("requests.jsonl").display()));
    for (model, ..) in CLIENTS {
        let line = fs::read_to_string(summary(folder, model)).unwrap_or_default();
        note(&format!("clients of {model} saw {}", line.trim()));
    }
    if let Some(status) = observer.filter(|status| !status.success()) {
        note(&format!("the observer ended with {status}"));
    }
}

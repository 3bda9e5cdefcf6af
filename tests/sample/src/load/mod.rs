//! The load generator: a bounded number of requests, for a bounded time, to this host only.

mod answer;
mod client;
mod histogram;
mod http;
mod ledger;
mod plan;
mod words;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{ArgAction, Args, ValueEnum};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

pub use self::ledger::{Line, Outcome, Summary};
use self::{
    client::{Connection, Target},
    ledger::{Ledger, Totals},
    plan::Planner,
};
use crate::{
    api::Api,
    serve::{positive, share},
};

/// Requests under way get this long once the time is over or a signal came; then they are cancelled.
const GRACE: Duration = Duration::from_secs(2);
/// Least time from one failed connection of a worker to its next: a server that is gone is not hammered.
const BACKOFF: Duration = Duration::from_millis(20);

/// Whether to ask for streamed answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Streaming {
    /// All.
    True,
    /// None.
    False,
    /// Every other one, by chance.
    Mixed,
}

/// Which APIs to ask: one, or several by chance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route(Vec<Api>);

/// The name of an API, or of several.
fn route(text: &str) -> Result<Route, String> {
    match text {
        "mixed" => Ok(Route(vec![Api::Chat, Api::Completions])),
        "all" => Ok(Route(Api::ALL.to_vec())),
        one => Api::from_str(one, false).map(|api| Route(vec![api])).map_err(|_| {
            let names = Api::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
            format!("must be mixed (chat and completions), all, or one of {}", names.join(", "))
        }),
    }
}

/// What to send.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("bound").required(true).multiple(true))]
pub struct LoadArgs {
    /// Server, e.g. http://127.0.0.1:8000; must be on this host's loopback.
    #[arg(long, required_unless_present = "unix")]
    pub url: Option<String>,
    /// Connect to this AF_UNIX socket instead.
    #[arg(long, conflicts_with = "url")]
    pub unix: Option<PathBuf>,
    /// Requests under way at any time.
    #[arg(long, default_value_t = 8)]
    pub concurrency: usize,
    /// Stop after this many requests.
    #[arg(long, group = "bound")]
    pub requests: Option<u64>,
    /// Stop after this time.
    #[arg(long = "for", group = "bound", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Requests per second in all, evenly spaced, as far as the concurrency allows; default: as fast as answers come.
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
    /// Ask for streamed answers.
    #[arg(long, value_enum, default_value_t = Streaming::True)]
    pub stream: Streaming,
    /// Which API: chat, completions, responses, messages, …; mixed: chat and completions; all.
    #[arg(long, default_value = "chat", value_parser = route)]
    pub route: Route,
    /// Name of the model to ask for.
    #[arg(long, default_value = "sample-1")]
    pub model: String,
    /// Length of the prompt.
    #[arg(long, default_value_t = 256)]
    pub prompt_bytes: usize,
    /// `max_tokens` of each request; default: none.
    #[arg(long)]
    pub tokens: Option<u32>,
    /// Ask for usage at the end of streams.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub usage: bool,
    /// JSON object to send as the field `sample`, which tells `sample-llm serve` how to behave.
    #[arg(long, value_parser = json_object)]
    pub sample: Option<serde_json::Value>,
    /// Share of requests whose client leaves early.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub cancel_rate: f64,
    /// Those that leave do so after this many token events; default: by chance.
    #[arg(long)]
    pub cancel_after: Option<u64>,
    /// Use a connection again.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub keep_alive: bool,
    /// Longest that a request may take; then it is cancelled.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Of all that is left to chance: the n-th request is the same for the same seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Request ids (`x-request-id`) are this and the request's number.
    #[arg(long, default_value = "load")]
    pub id_prefix: String,
    /// Write one JSON line per request to this file.
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Worker threads; default: one per core.
    #[arg(long)]
    pub workers: Option<usize>,
}

fn json_object(text: &str) -> Result<serde_json::Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(_) => Err("must be a JSON object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// How far the run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// New requests are sent.
    Running,
    /// No new ones; those under way go on.
    Draining,
    /// Those under way are cancelled.
    Over,
}

struct Load {
    args: LoadArgs,
    target: Target,
    planner: Planner,
    ledger: Ledger,
    tickets: AtomicU64,
    start: Instant,
}

/// Sends the load and prints a [`Summary`] as one JSON line on stdout.
///
/// # Errors
/// The target is not on this host, the log cannot be written, or not one connection succeeded.
pub fn run(args: LoadArgs) -> Result<()> {
    if args.concurrency == 0 {
        bail!("--concurrency must be at least 1");
    }
    let target = Target::of(args.url.as_deref(), args.unix.as_deref())?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = args.workers {
        builder.worker_threads(workers.max(1));
    }
    let runtime = builder.enable_all().build().context("start the runtime")?;
    let summary = runtime.block_on(drive(args, target))?;
    print(&serde_json::to_string(&summary)?)?;
    if summary.requests > 0 && summary.failed == summary.requests {
        bail!("no connection succeeded");
    }
    Ok(())
}

fn print(line: &str) -> Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

async fn drive(args: LoadArgs, target: Target) -> Result<Summary> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let start = Instant::now();
    let (phase, watch) = watch::channel(Phase::Running);
    let load = Arc::new(Load {
        planner: Planner::new(&args),
        ledger: Ledger::create(args.log.as_deref())?,
        tickets: AtomicU64::new(0),
        target,
        start,
        args,
    });
    let mut workers = JoinSet::new();
    for _ in 0..load.args.concurrency {
        workers.spawn(worker(Arc::clone(&load), watch.clone()));
    }
    // A run bounded by its number of requests only ends with them; each is bounded by the timeout.
    let end = load.args.duration.map(|duration| start + duration);
    let mut total = Totals::default();
    let mut over: Option<Instant> = None;
    loop {
        let deadline = over.or(end);
        tokio::select! {
            done = workers.join_next() => match done {
                None => break,
                Some(result) => total.merge(&result.context("a worker failed")?),
            },
            () = sleep_until(deadline.unwrap_or(start)), if deadline.is_some() && *phase.borrow() != Phase::Over => {
                if over.is_some() {
                    phase.send_replace(Phase::Over);
                } else {
                    phase.send_replace(Phase::Draining);
                    over = Some(Instant::now() + load.args.timeout.min(GRACE));
                }
            }
            _ = terminate.recv() => stop(&phase, &mut over),
            _ = interrupt.recv() => stop(&phase, &mut over),
        }
    }
    load.ledger.finish()?;
    Ok(total.summary(start.elapsed()))
}

/// The first signal drains, the second cancels.
fn stop(phase: &watch::Sender<Phase>, over: &mut Option<Instant>) {
    if over.is_some() {
        phase.send_replace(Phase::Over);
    } else {
        phase.send_replace(Phase::Draining);
        *over = Some(Instant::now() + GRACE);
    }
}

/// Sends one request after the other until the phase changes or the tickets are gone.
async fn worker(load: Arc<Load>, mut phase: watch::Receiver<Phase>) -> Totals {
    let mut totals = Totals::default();
    let mut connection: Option<Connection> = None;
    loop {
        let ticket = load.tickets.fetch_add(1, Ordering::Relaxed);
        if load.args.requests.is_some_and(|most| ticket >= most) {
            return totals;
        }
        if let Some(rate) = load.args.rate {
            let due = load.start + Duration::from_secs_f64(ticket as f64 / rate);
            tokio::select! {
                () = sleep_until(due) => {}
                _ = phase.wait_for(|phase| *phase != Phase::Running) => return totals,
            }
        }
        if *phase.borrow() != Phase::Running {
            return totals;
        }
        let request = load.planner.request(&load.args, &load.target, ticket);
        let exchange = client::exchange(&load.target, &mut connection, &request, &mut phase, load.args.timeout).await;
        if !load.args.keep_alive {
            connection = None;
        }
        totals.count(&exchange);
        load.ledger.write(&request, &exchange);
        if exchange.outcome == Outcome::Failed {
            tokio::time::sleep(BACKOFF).await;
        }
    }
}

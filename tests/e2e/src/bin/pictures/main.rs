//! Pictures of the dashboards for the documentation: what a real Prometheus answers to the panels' own queries while the
//! observer measures sample servers under a load that varies, drawn as SVG.
//!
//! - `host`: servers, clients, the observer and Prometheus
//! - `answers`: the dashboards' queries, and what they yield
//! - `page`: panels in their places; `heatmap`, `lines` and `stat`: what each kind of panel shows
//! - `buckets`, `colour`, `axis`, `unit`, `svg`: cumulative buckets, colours, axes, numbers, text
//!
//! Nothing is drawn that no query yields. Answers are kept, so that a change of the drawing needs no new load.

mod answers;
mod axis;
mod buckets;
mod colour;
mod heatmap;
mod host;
mod lines;
mod page;
mod stat;
mod svg;
mod unit;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use observer_e2e::require;

use crate::{
    answers::{Answers, Span},
    host::Host,
    page::Picture,
};

/// Draws dashboards. Needs root, Prometheus, Python 3, loop devices, the observer and the sample server.
#[derive(Parser)]
#[command(name = "pictures")]
struct Args {
    /// Draw again what the last run was answered.
    #[arg(long)]
    redraw: bool,
}

const PICTURES: [Picture; 5] = [
    Picture { file: "llm-latency", uid: "observer-llm-latency", rows: &["Now", "Time to first token"] },
    Picture { file: "llm-tokens-requests", uid: "observer-llm-latency", rows: &["Tokens", "Requests"] },
    Picture {
        file: "llm-phases-clients",
        uid: "observer-llm-latency",
        rows: &["Where the time goes", "Clients", "Objectives"],
    },
    Picture {
        file: "host-cpu-io",
        uid: "observer-host",
        rows: &["Now", "CPU and memory", "Reads and writes of processes"],
    },
    Picture { file: "host-block-tcp", uid: "observer-host", rows: &["Block devices", "TCP"] },
];

/// Seconds from one column to the next.
const STEP: u64 = 3;
/// A picture is text that is reviewed and loaded like any other.
const BYTES_MAX: usize = 150_000;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn kept() -> PathBuf {
    require::workspace().join("target/pictures.json")
}

fn run(args: &Args) -> Result<()> {
    let path = kept();
    let answers = if args.redraw {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?
    } else {
        let answers = ask()?;
        fs::write(&path, serde_json::to_string(&answers)?).with_context(|| format!("write {}", path.display()))?;
        answers
    };
    let folder = require::workspace().join("docs/pictures");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for picture in &PICTURES {
        let text = picture.draw(&answers)?;
        if text.len() > BYTES_MAX {
            bail!("{} has {} bytes, more than {BYTES_MAX}", picture.file, text.len());
        }
        let path = folder.join(format!("{}.svg", picture.file));
        println!("{} ({} KB)", path.display(), text.len() / 1000);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn ask() -> Result<Answers> {
    for need in ["kernel", "sample", "prometheus", "python", "loop_device"] {
        if let Some(reason) = require::missing(need) {
            bail!("{reason}");
        }
    }
    let mut host = Host::start();
    host.load();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("after 1970")?.as_secs();
    // As Grafana does: times are multiples of the step.
    let end = (now - host::SCRAPE) / STEP * STEP;
    let span = Span { start: end - host::SHOWN, end, step: STEP, scrape: host::SCRAPE };
    let mut uids: Vec<_> = PICTURES.iter().map(|picture| picture.uid).collect();
    uids.dedup();
    Answers::ask(&host.prometheus, span, &uids)
}

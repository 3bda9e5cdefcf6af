//! A fleet in front of a real Prometheus, from what one real observer says: what scraping 10, 30 and 100 nodes takes,
//! and how long the heaviest panels take over an hour of 1,000, with and without the recording rules. Prints tables;
//! `docs/fleet.md` has them. Needs up to 4 GiB below `target` and 6 GiB of memory, for about ten minutes.

use std::{env, fs, path::Path, process::ExitCode, sync::Arc, time::Duration};

use observer_e2e::{
    fleet::{
        history::{History, PANELS, STEP},
        live,
        nodes::Nodes,
        recording::{MODELS, Recording},
    },
    require,
};

/// Sizes of the fleet that is scraped.
const LIVE: [usize; 3] = [10, 30, 100];
const INTERVAL: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(30);

const NODES: usize = 1000;
const MINUTES: u64 = 60;
/// As many minutes as text of 1 GiB holds.
const SLICE: u64 = 15;
/// Disk that it may need, in bytes.
const DISK: u64 = 4 << 30;

/// Nodes, workloads and models of the table of budgets.
const BUDGETS: [(usize, usize, usize); 6] = [(1, 1, 1), (1, 2, 2), (10, 2, 2), (100, 2, 2), (100, 8, 4), (1000, 2, 2)];

fn budget(recording: &Recording) {
    let budget = recording.budget();
    println!("\nSeries of a node: {} + workloads x ({} + models x {})\n", budget.node, budget.workload, budget.model);
    println!("| nodes | workloads each | models each | series | samples/s at 15 s |\n|---|---|---|---|---|");
    for (nodes, workloads, models) in BUDGETS {
        let series = budget.series(nodes, workloads, models);
        println!("| {nodes} | {workloads} | {models} | {series} | {:.0} |", series as f64 / 15.0);
    }
}

fn scrape(recording: &Arc<Recording>) {
    let nodes = Nodes::serve(Arc::clone(recording));
    println!("\n| nodes | series | samples/s | CPU of Prometheus | CPU per million samples | memory | per series |");
    println!("|---|---|---|---|---|---|---|");
    for count in LIVE {
        let live = live::run(&nodes, count, INTERVAL, MEASURED);
        println!(
            "| {count} | {:.0} | {:.0} | {:.1} % of a core | {:.1} s | {} MiB | {:.1} KiB |",
            live.series,
            live.rate,
            live.cpu * 100.0,
            live.cpu / live.rate * 1e6,
            live.resident_kib / 1024,
            live.resident_kib as f64 / live.series
        );
    }
}

fn query(recording: &Recording, folder: &Path, rules: &Path) -> bool {
    let history = History::make(recording, NODES, MINUTES, SLICE, folder);
    println!(
        "\n{NODES} nodes, {MINUTES} minutes at {STEP} s: {} series, {} samples, {} MiB in blocks, made in {:.0} s",
        history.series,
        history.samples,
        history.bytes() >> 20,
        history.took.as_secs_f64()
    );
    let evaluation = history.evaluate(5);
    let (took, recorded) = history.record(rules);
    println!(
        "recording rules: {recorded} series; an evaluation takes {:.1} s; those of {MINUTES} minutes at once took {:.0} s",
        evaluation.as_secs_f64(),
        took.as_secs_f64()
    );
    println!("\n| panel, an hour at {STEP} s | over all nodes' series | over recorded series | times faster |");
    println!("|---|---|---|---|");
    let (mut peak, mut same) = (0, true);
    for panel in PANELS {
        let (timing, resident) = history.time(panel, 3);
        peak = peak.max(resident);
        same &= timing.difference < 1e-6;
        let [raw, recorded] = [timing.raw, timing.recorded].map(|took| took.as_secs_f64() * 1e3);
        println!("| {} | {raw:.0} ms | {recorded:.1} ms | {:.0} |", panel.name, raw / recorded);
    }
    println!("\nPrometheus' memory at most: {} MiB", peak >> 10);
    if !same {
        println!("The two ways do not say the same.");
    }
    same
}

/// Bytes that are free where `folder` lies.
fn free(folder: &Path) -> u64 {
    let path = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes()).expect("no zero in a path");
    // SAFETY: zeroes are a valid statvfs; the path ends with a zero, and both outlive the call.
    unsafe {
        let mut about: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &raw mut about) != 0 {
            return 0;
        }
        about.f_bavail * about.f_frsize
    }
}

fn main() -> ExitCode {
    let what = env::args().nth(1).unwrap_or_default();
    let chosen = |name: &str| name.contains(&what);
    for need in ["kernel", "sample", "prometheus", "promtool"] {
        if let Some(reason) = require::missing(need) {
            println!("cannot run: {reason}");
            return ExitCode::FAILURE;
        }
    }
    let root = require::workspace();
    let folder = root.join("target/fleet");
    drop(fs::remove_dir_all(&folder));
    if let Err(error) = fs::create_dir_all(&folder) {
        println!("cannot run: create {}: {error}", folder.display());
        return ExitCode::FAILURE;
    }
    if free(&folder) < DISK {
        println!("cannot run: {} has less than {} GiB free", folder.display(), DISK >> 30);
        return ExitCode::FAILURE;
    }
    let recording = Arc::new(Recording::make(Duration::from_secs(20)));
    println!(
        "recorded: {} series of {} workloads with {} models each",
        recording.samples().count(),
        recording.workloads().len(),
        MODELS.len()
    );
    budget(&recording);
    if chosen("scrape") {
        scrape(&recording);
    }
    let same = !chosen("query") || query(&recording, &folder, &root.join("deploy/prometheus/rules/fleet.rules.yml"));
    drop(fs::remove_dir_all(&folder));
    if same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

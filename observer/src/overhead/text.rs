//! The report, as it is printed.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use super::{HookReport, ProgramReport, Report};

/// Prints the report; JSON if asked to.
///
/// # Errors
/// Standard output's.
pub fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        return writeln!(out);
    }
    write!(out, "{}", text(report))
}

/// In percent of one core: as many digits as tell something.
fn percent(ratio: f64) -> String {
    format!("{:.4}", ratio * 100.0)
}

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report);
    text
}

fn write(text: &mut String, report: &Report) -> std::fmt::Result {
    let process = report.observer.pid.map_or_else(|| "an observer".to_owned(), |pid| format!("observer, pid {pid}"));
    let address = report.observer.listens.first().map(|address| format!(" at {address}")).unwrap_or_default();
    let afterwards = if report.statistics_stay_on {
        "they were on before, and stay on (kernel.bpf_stats_enabled)"
    } else {
        "they are off again"
    };
    writeln!(text, "{process}{address}: {:.1} s with BPF run statistics; {afterwards}\n", report.seconds)?;
    row(text, ["PROBE", "HOOK", "RUNS", "RUNS/S", "NS/RUN", "+HOOK NS", "% OF A CORE", "MISSES"])?;
    let (running, idle): (Vec<_>, Vec<_>) = report.programs.iter().partition(|program| counts(program));
    for program in running {
        program_row(text, program, report.seconds)?;
    }
    let runs: u64 = report.programs.iter().map(|program| program.runs).sum();
    let misses: u64 = report.programs.iter().map(|program| program.recursion_misses).sum();
    let (runs, misses, all) = (runs.to_string(), misses.to_string(), percent(report.programs_core_ratio));
    row(text, ["all programs", "", &runs, "", "", "", &all, &misses])?;
    if !idle.is_empty() {
        let names: Vec<_> = idle.iter().map(|program| program.probe).collect();
        writeln!(text, "\nloaded, and not hooked in now: {}", names.join(", "))?;
    }
    let process = report.process;
    writeln!(
        text,
        "\nprocess: {} % of a core ({} % user, {} % system)\nall:     {} % of a core\n",
        percent(process.core_ratio),
        percent(process.user_core_ratio),
        percent(process.system_core_ratio),
        percent(report.core_ratio)
    )?;
    writeln!(text, "What a hook costs besides its program, each run (the column +HOOK NS):")?;
    for HookReport { kind, nanoseconds, source, .. } in &report.hooks {
        writeln!(text, "  {kind:<15} {nanoseconds:>5.0} ns, {source}")?;
    }
    match report.empty_run_nanoseconds {
        Some(nanoseconds) => writeln!(
            text,
            "NS/RUN is the kernel's own count, its taking included: {nanoseconds:.0} ns for a program that does nothing."
        ),
        None => writeln!(text, "NS/RUN is the kernel's own count, its taking included."),
    }
}

/// Whether it ran, or could have.
const fn counts(program: &ProgramReport) -> bool {
    program.attached || program.runs > 0 || program.recursion_misses > 0
}

#[expect(clippy::cast_precision_loss, reason = "counts of some seconds")]
fn program_row(text: &mut String, program: &ProgramReport, seconds: f64) -> std::fmt::Result {
    let per_run = program.nanoseconds_per_run.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}"));
    let columns = [
        program.probe,
        &format!("{} {}", program.mechanism, program.target),
        &program.runs.to_string(),
        &format!("{:.1}", program.runs as f64 / seconds),
        &per_run,
        &format!("{:.0}", program.hook_nanoseconds),
        &percent(program.core_ratio),
        &program.recursion_misses.to_string(),
    ];
    row(text, columns)
}

fn row(text: &mut String, [probe, hook, runs, rate, time, constant, share, misses]: [&str; 8]) -> std::fmt::Result {
    let line = format!("{probe:<20} {hook:<43} {runs:>10} {rate:>10} {time:>7} {constant:>8} {share:>11} {misses:>6}");
    writeln!(text, "{}", line.trim_end())
}

//! The `observer` command.

use std::{io, process::ExitCode, sync::Arc};

use clap::Parser;
use observer::{
    cli::{self, Cli, Command, DoctorArgs, RecordArgs, ReplayArgs, RunArgs, TopArgs, logging},
    doctor,
    kernel::capabilities,
    pipeline::{self, RecordingOptions, ReplayOptions, ReportFormat, RunOptions},
    top::{self, TopOptions},
};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(args, None),
        Command::Record(args) => record(args),
        Command::Replay(args) => replay(&args),
        Command::Doctor(args) => doctor(&args),
        Command::Top(args) => top(args),
    }
}

/// One line that says what is wrong; the log may not be set up.
#[expect(clippy::print_stderr, reason = "the command's own message to who typed it")]
fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("observer: {error}");
    ExitCode::from(code)
}

fn run(args: RunArgs, recording: Option<RecordingOptions>) -> ExitCode {
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(error) => return fail(cli::EXIT_USAGE, &error),
    };
    if args.print_config {
        print!("{}", loaded.print());
        return ExitCode::SUCCESS;
    }
    if args.check_config {
        println!("the configuration is valid");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = logging::init(&loaded.config.log) {
        return fail(cli::EXIT_USAGE, &error);
    }
    let run_for = args.run_for;
    let options = RunOptions {
        config: loaded.config,
        run_for,
        reload: Arc::new(move || args.load().map(|loaded| loaded.config)),
        recording,
    };
    match pipeline::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(cli::EXIT_FAILURE, &error),
    }
}

fn record(args: RecordArgs) -> ExitCode {
    let RecordArgs { file, payload, force, max_bytes, run: args } = args;
    run(args, Some(RecordingOptions { path: file, force, payload, max_bytes }))
}

#[expect(clippy::print_stderr, reason = "remarks stay out of what is printed for programs")]
fn replay(args: &ReplayArgs) -> ExitCode {
    let config = match args.load() {
        Ok(loaded) => loaded.config,
        Err(error) => return fail(cli::EXIT_USAGE, &error),
    };
    let format = match args.format.as_str() {
        "json" => ReportFormat::Json,
        "csv" => ReportFormat::Csv,
        _ => ReportFormat::Table,
    };
    let options = ReplayOptions { path: args.file.clone(), config, format, metrics: args.metrics.clone() };
    match pipeline::replay(&options, &mut io::stdout().lock()) {
        Ok(replayed) => {
            replayed.remarks.iter().for_each(|remark| eprintln!("observer: {remark}"));
            ExitCode::SUCCESS
        }
        Err(error) => fail(cli::EXIT_FAILURE, &error),
    }
}

fn doctor(args: &DoctorArgs) -> ExitCode {
    if let Err(error) = args.load() {
        return fail(cli::EXIT_USAGE, &error);
    }
    let report = capabilities::examine();
    match doctor::print(&report, args.json) {
        Ok(()) if report.ready => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(cli::EXIT_FAILURE),
        Err(error) => fail(cli::EXIT_FAILURE, &error),
    }
}

fn top(args: TopArgs) -> ExitCode {
    let TopArgs { url, interval, run_for, plain } = args;
    match top::run(&TopOptions { url, interval, run_for, plain }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(cli::EXIT_FAILURE, &error),
    }
}

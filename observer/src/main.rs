//! The `observer` command.

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use observer::{
    cli::{self, Cli, Command, DoctorArgs, RunArgs, TopArgs, logging},
    doctor,
    kernel::capabilities,
    pipeline::{self, RunOptions},
    top::{self, TopOptions},
};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(args),
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

fn run(args: RunArgs) -> ExitCode {
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
    };
    match pipeline::run(options) {
        Ok(()) => ExitCode::SUCCESS,
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

//! The `observer` command.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use observer::{
    cli::{
        self, Cli, Command, CredentialsArgs, DoctorArgs, GpuArgs, GpuCommand, HealthArgs, OverheadArgs, RecordArgs,
        ReplayArgs, RunArgs, TopArgs, logging,
    },
    control, doctor,
    export::http::web,
    overhead,
    pipeline::{self, RecordingOptions, ReplayOptions, ReportFormat, RunOptions},
    top::{self, Credentials, TopOptions},
};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(args, None),
        Command::Record(args) => record(args),
        Command::Replay(args) => replay(&args),
        Command::Doctor(args) => doctor(&args),
        Command::Gpu(args) => gpu(&args),
        Command::Health(args) => health(&args),
        Command::Top(args) => top(args),
        Command::Overhead(args) => overhead(&args),
    }
}

/// Ends at once where a thread is `stuck` in the GPU driver: what its library does at an orderly exit might wait for that.
fn leave(code: u8, stuck: bool) -> ExitCode {
    if stuck {
        // Nothing can be done about output that cannot be written, here.
        let _flushed = io::stdout().flush();
        // SAFETY: no pointers, and nothing of ours is to be done at the exit.
        unsafe { libc::_exit(code.into()) };
    }
    ExitCode::from(code)
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
    let ended = pipeline::run(options);
    let code = match &ended.result {
        Ok(()) => cli::EXIT_OK,
        Err(error) => {
            let _code = fail(cli::EXIT_FAILURE, error);
            cli::EXIT_FAILURE
        }
    };
    leave(code, ended.stuck)
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
    let config = match args.load() {
        Ok(loaded) => loaded.config,
        Err(error) => return fail(cli::EXIT_USAGE, &error),
    };
    let mut progress = doctor::Progress::new(args.count_for.unwrap_or_default());
    let mut tell = |elapsed, traffic: &doctor::Traffic| progress.tell(elapsed, traffic);
    let counting = args.count_for.map(|time| doctor::Counting { time, tell: &mut tell });
    let report = doctor::examine(&config, counting);
    progress.end();
    let stuck = report.gpu.as_ref().is_some_and(|gpu| gpu.stuck);
    match doctor::print(&report, args.json) {
        Ok(()) if report.capabilities.ready => leave(cli::EXIT_OK, stuck),
        Ok(()) => leave(cli::EXIT_FAILURE, stuck),
        Err(error) => fail(cli::EXIT_FAILURE, &error),
    }
}

fn gpu(args: &GpuArgs) -> ExitCode {
    let (command, target) = match &args.command {
        GpuCommand::Release(target) => (control::Command::Release, target),
        GpuCommand::Acquire(target) => (control::Command::Acquire, target),
        GpuCommand::Status(target) => (control::Command::Status, target),
    };
    match control::gpu(command, &target.url, &credentials(&target.credentials)) {
        Ok(status) => {
            println!("{}", control::words(&status));
            let failed = command == control::Command::Acquire && status.state != "up";
            if failed { ExitCode::from(cli::EXIT_FAILURE) } else { ExitCode::SUCCESS }
        }
        Err(error) => fail(cli::EXIT_FAILURE, &error),
    }
}

fn credentials(args: &CredentialsArgs) -> Credentials {
    let CredentialsArgs { ca_file, user_file, token_file } = args.clone();
    Credentials { ca_file, user_file, token_file, pinned: Vec::new() }
}

fn health(args: &HealthArgs) -> ExitCode {
    let mut credentials = Credentials { ca_file: args.ca_file.clone(), ..Credentials::default() };
    let url = match (args.settings(), &args.url) {
        (Err(error), _) => return fail(cli::EXIT_USAGE, &error),
        (Ok(Some(config)), _) => {
            match web::certificates(&config.web) {
                Ok(certificates) => credentials.pinned = certificates,
                Err(error) => return fail(cli::EXIT_USAGE, &error),
            }
            let scheme = if credentials.pinned.is_empty() { "http" } else { "https" };
            format!("{scheme}://{}", cli::reachable(config.listen))
        }
        (Ok(None), url) => url.clone().unwrap_or_default(),
    };
    match control::health(&url, args.ready, &credentials) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(cli::EXIT_FAILURE, &error),
    }
}

fn top(args: TopArgs) -> ExitCode {
    let TopArgs { url, credentials: given, interval, run_for, plain } = args;
    match top::run(&TopOptions { url, credentials: credentials(&given), interval, run_for, plain }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(cli::EXIT_FAILURE, &error),
    }
}

fn overhead(args: &OverheadArgs) -> ExitCode {
    let report = match overhead::measure(args.pid, args.time) {
        Ok(report) => report,
        Err(error) => return fail(cli::EXIT_FAILURE, &error),
    };
    match overhead::print(&report, args.format == "json") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(cli::EXIT_FAILURE, &error),
    }
}

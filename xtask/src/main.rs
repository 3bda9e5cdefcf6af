//! The project's own commands: `cargo xtask --help`.
//!
//! One file a command; `process` runs programs, `paths` knows where things lie, `toolchain` which compiler can build
//! the kernel side.

#![expect(clippy::print_stderr, reason = "these commands tell on stderr what they do; stdout is for results")]

mod bench;
mod build;
mod build_ebpf;
mod demo;
mod fuzz;
mod lint;
mod paths;
mod process;
mod repository;
mod run;
mod setup;
mod test;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the build needs, as far as it is not there.
    Setup(setup::SetupArgs),
    /// Build the kernel side to target/bpf/observer.o.
    BuildEbpf,
    /// Build the kernel side and the observer.
    Build(build::BuildArgs),
    /// Build a release and run the observer with the arguments given (after --).
    Run(run::RunArgs),
    /// Formatting, clippy for both targets, and rules of the repository.
    Lint,
    /// Build, then run all tests.
    Test(test::TestArgs),
    /// Build, then run the benchmarks.
    Bench(bench::BenchArgs),
    /// Look for inputs that break parsers or the tracker; needs a nightly compiler.
    Fuzz(fuzz::FuzzArgs),
    /// Observe a sample server under load, live.
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    let result: Result<()> = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::BuildEbpf => build_ebpf::run().map(drop),
        Command::Build(args) => build::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Lint => lint::run(),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Demo(args) => demo::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

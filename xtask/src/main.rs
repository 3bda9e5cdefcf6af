//! The project's own commands: `cargo xtask --help`.
//!
//! One file a command; `process` runs programs, `paths` knows where things lie, `toolchain` which compiler can build
//! the kernel side.

#![expect(clippy::print_stderr, reason = "these commands tell on stderr what they do; stdout is for results")]

mod bench;
mod build;
mod build_ebpf;
mod chaos;
mod dashboards;
mod demo;
mod deny;
mod fleet;
mod fuzz;
mod gpu_check;
mod lint;
mod paths;
mod pictures;
mod process;
mod repository;
mod run;
mod setup;
mod test;
mod toolchain;
mod vm;

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
    /// Licences, sources and, if asked for, advisories of dependencies, by cargo-deny, which is installed if need be.
    Deny(deny::DenyArgs),
    /// Build, then run all tests.
    Test(test::TestArgs),
    /// Build, then run the benchmarks.
    Bench(bench::BenchArgs),
    /// Build, then faults on the real kernel, in their long form, and a soak.
    Chaos(chaos::ChaosArgs),
    /// Have a real Prometheus scrape and query a simulated fleet; what `docs/fleet.md` says comes from it.
    Fleet(fleet::FleetArgs),
    /// Look for inputs that break parsers or the tracker; needs a nightly compiler.
    Fuzz(fuzz::FuzzArgs),
    /// Build, then compare the observer with NVML and nvidia-smi on a host with real GPUs.
    GpuCheck(gpu_check::GpuCheckArgs),
    /// End-to-end tests on other kernels, in virtual machines.
    Vm(vm::VmArgs),
    /// Write Grafana's dashboards from their source.
    Dashboards,
    /// Draw the dashboards from a real Prometheus for the documentation: docs/pictures.
    Pictures(pictures::PicturesArgs),
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
        Command::Deny(args) => deny::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Fleet(args) => fleet::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::GpuCheck(args) => gpu_check::run(&args),
        Command::Vm(args) => vm::run(&args),
        Command::Dashboards => dashboards::run(),
        Command::Pictures(args) => pictures::run(&args),
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

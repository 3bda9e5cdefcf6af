//! The `sample-llm` command: `serve` and `load`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sample_llm::{load, raise_file_limit, serve};

/// A sample OpenAI-compatible LLM server and its load generator.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve made-up completions at a steady pace.
    Serve(serve::ServeArgs),
    /// Send requests to a server on this host and report what the client saw.
    Load(load::LoadArgs),
}

fn main() -> ExitCode {
    raise_file_limit();
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Load(args) => load::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a command says on stderr why it failed")]
fn report(error: &anyhow::Error) {
    eprintln!("sample-llm: {error:#}");
}

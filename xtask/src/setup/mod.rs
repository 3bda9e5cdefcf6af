//! `cargo xtask setup`: what the build and the tests need, as far as it is not there. Fast when all is.

mod action;
pub(crate) mod ebpf;
pub(crate) mod tests;
pub(crate) mod vm;

use anyhow::Result;
use clap::Args;

/// What to set up.
#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Also what the tests run: tcpdump, iproute2, nftables, fio, Prometheus, curl, nginx, llmposter, Python and Node servers and clients.
    #[arg(long)]
    tests: bool,
}

pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    build_tools()?;
    if args.tests {
        tests::run()?;
    }
    Ok(())
}

/// What the build needs.
pub(crate) fn build_tools() -> Result<()> {
    ebpf::run()
}

//! A server with a worker on a GPU, and its clients.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use observer_e2e::{http::Client, process::Process, scratch::Scratch, traffic};
use serde::Deserialize;

const SERVER: &str = include_str!("../../../python/gpu_load.py");
/// Importing PyTorch takes its time.
const START: Duration = Duration::from_secs(120);
/// Requests under way at any time.
pub(crate) const CLIENTS: usize = 2;

/// What the server says when it serves.
#[derive(Debug, Deserialize)]
pub(crate) struct Serving {
    port: u16,
    /// The process that has the GPU.
    pub(crate) worker: u32,
    /// What works: `none` sleeps.
    pub(crate) work: String,
    /// Why it is not something better.
    pub(crate) reasons: Vec<String>,
}

/// The server.
pub(crate) struct Load {
    process: Process,
    pub(crate) serving: Serving,
}

impl Load {
    pub(crate) fn start(python: &Path, works: bool, scratch: &Scratch) -> Result<Self> {
        let script = scratch.write("gpu_load.py", SERVER);
        let mut command = Command::new(python);
        // So that its first GPU is NVML's.
        command.arg(script).arg(if works { "work" } else { "none" }).env("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
        let mut process = Process::spawn("gpu_load.py", command);
        let line = process.line(START, |line| line.starts_with("serving "));
        let serving = serde_json::from_str(line.trim_start_matches("serving ")).context("read what the server says")?;
        Ok(Self { process, serving })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.serving.port))
    }

    /// Its process, which owns the socket.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// What clients did.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    pub(crate) over: AtomicBool,
    pub(crate) requests: AtomicU64,
    pub(crate) tokens: AtomicU64,
}

impl Clients {
    /// Asks again and again until it is over.
    pub(crate) fn run(&self, server: SocketAddr, number: usize) -> Result<()> {
        let mut client = Client::connect(server).context("connect to the server")?;
        for request in 0.. {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let id = format!("check-{number}-{request}");
            let answer = client.ask(&traffic::chat(&id)).context("ask the server")?;
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.tokens.fetch_add(answer.text().matches("\"content\"").count() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

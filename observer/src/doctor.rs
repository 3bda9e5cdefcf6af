//! `observer doctor`: what can be observed here, what cannot, and what to do.

mod gpus;
mod opaque;
mod others;
mod progress;
mod text;
mod traffic;

use std::time::Duration;

use serde::Serialize;

pub use self::{
    progress::Progress,
    text::print,
    traffic::{Bytes, Traffic},
};
use crate::{
    config::{Config, GpuMode},
    gpu::{
        self, Examination,
        nvml::{Nvml, Options},
    },
    kernel::{
        self, OtherObserver,
        capabilities::{self, Capabilities, Finding, Level},
    },
    metrics,
};

/// What the observer understands of what passes by, in one paragraph for `doctor` and the front page.
pub const SEES: &str = "Plain HTTP/1.1 to LLM servers on this host, over TCP (IPv4, IPv6) and Unix sockets. TLS, \
                        HTTP/2, Multipath TCP, and servers that read by io_uring are recognised and counted as opaque, \
                        not measured.";

/// How long the GPU driver may take.
const GPU_LIMIT: Duration = Duration::from_secs(20);

/// All that is said.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kernel, and whether all that is needed is there.
    #[serde(flatten)]
    pub capabilities: Capabilities,
    /// GPUs; `None`: they are not to be asked.
    pub gpu: Option<Examination>,
    /// Observers that run.
    pub other_observers: Vec<OtherObserver>,
    /// What passes; `None`: it was not counted, and nobody could be asked.
    pub traffic: Option<Traffic>,
}

/// Counts traffic for this long, and tells how far it is.
pub struct Counting<'a> {
    /// How long.
    pub time: Duration,
    /// Told now and then how long it has been, and what was seen.
    pub tell: &'a mut dyn FnMut(Duration, &Traffic),
}

/// Looks at everything. Nothing is observed meanwhile, except for `counting`.
#[must_use]
pub fn examine(config: &Config, counting: Option<Counting<'_>>) -> Report {
    let settings = &config.gpu;
    // Before anything of ours is there to be taken for others'.
    let other_observers = kernel::other_observers();
    let mut capabilities = capabilities::examine(config.signals, config.kernel.socket_hook);
    let gpu = (settings.mode != GpuMode::Off)
        .then(|| gpu::examine(Nvml::new(Options::of(config)), GPU_LIMIT, metrics::gpu::supported));
    let findings = &mut capabilities.findings;
    findings.extend(gpus::findings(gpu.as_ref(), settings));
    findings.push(others::finding(&other_observers));
    let refused = kernel::check_cgroups(&config.scope).err();
    if let Some(error) = &refused {
        let advice = "`observer run` would end with this".to_owned();
        findings.push(Finding { subject: "scope", level: Level::Error, found: error.to_string(), advice });
    }
    let counted = match counting {
        Some(Counting { time, tell }) => Some(traffic::observe(&config.scope, config.kernel.socket_hook, time, tell)),
        None => traffic::ask(&other_observers).map(Ok),
    };
    let traffic = match counted {
        Some(Ok(traffic)) => {
            findings.extend(opaque::findings(&traffic));
            Some(traffic)
        }
        Some(Err(error)) => {
            findings.push(opaque::failed(&error));
            None
        }
        None => {
            findings.push(opaque::not_counted());
            None
        }
    };
    let missing = gpu.as_ref().is_some_and(|gpu| !gpu.gpus.iter().any(|gpu| gpu.up));
    capabilities.ready &= refused.is_none() && !(settings.mode == GpuMode::Require && missing);
    Report { capabilities, gpu, other_observers, traffic }
}

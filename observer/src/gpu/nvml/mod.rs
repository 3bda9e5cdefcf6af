//! NVIDIA GPUs, by the driver's own library (NVML).
//!
//! | file | what it is |
//! |---|---|
//! | `library` | where the library lies, and whether it has what cannot be done without |
//! | `session` | an open driver: its GPUs and MIG devices, and how they are polled |
//! | `errors` | what an error says of the call, the GPU or the driver |
//! | `fast`, `slow` | values that change fast, and slowly |
//! | `fields` | values that NVML numbers: traffic, time held down |
//! | `processes` | who is on a GPU, with how much memory and how busy |
//! | `gpm` | performance counters of Hopper and later |
//! | `xid` | the thread that waits for XID errors |

mod errors;
mod fast;
mod fields;
mod gpm;
pub mod library;
mod processes;
mod session;
mod slow;
mod xid;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nvml_wrapper::Nvml as Library;

use self::session::Open;
use super::{
    End, Gpu, Session, Shared, Source, Total, Trouble,
    snapshot::{Driver, Identity},
};
use crate::config::{Config, GpuSettings};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The library to load; `None`: look for it.
    pub library: Option<PathBuf>,
    /// Where the host's root is mounted, if that was said.
    pub host_root: Option<PathBuf>,
    /// Which processes are on which GPU.
    pub processes: bool,
    /// Performance counters.
    pub gpm: bool,
}

impl Options {
    /// What these settings ask for.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let GpuSettings { library, processes, gpm, .. } = &config.gpu;
        let host_root = config.host.root.clone();
        Self { library: library.clone(), host_root, processes: *processes, gpm: *gpm }
    }
}

/// NVIDIA's driver.
#[derive(Debug)]
pub struct Nvml {
    options: Options,
    /// GPUs and MIG devices that were ever seen, by UUID.
    known: BTreeMap<Arc<str>, Arc<Identity>>,
    /// Their counters, by UUID.
    books: HashMap<Arc<str>, Book>,
}

/// Counters of one GPU, which outlive sessions.
#[derive(Clone, Debug, Default)]
struct Book {
    energy: Total,
    pcie: [Total; 2],
    nvlink: [Total; 2],
    throttled: BTreeMap<&'static str, Total>,
    ecc: [Total; 2],
    remapped: [Total; 2],
}

impl Book {
    fn reopened(&mut self) {
        let Self { energy, pcie, nvlink, throttled, ecc, remapped } = self;
        let pairs = [pcie, nvlink, ecc, remapped].into_iter().flatten();
        pairs.chain([energy]).chain(throttled.values_mut()).for_each(Total::reopened);
    }
}

impl Nvml {
    /// A driver that was not opened yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, known: BTreeMap::new(), books: HashMap::new() }
    }

    /// The name of the library that opens, and the library.
    fn open(&self) -> Result<(PathBuf, Library), Trouble> {
        let mut tried = Vec::new();
        let mut failed = false;
        for path in library::candidates(self.options.library.as_deref(), self.options.host_root.as_deref()) {
            let opened = library::check(&path).and_then(|()| library::open(&path));
            match opened {
                Ok(library) => return Ok((path, library)),
                Err(trouble) => {
                    let (Trouble::Absent(reason) | Trouble::Failed(reason)) = &trouble;
                    failed |= matches!(trouble, Trouble::Failed(_));
                    tried.push(format!("{}: {reason}", path.display()));
                }
            }
        }
        let reason = tried.join("; ");
        Err(if failed { Trouble::Failed(reason) } else { Trouble::Absent(reason) })
    }
}

impl Source for Nvml {
    fn session(
        &mut self,
        shared: &Shared,
        work: &mut dyn FnMut(&mut dyn Session) -> Result<End, Trouble>,
    ) -> Result<End, Trouble> {
        let (path, library) = self.open()?;
        shared.beat();
        let driver = Driver {
            version: library.sys_driver_version().unwrap_or_default(),
            cuda: library.sys_cuda_driver_version().map(library::cuda).unwrap_or_default(),
            library: path,
        };
        self.books.values_mut().for_each(Book::reopened);
        let mut open = Open::new(&library, driver, self.options.clone(), shared, &mut self.known, &mut self.books)?;
        let watched = open.watched();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = || xid::watch(&library, &watched, &over, &shared.xids);
            if let Err(error) = thread::Builder::new().name("observer-gpuxid".to_owned()).spawn_scoped(scope, watch) {
                tracing::warn!("XID errors are not counted: cannot start a thread: {error}");
            }
            let result = work(&mut open);
            over.store(true, Ordering::Release);
            result
        })
        // Dropped here, in this order: what came of the library, and then, as the last one, the library itself. Were
        // anything kept, the driver could not be unloaded, and after an upgrade the old library would come back.
    }

    fn known(&self) -> Vec<Gpu> {
        let mut all: Vec<_> = self.known.values().cloned().map(Gpu::down).collect();
        all.sort_by_key(|gpu| session::order(&gpu.identity));
        all
    }
}

//! One look at all of it, for `observer doctor`.

use std::{sync::mpsc, thread, time::Duration};

use serde::Serialize;

use super::{End, Gpu, Shared, Source, Trouble, snapshot::Driver};

/// Between the two polls: some values are of the time between two.
const BETWEEN: Duration = Duration::from_millis(1100);

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// Version of the driver; `None`: there is none.
    pub driver: Option<String>,
    /// Newest CUDA that it supports.
    pub cuda: Option<String>,
    /// The library that was loaded.
    pub library: Option<String>,
    /// Why GPUs cannot be asked, in words.
    pub trouble: Option<String>,
    /// Whether something is wrong, rather than there is nothing.
    pub failed: bool,
    /// GPUs and MIG devices.
    pub gpus: Vec<ExaminedGpu>,
    /// A thread is left behind in a call into the driver.
    #[serde(skip)]
    pub stuck: bool,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExaminedGpu {
    /// As the label.
    pub index: String,
    /// As the label.
    pub uuid: String,
    /// Name of the product.
    pub name: String,
    /// Whether it answers.
    pub up: bool,
    /// Families that it has values for now.
    pub families: Vec<&'static str>,
    /// Families that it has none for.
    pub missing: Vec<&'static str>,
}

/// Opens the driver, looks twice, and lets it go. `families`: those of a GPU, and those of them that it has values for.
/// A driver that does not answer within `limit` is left behind, with its thread.
#[must_use]
pub fn examine(
    mut source: impl Source + 'static,
    limit: Duration,
    families: impl Fn(&Gpu) -> (Vec<&'static str>, Vec<&'static str>),
) -> Examination {
    let (sender, receiver) = mpsc::sync_channel(1);
    let spawned = thread::Builder::new().name("observer-gpu".to_owned()).spawn(move || {
        let shared = Shared::default();
        let mut seen: Option<(Driver, Vec<Gpu>)> = None;
        let result = source.session(&shared, &mut |session| {
            session.poll(true, &shared)?;
            thread::sleep(BETWEEN);
            let gpus = session.poll(true, &shared)?;
            seen = Some((session.driver().clone(), gpus));
            Ok(End::Stop)
        });
        // Who asked may have given up.
        let _gone = sender.send((result, seen));
    });
    let failed = |trouble: String| Examination { trouble: Some(trouble), failed: true, ..Examination::default() };
    if let Err(error) = spawned {
        return failed(format!("cannot start a thread: {error}"));
    }
    let Ok((result, seen)) = receiver.recv_timeout(limit) else {
        let trouble = format!("the driver does not answer: a call into it has not returned within {limit:?}");
        return Examination { stuck: true, ..failed(trouble) };
    };
    match result {
        Err(Trouble::Failed(reason)) => return failed(reason),
        Err(Trouble::Absent(reason)) => return Examination { trouble: Some(reason), ..Examination::default() },
        Ok(_) => {}
    }
    let Some((driver, gpus)) = seen else { return Examination::default() };
    let examined = |gpu: &Gpu| {
        let (has, missing) = families(gpu);
        ExaminedGpu {
            index: gpu.identity.index.to_string(),
            uuid: gpu.identity.uuid.to_string(),
            name: gpu.identity.name.to_string(),
            up: gpu.up,
            families: has,
            missing,
        }
    };
    Examination {
        driver: Some(driver.version),
        cuda: Some(driver.cuda).filter(|cuda| !cuda.is_empty()),
        library: Some(driver.library.display().to_string()),
        trouble: None,
        failed: false,
        stuck: false,
        gpus: gpus.iter().map(examined).collect(),
    }
}

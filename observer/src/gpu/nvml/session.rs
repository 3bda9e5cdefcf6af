//! An open driver: its GPUs and MIG devices, and how they are polled.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use nvml_wrapper::{Device, Nvml as Library, error::NvmlError};

use super::{
    Book, Options,
    errors::{self, Lost, value},
    fast,
    fields::Links,
    gpm::{self, Counters},
    processes::{self, Busy, List},
    slow, xid,
};
use crate::{
    gpu::{
        Gpu, Session, Shared, Trouble,
        snapshot::{Driver, Fast, Identity, Process, Slow},
    },
    kernel::clock,
};

/// Most MIG devices of a GPU, whatever the driver says.
const MIG_MAX: u32 = 16;

/// An open driver.
pub(super) struct Open<'nvml, 'books> {
    library: &'nvml Library,
    driver: Driver,
    options: Options,
    list: List,
    gpus: Vec<Whole<'nvml>>,
    /// GPUs the driver counted.
    counted: u32,
    books: &'books mut HashMap<Arc<str>, Book>,
    has_more: bool,
}

/// A GPU.
struct Whole<'nvml> {
    identity: Arc<Identity>,
    /// `None`: it did not answer when the driver was opened.
    device: Option<Device<'nvml>>,
    is_lost: bool,
    slow: Slow,
    links: Links,
    gpm: Option<Counters<'nvml>>,
    busy: Busy,
    migs: Vec<Mig<'nvml>>,
    /// MIG devices that the driver has, those among them that do not tell their names.
    counted: usize,
}

/// A MIG device.
struct Mig<'nvml> {
    identity: Arc<Identity>,
    device: Device<'nvml>,
    /// Its GPU instance, by which its performance counters are known.
    instance: Option<u32>,
    gpm: Option<Counters<'nvml>>,
}

/// By index, then UUID: the order in which GPUs are shown.
pub(super) fn order(identity: &Identity) -> (Vec<u32>, Arc<str>) {
    (identity.index.split(':').filter_map(|part| part.parse().ok()).collect(), Arc::clone(&identity.uuid))
}

fn lost_driver(reason: String) -> Trouble {
    Trouble::Failed(format!("the driver is lost: {reason}"))
}

/// A handle again: the wrapper's cannot be copied.
fn again<'nvml>(library: &'nvml Library, device: &Device<'nvml>) -> Device<'nvml> {
    // SAFETY: the handle is of this library, and alive as long as it.
    unsafe { Device::new(device.handle(), library) }
}

impl<'nvml, 'books> Open<'nvml, 'books> {
    /// Looks at all GPUs. `known`: those of before, which are shown as down where they are missing.
    pub(super) fn new(
        library: &'nvml Library,
        driver: Driver,
        options: Options,
        shared: &Shared,
        known: &mut BTreeMap<Arc<str>, Arc<Identity>>,
        books: &'books mut HashMap<Arc<str>, Book>,
    ) -> Result<Self, Trouble> {
        let failed = |error: NvmlError| Trouble::Failed(format!("the GPUs cannot be counted: {error}"));
        let counted = library.device_count().map_err(failed)?;
        if counted == 0 {
            return Err(Trouble::Absent("the driver has no GPU".to_owned()));
        }
        let has_third = library.lib().nvmlDeviceGetComputeRunningProcesses_v3.is_ok();
        let list = List::of(&driver.version, has_third);
        let mut open = Self { library, driver, options, list, gpus: Vec::new(), counted, books, has_more: false };
        for index in 0..counted {
            shared.beat();
            let gpu = open.look(index, known).map_err(lost_driver)?;
            open.gpus.extend(gpu);
        }
        if open.gpus.is_empty() {
            return Err(Trouble::Failed(format!(
                "none of {counted} GPUs may be asked: access to /dev/nvidia* is needed"
            )));
        }
        for identity in known.values().filter(|identity| identity.parent.is_none()) {
            if !open.gpus.iter().any(|gpu| gpu.identity.uuid == identity.uuid) {
                open.gpus.push(Whole::lost(identity.clone()));
            }
        }
        open.gpus.sort_by_key(|gpu| order(&gpu.identity));
        // A MIG device that is gone was taken away: it is not missing.
        known.retain(|_, identity| identity.parent.is_none());
        for gpu in &open.gpus {
            let all = gpu.migs.iter().map(|mig| &mig.identity).chain([&gpu.identity]);
            let named = all.filter(|identity| !identity.uuid.is_empty());
            known.extend(named.map(|identity| (identity.uuid.clone(), identity.clone())));
        }
        Ok(open)
    }

    /// One GPU, if we may ask it; the error is the driver's end.
    fn look(&self, index: u32, known: &BTreeMap<Arc<str>, Arc<Identity>>) -> Result<Option<Whole<'nvml>>, String> {
        let identify = |device: &Device<'nvml>| -> Result<Option<(String, String)>, Lost> {
            let (uuid, name) = (value(device.uuid())?, value(device.name())?);
            Ok(uuid.map(|uuid| (uuid, name.unwrap_or_default())))
        };
        let device = self.library.device_by_index(index);
        // Somebody else's: it is counted and no more.
        if let Err(NvmlError::NoPermission) = device {
            return Ok(None);
        }
        let found = match value(device) {
            Ok(Some(device)) => identify(&device).map(|names| names.map(|names| (device, names))),
            Ok(None) => Ok(None),
            Err(lost) => Err(lost),
        };
        match found {
            Ok(Some((device, (uuid, name)))) => {
                let identity =
                    Identity { index: index.to_string().into(), uuid: uuid.into(), name: name.into(), parent: None };
                let has_gpm = self.options.gpm && gpm::is_supported(&device);
                let mut gpu = Whole::lost(Arc::new(identity));
                let migs = mig_devices(&device);
                gpu.counted = migs.len();
                gpu.migs = look_at_migs(migs, &gpu.identity, has_gpm);
                gpu.gpm = (has_gpm && gpu.migs.is_empty()).then(Counters::default);
                gpu.device = Some(device);
                gpu.is_lost = false;
                Ok(Some(gpu))
            }
            Err(Lost::Driver(reason)) => Err(reason),
            // It does not even tell its name: it is the one that was there before, if one was.
            Ok(None) | Err(Lost::Gpu) => {
                let index = index.to_string();
                let before = known.values().find(|identity| *identity.index == *index).cloned();
                let nameless = || Identity { index: index.into(), uuid: "".into(), name: "".into(), parent: None };
                Ok(Some(Whole::lost(before.unwrap_or_else(|| Arc::new(nameless())))))
            }
        }
    }

    /// GPUs whose XID errors can be waited for.
    pub(super) fn watched(&self) -> Vec<xid::Watched<'nvml>> {
        let watched = |gpu: &Whole<'nvml>| Some((gpu.identity.clone(), again(self.library, gpu.device.as_ref()?)));
        self.gpus.iter().filter_map(watched).collect()
    }
}

/// Handles of MIG devices, with their indices; none where MIG is off.
fn mig_devices<'nvml>(device: &Device<'nvml>) -> Vec<(u32, Device<'nvml>)> {
    if !device.mig_mode().is_ok_and(|mode| mode.current == 1) {
        return Vec::new();
    }
    let count = device.mig_device_count().unwrap_or(0).min(MIG_MAX);
    // Places without a device answer that there is none.
    (0..count).filter_map(|index| Some((index, device.mig_device_by_index(index).ok()?))).collect()
}

fn look_at_migs<'nvml>(devices: Vec<(u32, Device<'nvml>)>, parent: &Identity, has_gpm: bool) -> Vec<Mig<'nvml>> {
    let look = |(index, device): (u32, Device<'nvml>)| {
        let identity = Identity {
            index: format!("{}:{index}", parent.index).into(),
            uuid: device.uuid().ok()?.into(),
            name: device.name().map_or_else(|_| parent.name.clone(), Into::into),
            parent: Some(parent.uuid.clone()),
        };
        let instance = instance(&device).ok();
        let gpm = (has_gpm && instance.is_some()).then(Counters::default);
        Some(Mig { identity: Arc::new(identity), device, instance, gpm })
    };
    devices.into_iter().filter_map(look).collect()
}

fn instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    use nvml_wrapper::error::{nvml_sym, nvml_try};
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut id = 0;
    // SAFETY: the handle is alive with its library.
    nvml_try(unsafe { call(device.handle(), &raw mut id) })?;
    Ok(id)
}

impl Session for Open<'_, '_> {
    fn driver(&self) -> &Driver {
        &self.driver
    }

    fn poll(&mut self, slow: bool, shared: &Shared) -> Result<Vec<Gpu>, Trouble> {
        if slow {
            // Counting asks the driver, and not a GPU, so it also says whether that is still the one we opened.
            match self.library.device_count() {
                Ok(count) => self.has_more = count > self.counted,
                Err(error) => match errors::loss(&error) {
                    Some(Lost::Driver(reason)) => return Err(lost_driver(reason)),
                    Some(Lost::Gpu) | None => {}
                },
            }
        }
        let mut rows = Vec::new();
        for gpu in &mut self.gpus {
            shared.beat();
            let book = self.books.entry(gpu.identity.uuid.clone()).or_default();
            match gpu.poll(slow, &self.options, self.list, book, shared) {
                Ok((row, migs)) => {
                    self.has_more |= slow && gpu.has_other_migs();
                    rows.push(row);
                    rows.extend(migs);
                }
                Err(Lost::Driver(reason)) => return Err(lost_driver(reason)),
                Err(Lost::Gpu) => {
                    gpu.is_lost = true;
                    let all = [&gpu.identity].into_iter().chain(gpu.migs.iter().map(|mig| &mig.identity));
                    rows.extend(all.map(|identity| Gpu::down(identity.clone())));
                }
            }
        }
        shared.beat();
        if rows.iter().all(|row| !row.up) {
            return Err(Trouble::Failed("no GPU answers: all of them are lost".to_owned()));
        }
        Ok(rows)
    }

    fn has_more(&self) -> bool {
        self.has_more
    }
}

impl<'nvml> Whole<'nvml> {
    fn lost(identity: Arc<Identity>) -> Self {
        Self {
            identity,
            device: None,
            is_lost: true,
            slow: Slow::default(),
            links: Links::default(),
            gpm: None,
            busy: Busy::default(),
            migs: Vec::new(),
            counted: 0,
        }
    }

    /// Whether its MIG devices are not those that are known.
    fn has_other_migs(&self) -> bool {
        self.device.as_ref().is_some_and(|device| mig_devices(device).len() != self.counted)
    }

    fn poll(
        &mut self,
        slow: bool,
        options: &Options,
        list: List,
        book: &mut Book,
        shared: &Shared,
    ) -> Result<(Gpu, Vec<Gpu>), Lost> {
        let device = self.device.as_ref().filter(|_| !self.is_lost).ok_or(Lost::Gpu)?;
        let time = Some(clock::now());
        let mut fast = fast::read(device, &mut self.links, book)?;
        if let Some(counters) = &mut self.gpm {
            fast.gpm = counters.read(device, None)?;
        }
        shared.beat();
        if slow {
            self.slow = slow::read(device, book)?;
            shared.beat();
        }
        let mut processes = None;
        // Of a GPU with MIG devices, these have the processes.
        if options.processes && self.migs.is_empty() {
            processes = processes::list(device, list)?;
            if let Some(processes) = processes.as_mut().filter(|processes| !processes.is_empty()) {
                self.busy.add(device, processes)?;
            }
        }
        let mut migs = Vec::new();
        for mig in &mut self.migs {
            shared.beat();
            migs.push(mig.poll(device, options, list)?);
        }
        let row = Gpu { identity: self.identity.clone(), up: true, time, fast, slow: self.slow.clone(), processes };
        Ok((row, migs))
    }
}

impl<'nvml> Mig<'nvml> {
    fn poll(&mut self, parent: &Device<'nvml>, options: &Options, list: List) -> Result<Gpu, Lost> {
        let time = Some(clock::now());
        let memory = fast::memory(&self.device)?;
        let mut fast = Fast {
            memory_used: memory.map(|(used, _)| used),
            memory_total: memory.map(|(_, total)| total),
            ..Fast::default()
        };
        if let (Some(counters), Some(instance)) = (&mut self.gpm, self.instance) {
            fast.gpm = counters.read(parent, Some(instance))?;
        }
        let mut processes: Option<Vec<Process>> = None;
        if options.processes {
            processes = processes::list(&self.device, list)?;
        }
        Ok(Gpu { identity: self.identity.clone(), up: true, time, fast, slow: Slow::default(), processes })
    }
}

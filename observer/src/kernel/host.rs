//! What is measured of workloads, in kernel maps: who belongs to which slot, and what its slot holds.

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, PerCpuArray},
};
use observer_common::host::{Member, Plain, served_port};

use super::{
    error::{KernelError, map_error, missing, removed},
    io,
    loader::Kernel,
    probes::ProbeReport,
    signal::Signal,
};

/// A map's value as it lies in memory.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Value<T>(pub(super) T);

// SAFETY: `Plain` promises just that; and nothing is added to it.
unsafe impl<T: Plain> Pod for Value<T> {}

impl Kernel {
    /// Processes that belong to a workload's slot now, by thread group id.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn members(&mut self) -> Result<Vec<(u32, Member)>, KernelError> {
        Ok(self.member_map()?.iter().flatten().map(|(pid, Value(member))| (pid, member)).collect())
    }

    /// Makes a process, and all that it forks from now on, belong to a workload's slot.
    ///
    /// # Errors
    /// If the map is full.
    pub fn add_member(&mut self, pid: u32, member: Member) -> Result<(), KernelError> {
        self.member_map()?.insert(pid, Value(member), 0).map_err(|error| map_error(MEMBERS, &error))
    }

    /// Makes a process belong to none.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn remove_member(&mut self, pid: u32) -> Result<(), KernelError> {
        // A process that ended meanwhile took itself out.
        removed(self.member_map()?.remove(&pid)).map_err(|error| map_error(MEMBERS, &error))
    }

    /// Whether a signal is on, and all its probes are attached that are to be.
    #[must_use]
    pub fn measures(&self, signal: Signal) -> bool {
        is_measured(self.reports(), signal)
    }

    /// Whether writes of workloads' connections are looked at for TCP's signal.
    #[must_use]
    pub fn looks_at_tcp(&self) -> bool {
        self.looks_at_tcp && self.sees_calls()
    }

    /// Whether a probe is attached.
    #[must_use]
    pub fn runs(&self, probe: &str) -> bool {
        self.reports().iter().any(|report| report.name == probe && report.is_attached())
    }

    /// Makes connections to a port count for the workload in a slot.
    ///
    /// # Errors
    /// If the map is full.
    pub fn add_served_port(&mut self, slot: u32, port: u16) -> Result<(), KernelError> {
        let key = served_port(slot, u32::from(port));
        self.served_ports()?.insert(key, 1, 0).map_err(|error| map_error(SERVED_PORTS, &error))
    }

    /// Makes connections to no port count for the workload in a slot.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn remove_served_ports(&mut self, slot: u32) -> Result<(), KernelError> {
        let mut map = self.served_ports()?;
        let old: Vec<u32> = map.keys().flatten().filter(|key| key >> 16 == slot).collect();
        old.iter().try_for_each(|key| map.remove(key)).map_err(|error| map_error(SERVED_PORTS, &error))
    }

    /// What each CPU has in one place of a per-CPU array.
    ///
    /// # Errors
    /// If there is no such map or place.
    pub(crate) fn per_cpu<T: Plain>(&self, map: &'static str, index: u32) -> Result<Vec<T>, KernelError> {
        let array: &Map = self.ebpf.map(map).ok_or_else(|| missing(map))?;
        let array: PerCpuArray<&MapData, Value<T>> =
            PerCpuArray::try_from(array).map_err(|error| map_error(map, &error))?;
        let values = array.get(&index, 0).map_err(|error| map_error(map, &error))?;
        Ok(values.iter().map(|Value(value)| *value).collect())
    }

    fn served_ports(&mut self) -> Result<HashMap<&mut MapData, u32, u32>, KernelError> {
        HashMap::try_from(self.map(SERVED_PORTS)?).map_err(|error| map_error(SERVED_PORTS, &error))
    }

    fn member_map(&mut self) -> Result<HashMap<&mut MapData, u32, Value<Member>>, KernelError> {
        HashMap::try_from(self.map(MEMBERS)?).map_err(|error| map_error(MEMBERS, &error))
    }
}

/// Whether what there is of a signal's probes is all that there is to be. What was tried first and replaced does not
/// matter.
pub(super) fn is_measured(reports: &[ProbeReport], signal: Signal) -> bool {
    let by_calls = io::by_calls(reports);
    let rows = || reports.iter().filter(|report| report.signal == Some(signal));
    rows().any(ProbeReport::is_attached)
        && rows().all(|report| report.status.is_as_wanted() || (by_calls && io::is_function(report)))
}

const MEMBERS: &str = "MEMBERS";
const SERVED_PORTS: &str = "SERVED_PORTS";

//! Loads the kernel side, attaches it, and talks to its maps.

use std::{collections::BTreeSet, os::fd::AsFd};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap as BpfHashMap, Map, MapData, PerCpuArray, Queue, RingBuf},
};
use observer_common::{
    block,
    config::{PORT_CANDIDATE, PORT_IGNORED, PORT_NONE, SCOPE_CGROUPS, SCOPE_PIDS, SCOPE_PORTS, Scope as KernelScope},
    host, limits,
    loss::Counter,
};

use super::{
    as_written::{self, AsWritten},
    attach::{self, Links, Loading},
    btf::Btf,
    constants,
    error::{KernelError, chain, map_error, missing, removed},
    io,
    probes::{PROBES, ProbeReport},
    ring::Ring,
    scope,
    signal::Signal,
    socket_hook,
    statistics::{self, ProbeCost},
    tcp_sockets::Entering,
};
use crate::{
    config::{Scope, Signals, SocketHook},
    event::Connect,
};

/// The BPF object; empty in builds without it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer.o"));

/// What a load can be told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of the ring in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Fill of the ring, from 0 to 1, above which an event wakes user space at once.
    pub wakeup_ratio: f64,
    /// Send the kernel side's rare diagnostics to the log.
    pub log: bool,
    /// What to measure of workloads besides their requests.
    pub signals: Signals,
    /// Where reads and writes of sockets are to be seen.
    pub socket_hook: SocketHook,
}

/// The loaded and attached kernel side. Dropping it detaches everything.
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    /// What is in place for as long as this lives, or until it is shed.
    pub(super) links: Links,
    /// Signals whose probes are taken away for now.
    pub(super) shed: Vec<Signal>,
    /// Programs that aya must not load; only until they are.
    as_written: Option<AsWritten>,
    signals: Signals,
    pub(super) hook: SocketHook,
    /// Writes of workloads' connections are looked at for TCP's signal.
    pub(super) looks_at_tcp: bool,
    /// Bytes of sockets are counted for the signal of I/O.
    pub(super) counts_sockets: bool,
    /// The maps for requests to block devices have room for any.
    has_block: bool,
    pub(super) hooked: io::Hooked,
    pub(super) entering: Option<Entering>,
    log: Option<KernelLog>,
    pub(super) reports: Vec<ProbeReport>,
    generation: u32,
    explicit_ports: bool,
    /// Candidates by user space's word.
    ports: BTreeSet<u16>,
    cgroups: BTreeSet<u64>,
}

/// The kernel side's rare diagnostics, on their way to the log.
pub struct KernelLog(aya_log::EbpfLogger<&'static dyn log::Log>);

impl KernelLog {
    /// Writes to the log what has come since the last call.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

impl Kernel {
    /// Loads the object, sets the scope, and attaches all probes: what is in scope is seen from then on.
    ///
    /// # Errors
    /// Whatever makes observing impossible; a missing optional probe does not.
    pub fn attach(options: Options, scope: &Scope) -> Result<Self, KernelError> {
        let mut kernel = socket_hook::attach(options, |kernel| {
            if options.log {
                // Before any program is loaded: the log's map must stay open until then.
                let log = aya_log::EbpfLogger::init(&mut kernel.ebpf)
                    .map_err(|error| KernelError::Map { map: "AYA_LOGS", reason: chain(&error) })?;
                kernel.log = Some(KernelLog(log));
            }
            kernel.set_scope(scope)
        })?;
        socket_hook::check(&kernel.reports, options.socket_hook)?;
        // What was forked and listened on meanwhile, which no probe saw.
        kernel.learn(scope)?;
        kernel.make_cookies();
        Ok(kernel)
    }

    /// Loads the object and its maps, attaching nothing.
    pub(super) fn load(options: Options, hook: SocketHook) -> Result<Self, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        let btf = Btf::from_kernel()?;
        let words = constants::of_sockets(&btf, options, hook)?.words();
        let constants = constants::of_host(&btf, options.signals);
        let devices = super::block::constants(&btf);
        let has_block = options.signals.block && constants::missing(&btf, Signal::Block).is_none();
        // The kernel takes the memory of a map at once, whether anything is put there or not.
        let room = |wanted, entries| if wanted { entries } else { 1 };
        drop(btf);
        let ebpf = EbpfLoader::new()
            .override_global("CONFIG", &words, true)
            .override_global("HOST", &constants.words(), true)
            .override_global("BLOCK", &devices, true)
            .map_max_entries("EVENTS", options.ring_bytes)
            .map_max_entries("SOCKETS_BY_COOKIE", room(hook == SocketHook::SysExit, limits::SOCKETS_BY_COOKIE))
            .map_max_entries("IO", room(constants.io != 0, host::WORKLOADS))
            .map_max_entries("BLOCK_REQUESTS", room(has_block, block::REQUESTS))
            .map_max_entries("BLOCK_TARGETS", room(has_block, block::TARGETS))
            // Of these: storage that lives with threads, which only the kernel side uses.
            .allow_unsupported_maps()
            .load(OBJECT)
            .map_err(|error| load_error(&error))?;
        let as_written = as_written::is_needed().then(|| AsWritten::new(OBJECT, &ebpf)).transpose()?;
        Ok(Self {
            ebpf,
            links: Links::new(),
            shed: Vec::new(),
            as_written,
            signals: options.signals,
            hook,
            looks_at_tcp: constants.tcp != 0,
            counts_sockets: constants.io != 0,
            has_block,
            hooked: io::Hooked::default(),
            entering: None,
            log: None,
            reports: Vec::new(),
            generation: 0,
            explicit_ports: false,
            ports: BTreeSet::new(),
            cgroups: BTreeSet::new(),
        })
    }

    /// Attaches the table's probes: all of them, or up to the first required one that fails.
    pub(super) fn attach_probes(&mut self, all: bool) -> Result<(), KernelError> {
        let btf = aya::Btf::from_sys_fs().map_err(|error| KernelError::Load { reason: chain(&error) })?;
        let own = Btf::from_kernel()?;
        let as_written = self.as_written.take();
        let loading = Loading { btf: &btf, as_written: as_written.as_ref() };
        (self.reports, self.links) = attach::attach_all(&mut self.ebpf, loading, &own, (self.signals, self.hook), all);
        Ok(())
    }

    /// The ring's reading end; `None` if it was taken before.
    ///
    /// # Errors
    /// If the map cannot be mapped into memory.
    pub fn take_ring(&mut self) -> Result<Option<Ring>, KernelError> {
        self.ebpf
            .take_map("EVENTS")
            .map(|map| {
                let ended = self.ebpf.take_map("ENDED").ok_or_else(|| missing("ENDED"))?;
                let ended = Queue::try_from(ended).map_err(|error| map_error("ENDED", &error))?;
                RingBuf::try_from(map).map(|ring| Ring::new(ring, ended)).map_err(|error| map_error("EVENTS", &error))
            })
            .transpose()
    }

    /// The kernel side's diagnostics, if the load was told to send them and they were not taken before.
    pub fn take_log(&mut self) -> Option<KernelLog> {
        self.log.take()
    }

    /// Connections to ports in scope that processes of this host had before the probes were attached, at most `limit`;
    /// of later ones events tell. Process ids are those of `/proc` here.
    #[must_use]
    pub fn clients(&self, limit: usize) -> Vec<Connect> {
        scope::clients(&self.ports, limit)
    }

    /// What became of each probe.
    #[must_use]
    pub fn reports(&self) -> &[ProbeReport] {
        &self.reports
    }

    /// Replaces the scope, without a reload: the kernel side judges each connection anew at its next call.
    ///
    /// # Errors
    /// A cgroup that cannot be found, or a map that cannot be written.
    pub fn set_scope(&mut self, scope: &Scope) -> Result<(), KernelError> {
        let mut flags = 0;
        let mut cgroup_levels = 0;
        let mut ids = BTreeSet::new();
        for cgroup in scope::resolve(scope)? {
            cgroup_levels |= 1 << cgroup.level;
            ids.insert(cgroup.id);
            flags |= SCOPE_CGROUPS;
        }
        if !scope.pids.is_empty() {
            flags |= SCOPE_PIDS;
        }
        if !scope.ports.is_empty() {
            flags |= SCOPE_PORTS;
        }
        self.explicit_ports = flags & SCOPE_PORTS != 0;
        self.replace_cgroups(&ids)?;
        self.cgroups = ids;
        self.forget_processes(|_, root| !scope.pids.contains(&root))?;
        self.add_processes(scope)?;
        // In force before the ports are read: from here on the kernel side learns of new listeners and forks.
        self.generation = self.generation.wrapping_add(1).max(1);
        let value = KernelScope { generation: self.generation, flags, cgroup_levels, padding: 0 };
        let mut map: Array<&mut MapData, [u32; 4]> =
            Array::try_from(self.map("SCOPE")?).map_err(|error| map_error("SCOPE", &error))?;
        map.set(0, [value.generation, value.flags, value.cgroup_levels, 0], 0)
            .map_err(|error| map_error("SCOPE", &error))?;
        let ports =
            if self.explicit_ports { scope.ports.iter().copied().collect() } else { self.listening_ports(scope)? };
        self.replace_ports(&ports)?;
        // The first time nothing is attached yet, and `attach` does this once it is. Later, what the kernel side
        // learnt between the look and the replacement was just forgotten.
        if self.generation == 1 { Ok(()) } else { self.learn(scope) }
    }

    /// Whether a cgroup of the scope was made anew since it was put in force, as a restarted service's is.
    ///
    /// # Errors
    /// A cgroup that is gone.
    pub fn cgroups_changed(&self, scope: &Scope) -> Result<bool, KernelError> {
        Ok(scope::resolve(scope)?.iter().map(|cgroup| cgroup.id).collect::<BTreeSet<_>>() != self.cgroups)
    }

    /// Adds processes and ports of the scope that no probe told of.
    fn learn(&mut self, scope: &Scope) -> Result<(), KernelError> {
        self.add_processes(scope)?;
        if self.explicit_ports {
            return Ok(());
        }
        let ports = self.listening_ports(scope)?;
        self.add_ports(&ports)
    }

    /// Ports on which processes in scope listen now.
    fn listening_ports(&mut self, scope: &Scope) -> Result<BTreeSet<u16>, KernelError> {
        if scope.pids.is_empty() && scope.cgroups.is_empty() {
            return Ok(scope::listening_ports(None));
        }
        // The kernel side's list: it has those, too, whose parents have ended.
        let pids: BTreeSet<u32> = self.pids()?.keys().flatten().collect();
        Ok(scope::listening_ports(Some(&|process| {
            let pid = u32::try_from(process.pid()).unwrap_or(0);
            (scope.pids.is_empty() || pids.contains(&pid))
                && (scope.cgroups.is_empty() || scope::in_cgroups(process, &scope.cgroups))
        })))
    }

    /// Adds the processes of the scope and their descendants; the kernel side does the same for those born later.
    fn add_processes(&mut self, scope: &Scope) -> Result<(), KernelError> {
        if scope.pids.is_empty() {
            return Ok(());
        }
        let mut map = self.pids()?;
        for (pid, root) in scope::with_descendants(&scope.pids) {
            map.insert(pid, root, 0).map_err(|error| map_error("PIDS", &error))?;
        }
        // Who ended between the look and the insertion is not there to take itself out.
        self.forget_processes(|pid, _| !scope::is_running(pid))
    }

    fn forget_processes(&mut self, forget: impl Fn(u32, u32) -> bool) -> Result<(), KernelError> {
        let mut map = self.pids()?;
        let old: Vec<u32> =
            map.iter().flatten().filter(|(pid, root)| forget(*pid, *root)).map(|(pid, _)| pid).collect();
        for pid in old {
            // A process that ended meanwhile took itself out.
            removed(map.remove(&pid)).map_err(|error| map_error("PIDS", &error))?;
        }
        Ok(())
    }

    /// Thread group id to the listed process that it descends from.
    fn pids(&mut self) -> Result<BpfHashMap<&mut MapData, u32, u32>, KernelError> {
        BpfHashMap::try_from(self.map("PIDS")?).map_err(|error| map_error("PIDS", &error))
    }

    /// Leaves a port alone, or looks at it again. Ports that the user named are never left alone.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn ignore_port(&mut self, port: u16, ignore: bool) -> Result<(), KernelError> {
        if self.explicit_ports {
            return Ok(());
        }
        let mut map = self.ports()?;
        let value = if ignore { PORT_IGNORED } else { PORT_CANDIDATE };
        map.set(u32::from(port), value, 0).map_err(|error| map_error("PORTS", &error))
    }

    /// Whether the user named the ports, so that none is learnt and none is left alone.
    #[must_use]
    pub fn has_explicit_ports(&self) -> bool {
        self.explicit_ports
    }

    /// Does once what is done while observing, as far as that takes privileges at all: reads and writes maps, attaches a
    /// probe and an iterator. It changes nothing.
    ///
    /// # Errors
    /// What is not permitted.
    pub fn rehearse(&mut self) -> Result<(), KernelError> {
        drop(self.counters()?);
        let mut map: Array<&mut MapData, [u32; 4]> =
            Array::try_from(self.map("SCOPE")?).map_err(|error| map_error("SCOPE", &error))?;
        let scope = map.get(&0, 0).map_err(|error| map_error("SCOPE", &error))?;
        map.set(0, scope, 0).map_err(|error| map_error("SCOPE", &error))?;
        drop(self.tcp_sockets(None)?);
        self.try_hook()
    }

    /// The kernel side's counters, summed over CPUs.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>, KernelError> {
        const MAP: &str = "COUNTERS_MAP";
        let map = self.ebpf.map(MAP).ok_or_else(|| missing(MAP))?;
        let map: PerCpuArray<&MapData, u64> = PerCpuArray::try_from(map).map_err(|error| map_error(MAP, &error))?;
        Counter::ALL
            .iter()
            .map(|counter| {
                let values = map.get(&counter.slot(), 0).map_err(|error| map_error(MAP, &error))?;
                Ok((*counter, values.iter().sum()))
            })
            .collect()
    }

    /// Cost of each attached probe, by name.
    #[must_use]
    pub fn costs(&self) -> Vec<(&'static str, ProbeCost)> {
        PROBES
            .iter()
            .filter_map(|probe| {
                let fd = self.ebpf.program(probe.program)?.fd().ok()?;
                let cost = statistics::read(fd.as_fd()).ok()?;
                Some((probe.name, cost))
            })
            .collect()
    }

    /// Entries and capacity of the bounded maps, by name.
    #[must_use]
    pub fn map_usage(&self) -> Vec<(&'static str, u64, u64)> {
        fn usage<K: aya::Pod, V: aya::Pod>(
            map: &Map,
            name: &'static str,
            capacity: u32,
        ) -> Option<(&'static str, u64, u64)> {
            let map: BpfHashMap<&MapData, K, V> = BpfHashMap::try_from(map).ok()?;
            // Where a key is gone when the next one is asked for, the kernel begins anew: it could go on for ever.
            Some((name, map.keys().take(capacity as usize).count() as u64, u64::from(capacity)))
        }
        [
            self.ebpf.map("PIDS").and_then(|map| usage::<u32, u32>(map, "pids", limits::SCOPE_PIDS)),
            self.ebpf.map("CGROUPS").and_then(|map| usage::<u64, u32>(map, "cgroups", limits::SCOPE_CGROUPS)),
            self.ebpf.map("MEMBERS").and_then(|map| usage::<u32, [u64; 2]>(map, "members", host::MEMBERS)),
            self.ebpf.map("SERVED_PORTS").and_then(|map| usage::<u32, u32>(map, "served_ports", host::SERVED_PORTS)),
            self.ebpf
                .map("BLOCK_REQUESTS")
                .filter(|_| self.has_block)
                .and_then(|map| usage::<u64, [u64; 7]>(map, "block_requests", block::REQUESTS)),
            self.block_targets_used()
                .filter(|_| self.has_block)
                .map(|used| ("block_targets", used, u64::from(block::TARGETS))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    pub(super) fn map(&mut self, name: &'static str) -> Result<&mut Map, KernelError> {
        self.ebpf.map_mut(name).ok_or_else(|| missing(name))
    }

    fn replace_cgroups(&mut self, ids: &BTreeSet<u64>) -> Result<(), KernelError> {
        const MAP: &str = "CGROUPS";
        let failed = |error| map_error(MAP, &error);
        let mut map: BpfHashMap<&mut MapData, u64, u32> = BpfHashMap::try_from(self.map(MAP)?).map_err(failed)?;
        for id in ids {
            map.insert(id, 1, 0).map_err(failed)?;
        }
        let old: Vec<u64> = map.keys().flatten().filter(|id| !ids.contains(id)).collect();
        old.iter().try_for_each(|id| map.remove(id)).map_err(failed)
    }

    fn ports(&mut self) -> Result<Array<&mut MapData, u32>, KernelError> {
        Array::try_from(self.map("PORTS")?).map_err(|error| map_error("PORTS", &error))
    }

    fn add_ports(&mut self, ports: &BTreeSet<u16>) -> Result<(), KernelError> {
        self.ports.extend(ports);
        let mut map = self.ports()?;
        ports
            .iter()
            .try_for_each(|port| map.set(u32::from(*port), PORT_CANDIDATE, 0))
            .map_err(|error| map_error("PORTS", &error))
    }

    fn replace_ports(&mut self, ports: &BTreeSet<u16>) -> Result<(), KernelError> {
        self.ports.clear();
        self.add_ports(ports)?;
        // A new map is all zeros.
        if self.generation == 1 {
            return Ok(());
        }
        let mut map = self.ports()?;
        for port in 0..=u16::MAX {
            if !ports.contains(&port) && map.get(&u32::from(port), 0).is_ok_and(|value| value != PORT_NONE) {
                map.set(u32::from(port), PORT_NONE, 0).map_err(|error| map_error("PORTS", &error))?;
            }
        }
        Ok(())
    }
}

fn load_error(error: &EbpfError) -> KernelError {
    let reason = chain(error);
    if reason.contains("(os error 1)") || reason.contains("(os error 13)") {
        KernelError::NotPermitted { reason }
    } else {
        KernelError::Load { reason }
    }
}

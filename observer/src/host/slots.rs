//! Which workload has which slot of the kernel's maps.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use observer_common::host::{Member, SeenSocket, WORKLOADS};

use super::{Measured, Snapshot, tcp::Sockets};
use crate::{
    kernel::{Kernel, KernelError, is_running},
    time::KernelTime,
};

/// All slots are taken.
#[derive(Debug, thiserror::Error)]
#[error("{WORKLOADS} workloads are measured already")]
pub struct Full;

/// One workload.
#[derive(Debug)]
struct Entry {
    /// What tells it from others, for as long as it lives.
    key: String,
    name: Arc<str>,
    since: KernelTime,
    /// When it last had a process.
    alive: KernelTime,
    /// What the slot held when it was given away.
    base: Measured,
    sockets: Sockets,
}

/// The slots.
#[derive(Debug, Default)]
pub struct Slots {
    entries: BTreeMap<u32, Entry>,
    by_key: HashMap<String, u32>,
    /// What workloads counted that are gone, while there are others of their name: a restarted container's series go on.
    gone: BTreeMap<Arc<str>, Measured>,
}

impl Slots {
    /// The slot of the workload with this key; a new one if it has none.
    ///
    /// # Errors
    /// If there is none left.
    pub fn register(
        &mut self,
        kernel: Option<&Kernel>,
        key: &str,
        name: &Arc<str>,
        now: KernelTime,
    ) -> Result<u32, Full> {
        if let Some(slot) = self.by_key.get(key) {
            return Ok(*slot);
        }
        let slot = (0..WORKLOADS).find(|slot| !self.entries.contains_key(slot)).ok_or(Full)?;
        let base = kernel.map(|kernel| Measured::read(kernel, slot)).unwrap_or_default();
        let entry = Entry {
            key: key.to_owned(),
            name: name.clone(),
            since: now,
            alive: now,
            base,
            sockets: Sockets::default(),
        };
        self.entries.insert(slot, entry);
        self.by_key.insert(key.to_owned(), slot);
        Ok(slot)
    }

    /// Connections to this port are to the language models of the workload in a slot. Whether that is new.
    ///
    /// # Errors
    /// If the kernel's map is full.
    pub fn serves_port(&mut self, kernel: Option<&mut Kernel>, slot: u32, port: u16) -> Result<bool, KernelError> {
        let Some(entry) = self.entries.get_mut(&slot) else { return Ok(false) };
        if !entry.sockets.serves(port) {
            return Ok(false);
        }
        kernel.map_or(Ok(()), |kernel| kernel.add_served_port(slot, port))?;
        Ok(true)
    }

    /// Takes in all sockets of the network namespace that the workloads in these slots are in; `None`: they could not be
    /// looked at.
    pub fn sockets(&mut self, slots: &[u32], seen: Option<&[SeenSocket]>) {
        // Where two of one namespace serve one port, which listening socket is whose cannot be told: the first's.
        let mut ports = BTreeSet::new();
        for slot in slots {
            if let Some(entry) = self.entries.get_mut(slot) {
                entry.sockets.take(*slot, seen, &mut ports);
            }
        }
    }

    /// What was seen of sockets is of no use any more: they were not looked at for a while.
    pub fn forget_sockets(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.sockets.forget());
    }

    /// Names of the workloads that have processes now.
    pub fn alive(&self, now: KernelTime) -> impl Iterator<Item = &Arc<str>> {
        self.entries.values().filter(move |entry| entry.alive == now).map(|entry| &entry.name)
    }

    /// Tells the kernel side which processes belong to a slot: `pids`, found just now. Those that it knows by their
    /// birth stay, whoever their parents are by now.
    ///
    /// # Errors
    /// If the kernel's map is full, or cannot be read.
    pub fn put_members(
        &mut self,
        kernel: &mut Kernel,
        slot: u32,
        pids: &BTreeSet<u32>,
        now: KernelTime,
    ) -> Result<(), KernelError> {
        let Some(entry) = self.entries.get_mut(&slot) else { return Ok(()) };
        let known: HashMap<u32, Member> = kernel.members()?.into_iter().collect();
        if !pids.is_empty() || known.values().any(|member| member.slot == slot) {
            entry.alive = now;
        }
        for pid in pids.iter().filter(|pid| known.get(pid).is_none_or(|member| member.slot != slot)) {
            kernel.add_member(*pid, Member { slot, padding: 0, since: entry.since.as_nanos() })?;
            // Who ended between the look and the insertion is not there to take itself out.
            if !is_running(*pid) {
                kernel.remove_member(*pid)?;
            }
        }
        Ok(())
    }

    /// Takes slots back whose workload has had no process for `ttl`: these.
    pub fn expire(&mut self, kernel: Option<&Kernel>, now: KernelTime, ttl: Duration) -> Vec<u32> {
        self.expire_as(|slot| kernel.map(|kernel| Measured::read(kernel, slot)).unwrap_or_default(), now, ttl)
    }

    fn expire_as(&mut self, read: impl Fn(u32) -> Measured, now: KernelTime, ttl: Duration) -> Vec<u32> {
        let expired = |entry: &Entry| now.saturating_since(entry.alive) > ttl;
        let slots: Vec<u32> = self.entries.iter().filter(|(_, entry)| expired(entry)).map(|(slot, _)| *slot).collect();
        for slot in &slots {
            if let Some(entry) = self.entries.remove(slot) {
                self.by_key.remove(&entry.key);
                let mut measured = entry.measured(read(*slot));
                // Of now, and not a count.
                measured.tcp.unsent = None;
                self.gone.entry(entry.name).or_default().add(&measured);
            }
        }
        self.gone.retain(|name, _| self.entries.values().any(|entry| entry.name == *name));
        slots
    }

    /// What was measured of all of them so far.
    #[must_use]
    pub fn snapshot(&self, kernel: &Kernel) -> Snapshot {
        let mut snapshot = self.snapshot_as(|slot| Measured::read(kernel, slot));
        for (_, measured) in &mut snapshot {
            measured.hide(|signal| kernel.is_shed(signal));
        }
        snapshot
    }

    fn snapshot_as(&self, read: impl Fn(u32) -> Measured) -> Snapshot {
        let mut by_name = self.gone.clone();
        for (slot, entry) in &self.entries {
            by_name.entry(entry.name.clone()).or_default().add(&entry.measured(read(*slot)));
        }
        by_name.into_iter().collect()
    }
}

impl Entry {
    /// What of its slot's content is its own.
    fn measured(&self, mut slot: Measured) -> Measured {
        slot.subtract(&self.base);
        self.sockets.tell(&mut slot.tcp);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{SchedulerStats, Tcp};

    fn at(seconds: u64) -> KernelTime {
        KernelTime::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn slots_are_given_once_taken_back_and_bounded() {
        let mut slots = Slots::default();
        let name: Arc<str> = "vllm:8000".into();
        let first = slots.register(None, "a", &name, at(1)).expect("empty");
        assert_eq!(slots.register(None, "a", &name, at(2)).expect("the same"), first);
        for index in 1..WORKLOADS {
            slots.register(None, &index.to_string(), &name, at(5)).expect("room");
        }
        assert!(slots.register(None, "one too many", &name, at(5)).is_err());
        assert!(slots.expire(None, at(11), Duration::from_secs(10)).is_empty());
        assert!(slots.register(None, "one too many", &name, at(12)).is_err(), "nobody is gone for long enough");
        assert_eq!(slots.expire(None, at(12), Duration::from_secs(10)), [first]);
        assert_eq!(slots.register(None, "another", &name, at(12)).expect("a slot came back"), first);
    }

    /// A restarted container has a slot of its own and the same name: what both counted never becomes less.
    #[test]
    fn what_is_gone_still_counts_while_its_name_lives() {
        let mut slots = Slots::default();
        let name: Arc<str> = "chat".into();
        slots.register(None, "before", &name, at(1)).expect("room");
        let after = slots.register(None, "after", &name, at(2)).expect("room");
        let read = |slot: u32| {
            let scheduler = SchedulerStats { on_cpu: 100 + u64::from(slot), ..SchedulerStats::default() };
            let tcp = Tcp { retransmits: Some(7), unsent: Some(5), ..Tcp::default() };
            Measured { scheduler: Some(scheduler), tcp, ..Measured::default() }
        };
        let counted = |slots: &Slots| {
            let snapshot = slots.snapshot_as(read);
            let found = snapshot.first().map(|(_, measured)| (measured.scheduler, measured.tcp.retransmits));
            found.map(|(scheduler, retransmits)| (scheduler.expect("measured").on_cpu, retransmits))
        };
        assert_eq!(counted(&slots), Some((201, Some(14))));
        slots.entries.get_mut(&after).expect("it lives").alive = at(30);
        assert_eq!(slots.expire_as(read, at(31), Duration::from_secs(10)).len(), 1);
        assert_eq!(counted(&slots), Some((201, Some(14))));
        assert_eq!(slots.gone["chat"].tcp.unsent, None);
        assert_eq!(slots.expire_as(read, at(60), Duration::from_secs(10)).len(), 1);
        assert_eq!(counted(&slots), None, "with the last of its name the series go");
    }
}

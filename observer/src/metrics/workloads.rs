//! What the names of workloads stand for: `workload_info`.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hashbrown::HashMap;
use prometheus::proto::MetricFamily;

use super::{
    families::host::INFO,
    registry::{Workload, family_of, sample},
};
use crate::workload::{Identity, Key};

/// Most workloads known at a time. Who makes and ends containers without end gets no more than so many.
const MOST: usize = 1024;

/// A workload that served, and when.
#[derive(Debug)]
struct Known {
    identity: Arc<Identity>,
    life: Workload,
}

/// All workloads that served requests to language models of late.
#[derive(Debug)]
pub(super) struct Workloads {
    known: Mutex<HashMap<Key, Arc<Known>>>,
    ttl: Duration,
}

impl Workloads {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { known: Mutex::default(), ttl }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a workload serves, in place of what was known of it.
    fn admit(&self, identity: &Arc<Identity>, now: Duration) -> Option<Arc<Known>> {
        let mut known = self.lock();
        if known.len() >= MOST && !known.contains_key(&identity.key) {
            return None;
        }
        let fresh = Arc::new(Known { identity: Arc::clone(identity), life: Workload::new(now) });
        known.insert(identity.key.clone(), Arc::clone(&fresh));
        Some(fresh)
    }

    /// Notes that a workload is in use, if it has served.
    pub(super) fn touch(&self, key: &Key, now: Duration) {
        if let Some(known) = self.lock().get(key) {
            // The dead leave under this lock.
            let _alive = known.life.touch(now);
        }
    }

    /// Forgets those that were not used for the time to live.
    pub(super) fn sweep(&self, now: Duration) {
        self.lock().retain(|_, known| !known.life.expire(now, self.ttl));
    }

    /// `workload_info`. What has the same labels is one: a process and the one that it replaced.
    pub(super) fn collect(&self) -> MetricFamily {
        let rows: BTreeSet<[Box<str>; 6]> = self
            .lock()
            .values()
            .map(|known| {
                let Identity { name, container_id, cgroup, unit, command, pod_uid, .. } = &*known.identity;
                let or_none = |value: &Option<Box<str>>| value.clone().unwrap_or_default();
                [
                    (**name).into(),
                    or_none(container_id),
                    cgroup.clone(),
                    or_none(unit),
                    command.clone(),
                    or_none(pod_uid),
                ]
            })
            .collect();
        family_of(&INFO, rows.iter().map(|row| sample(&INFO, row, 1.0)).collect())
    }
}

/// What one thread knows of them: so that the lock is taken once for each.
#[derive(Debug, Default)]
pub(super) struct Used(HashMap<Key, Arc<Known>>);

impl Used {
    /// Notes that a workload served a request.
    pub(super) fn used(&mut self, workloads: &Workloads, identity: &Arc<Identity>, now: Duration) {
        if let Some(known) = self.0.get(&identity.key)
            && Arc::ptr_eq(&known.identity, identity)
            && known.life.touch(now)
        {
            return;
        }
        if self.0.len() >= MOST {
            self.0.clear();
        }
        if let Some(known) = workloads.admit(identity, now) {
            self.0.insert(identity.key.clone(), known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(600);

    fn rows(workloads: &Workloads) -> Vec<String> {
        let labels = |metric: &prometheus::proto::Metric| {
            let pairs = metric.get_label().iter().filter(|pair| !pair.value().is_empty());
            pairs.map(|pair| format!("{}={}", pair.name(), pair.value())).collect::<Vec<_>>().join(" ")
        };
        workloads.collect().get_metric().iter().map(labels).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn each_goes_by_itself_even_where_the_name_stays() {
        let (workloads, mut used) = (Workloads::new(TTL), Used::default());
        let [old, new] = [(1, "serve a"), (2, "serve b")].map(|(pid, command)| {
            let identity = Identity::example(pid, "vllm:8000", command);
            Arc::new(identity)
        });
        assert!(rows(&workloads).is_empty());
        used.used(&workloads, &old, at(0));
        used.used(&workloads, &new, at(300));
        let [first, second] = ["a", "b"].map(|name| format!("workload=vllm:8000 cgroup=/ command=serve {name}"));
        assert_eq!(rows(&workloads), [first.clone(), second.clone()]);
        workloads.sweep(at(600));
        assert_eq!(rows(&workloads).len(), 2);
        // An open connection keeps a workload, and makes none.
        workloads.touch(&new.key, at(400));
        workloads.touch(&Key::Container("x".into()), at(400));
        workloads.sweep(at(601));
        assert_eq!(rows(&workloads), std::slice::from_ref(&second));
        workloads.sweep(at(1000));
        assert_eq!(rows(&workloads), [second]);
        workloads.sweep(at(1001));
        assert!(rows(&workloads).is_empty());
        // It is back with its next request, though the thread still knows the one that went.
        used.used(&workloads, &old, at(1002));
        assert_eq!(rows(&workloads), [first]);
    }

    #[test]
    fn equal_labels_are_one_series_and_a_new_command_replaces_the_old_one() {
        let (workloads, mut used) = (Workloads::new(TTL), Used::default());
        for pid in [1, 2] {
            used.used(&workloads, &Arc::new(Identity::example(pid, "a:1", "a")), at(0));
        }
        assert_eq!(rows(&workloads), ["workload=a:1 cgroup=/ command=a"]);
        used.used(&workloads, &Arc::new(Identity::example(1, "b:1", "b")), at(1));
        used.used(&workloads, &Arc::new(Identity::example(2, "b:1", "b")), at(1));
        assert_eq!(rows(&workloads), ["workload=b:1 cgroup=/ command=b"]);
    }

    #[test]
    fn memory_is_bounded() {
        let (workloads, mut used) = (Workloads::new(TTL), Used::default());
        for pid in 0..2 * u32::try_from(MOST).expect("small") {
            used.used(&workloads, &Arc::new(Identity::example(pid, &pid.to_string(), "x")), at(0));
        }
        assert!(used.0.len() <= MOST);
        assert_eq!(rows(&workloads).len(), MOST);
    }
}

//! Names of the servers behind connections.

use std::{fs, sync::Arc, time::Duration};

use hashbrown::HashMap;

use crate::{
    event::Open,
    request::tracker::{ConnectionNames, NameResolver},
    time::KernelTime,
};

/// A process keeps its name for this long without another look: a program can replace itself.
const FRESH: Duration = Duration::from_secs(10);
/// Processes remembered.
const PROCESSES: usize = 4096;

/// Names by `/proc`: the program's name of the process, not of the thread that made the call.
#[derive(Debug, Default)]
pub(super) struct ProcessNames {
    /// Process ids are those of `/proc` here; else a number there is another process.
    host_pids: bool,
    programs: HashMap<u32, (KernelTime, Arc<str>)>,
    workloads: HashMap<(Arc<str>, Option<u16>), Arc<str>>,
}

impl ProcessNames {
    /// `host_pids`: whether this process is in the host's PID namespace.
    pub(super) fn new(host_pids: bool) -> Self {
        Self { host_pids, ..Self::default() }
    }

    fn program(&mut self, open: &Open) -> Arc<str> {
        if !self.host_pids {
            return open.comm.as_str().into();
        }
        if let Some((seen, name)) = self.programs.get(&open.pid)
            && open.time.saturating_since(*seen) < FRESH
        {
            return name.clone();
        }
        let name: Arc<str> = fs::read_to_string(format!("/proc/{}/comm", open.pid))
            .map_or_else(|_| open.comm.as_str().into(), |name| name.trim_end().into());
        if self.programs.len() >= PROCESSES {
            self.programs.clear();
        }
        self.programs.insert(open.pid, (open.time, name.clone()));
        name
    }
}

impl NameResolver for ProcessNames {
    fn names(&mut self, open: &Open) -> ConnectionNames {
        let comm = self.program(open);
        let port = open.server.map(|address| address.port());
        if self.workloads.len() >= PROCESSES {
            self.workloads.clear();
        }
        let workload = self.workloads.entry((comm.clone(), port)).or_insert_with(|| match port {
            Some(port) => format!("{comm}:{port}").into(),
            None => format!("{comm}:unix").into(),
        });
        ConnectionNames { workload: workload.clone(), comm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cookie;

    #[test]
    fn the_process_is_named_and_not_the_thread() {
        let open = Open {
            cookie: Cookie(1),
            time: KernelTime::from_nanos(1),
            established: None,
            pid: std::process::id(),
            server: Some(([127, 0, 0, 1], 8000).into()),
            client: None,
            cgroup: 0,
            send_sequence: None,
            receive_sequence: None,
            comm: "some-thread".into(),
            late: false,
            mid_request: false,
            opaque: None,
        };
        let own = fs::read_to_string("/proc/self/comm").expect("mounted").trim_end().to_owned();
        let names = ProcessNames::new(true).names(&open);
        assert_eq!(*names.comm, *own);
        assert_eq!(*names.workload, format!("{own}:8000"));
        assert_eq!(&*ProcessNames::new(false).names(&open).comm, "some-thread");
        // A process that is gone has only the name that the event carries.
        let gone = Open { pid: u32::MAX, server: None, ..open };
        assert_eq!(&*ProcessNames::new(true).names(&gone).workload, "some-thread:unix");
    }
}

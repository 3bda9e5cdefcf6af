//! Names of the servers behind connections.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::{
    event::Open,
    request::{
        record::ConnectionInfo,
        tracker::{ConnectionNames, NameResolver},
    },
    workload::{Key, Places, Resolver},
};

/// Names and workloads remembered.
const MOST: usize = 4096;

/// Names by what processes belong to; where that cannot be seen, by what the event says.
#[derive(Debug, Default)]
pub(super) struct ProcessNames {
    /// `None`: there is no `/proc` of the host here. A number in another is another process.
    resolver: Option<Resolver>,
    by_event: HashMap<(Arc<str>, Option<u16>), Arc<str>>,
    serving: HashSet<Key>,
}

impl ProcessNames {
    /// `places`: where processes of the host are found.
    pub(super) fn new(places: Option<Places>) -> Self {
        Self { resolver: places.map(Resolver::new), ..Self::default() }
    }

    /// A server read a request to a language model on this connection.
    pub(super) fn serves(&mut self, connection: &ConnectionInfo) {
        let Some(resolver) = &mut self.resolver else { return };
        resolver.serves(connection.pid);
        let Some(identity) = &connection.identity else { return };
        if self.serving.contains(&identity.key) {
            return;
        }
        if self.serving.len() >= MOST {
            self.serving.clear();
        }
        self.serving.insert(identity.key.clone());
        tracing::debug!("workload {} serves requests to language models: {}", identity.name, identity.key);
    }
}

impl NameResolver for ProcessNames {
    fn names(&mut self, open: &Open) -> ConnectionNames {
        let port = open.server.map(|address| address.port());
        if let Some(resolver) = &mut self.resolver
            && let Some((identity, comm)) = resolver.resolve(open.pid, port, open.time)
        {
            return ConnectionNames { comm, workload: identity.name.clone(), identity: Some(identity) };
        }
        let comm: Arc<str> = open.comm.as_str().into();
        if self.by_event.len() >= MOST {
            self.by_event.clear();
        }
        let workload = self.by_event.entry((comm.clone(), port)).or_insert_with(|| match port {
            Some(port) => format!("{comm}:{port}").into(),
            None => format!("{comm}:unix").into(),
        });
        ConnectionNames { workload: workload.clone(), comm, identity: None }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{event::Cookie, time::KernelTime};

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
        let of_host = || ProcessNames::new(Some(Places::new(Path::new("/proc"), Path::new("/"))));
        let own = fs::read_to_string("/proc/self/comm").expect("mounted").trim_end().to_owned();
        let names = of_host().names(&open);
        assert_eq!(*names.comm, *own);
        let identity = names.identity.expect("it runs");
        assert_eq!(identity.name, names.workload);
        if matches!(identity.key, Key::Tree { .. }) {
            assert!(names.workload.starts_with(&format!("{own}:")), "{}", names.workload);
        }
        assert_eq!(&*ProcessNames::new(None).names(&open).comm, "some-thread");
        // A process that is gone has only the name that the event carries.
        let gone = Open { pid: u32::MAX, server: None, ..open };
        assert_eq!(&*of_host().names(&gone).workload, "some-thread:unix");
    }
}

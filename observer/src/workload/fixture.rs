//! A directory for one test, and a `/proc` made of plain files in it.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Identity, Key};

/// Id of a container.
pub(super) const ID: &str = "3f7a0c9be1d24c5f8a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b";

impl Identity {
    /// A process tree of this name.
    pub(crate) fn example(pid: u32, name: &str, command: &str) -> Self {
        Self {
            key: Key::Tree { pid, start: 1 },
            name: name.into(),
            container_id: None,
            cgroup: "/".into(),
            hierarchy: "".into(),
            unit: None,
            command: command.into(),
            pod_uid: None,
            program: "program".into(),
        }
    }
}

/// A directory that goes with its owner.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("observer-workload-{}-{number}", process::id()));
        fs::create_dir_all(&path).expect("a writable directory for temporary files");
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("below the directory")).expect("writable");
        fs::write(path, text).expect("writable");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A process of a made-up `/proc`.
#[derive(Clone)]
pub(super) struct Fake {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) start: u64,
    pub(super) comm: &'static str,
    pub(super) program: &'static str,
    pub(super) command: &'static str,
    pub(super) cgroup: String,
    /// Listening sockets that it holds: inode and port.
    pub(super) listens: Vec<(u64, u16)>,
}

impl Fake {
    pub(super) fn new(pid: u32, parent: u32, comm: &'static str) -> Self {
        Self {
            pid,
            parent,
            group: pid,
            start: u64::from(pid) * 10,
            comm,
            program: comm,
            command: comm,
            cgroup: "/".to_owned(),
            listens: Vec::new(),
        }
    }

    pub(super) fn listening(self, inode: u64, port: u16) -> Self {
        Self { listens: [self.listens, vec![(inode, port)]].concat(), ..self }
    }

    pub(super) fn running(self, program: &'static str, command: &'static str) -> Self {
        Self { program, command, ..self }
    }

    pub(super) fn in_cgroup(self, path: &str) -> Self {
        Self { cgroup: path.replace("ID", ID), ..self }
    }
}

impl Scratch {
    /// Makes `proc` anew, of these processes. All share a network namespace.
    pub(super) fn processes(&self, processes: &[Fake]) -> PathBuf {
        let root = self.path().join("proc");
        drop(fs::remove_dir_all(&root));
        let mut table =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
                .to_owned();
        let mut sockets: Vec<_> = processes.iter().flat_map(|process| process.listens.clone()).collect();
        sockets.sort_unstable();
        sockets.dedup();
        let mut line = |inode: u64, port: u16, state: &str| {
            let tail = format!("00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0 0 10 0");
            let _ = writeln!(table, "   0: 0100007F:{port:04X} 00000000:0000 {state} {tail}");
        };
        sockets.iter().for_each(|(inode, port)| line(*inode, *port, "0A"));
        // A connection; behind it nothing is read.
        line(999_999, 8000, "01");
        line(999_998, 7, "0A");
        for process in processes {
            let Fake { pid, parent, group, start, comm, .. } = process;
            let file = |name: &str| format!("proc/{pid}/{name}");
            let zeros = "0 ".repeat(15);
            self.write(&file("stat"), &format!("{pid} ({comm}) S {parent} {group} {pid} {zeros}{start} 0 0\n"));
            self.write(&file("cmdline"), &format!("{}\0", process.command.replace(' ', "\0")));
            self.write(&file("cgroup"), &format!("1:name=systemd:{0}\n0::{0}\n", process.cgroup));
            self.write(&file("status"), &format!("Name:\t{comm}\nUid:\t1000\t1000\t1000\t1000\n"));
            self.write(&file("net/tcp"), &table);
            self.write(&file("net/tcp6"), "  sl\n");
            symlink(process.program, root.join(pid.to_string()).join("exe")).expect("writable");
            fs::create_dir_all(root.join(pid.to_string()).join("fd")).expect("writable");
            for (number, (inode, _)) in process.listens.iter().enumerate() {
                let link = root.join(pid.to_string()).join("fd").join((number + 3).to_string());
                symlink(format!("socket:[{inode}]"), link).expect("writable");
            }
        }
        root
    }
}

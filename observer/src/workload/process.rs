//! Small bounded reads of `/proc/PID`, below a root of choice.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Most bytes read of a file about a process.
const MOST_BYTES: u64 = 64 * 1024;
/// Most descriptors of one process looked at. Those of listening sockets are made early and have low numbers.
const MOST_DESCRIPTORS: usize = 1024;
/// Most listening sockets of one network namespace.
const MOST_LISTENERS: usize = 4096;

/// What `/proc/PID/stat` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stat {
    pub(super) comm: Arc<str>,
    pub(super) parent: u32,
    pub(super) group: u32,
    /// Clock ticks from the host's boot to its start: with its id, the process's identity.
    pub(super) start: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name may hold anything, parentheses too.
        let (before, after) = (text.find('(')?, text.rfind(')')?);
        let fields: Vec<&str> = text.get(after + 1..)?.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            comm: text.get(before + 1..after)?.into(),
            parent: u32::try_from(number(1)?).ok()?,
            group: u32::try_from(number(2)?).ok()?,
            start: number(19)?,
        })
    }
}

/// A `/proc` whose ids are the host's.
#[derive(Clone, Debug)]
pub(super) struct Proc(PathBuf);

impl Proc {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    pub(super) fn file(&self, pid: u32, name: &str) -> PathBuf {
        self.0.join(format!("{pid}/{name}"))
    }

    fn text(&self, pid: u32, name: &str) -> Option<String> {
        read_text(&self.file(pid, name), MOST_BYTES)
    }

    pub(super) fn stat(&self, pid: u32) -> Option<Stat> {
        Stat::parse(&self.text(pid, "stat")?)
    }

    /// The text of its `cgroup` file.
    pub(super) fn cgroup(&self, pid: u32) -> Option<String> {
        self.text(pid, "cgroup")
    }

    /// The words of its command line.
    pub(super) fn command_line(&self, pid: u32) -> Vec<String> {
        let text = self.text(pid, "cmdline").unwrap_or_default();
        text.trim_end_matches('\0').split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// The file that it runs.
    pub(super) fn program(&self, pid: u32) -> Option<PathBuf> {
        fs::read_link(self.file(pid, "exe")).ok()
    }

    /// Who it runs as, in the host's numbers.
    pub(super) fn uid(&self, pid: u32) -> Option<u32> {
        let status = self.text(pid, "status")?;
        status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse().ok())
    }

    /// All processes.
    pub(super) fn all(&self) -> impl Iterator<Item = u32> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    /// Socket inode to port of the listening TCP sockets in a process's network namespace.
    pub(super) fn listeners(&self, pid: u32) -> BTreeMap<u64, u16> {
        let mut found = BTreeMap::new();
        for table in ["net/tcp", "net/tcp6"] {
            let Ok(file) = File::open(self.file(pid, table)) else { continue };
            // The kernel lists listening sockets first: of a busy server's connections nothing is read.
            let lines = BufReader::with_capacity(4096, file).lines().skip(1).map_while(Result::ok);
            found.extend(lines.map_while(|line| listener(&line)).take(MOST_LISTENERS));
        }
        found
    }

    /// Ports of those `listeners` that it holds itself, by inode.
    pub(super) fn held(&self, pid: u32, listeners: &BTreeMap<u64, u16>) -> BTreeMap<u64, u16> {
        if listeners.is_empty() {
            return BTreeMap::new();
        }
        let descriptors = fs::read_dir(self.file(pid, "fd")).into_iter().flatten().flatten();
        descriptors
            .take(MOST_DESCRIPTORS)
            .filter_map(|descriptor| {
                let target = fs::read_link(descriptor.path()).ok()?;
                let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
                Some((inode, *listeners.get(&inode)?))
            })
            .collect()
    }
}

/// Inode and port of a line of `/proc/PID/net/tcp`, if it is of a listening socket.
fn listener(line: &str) -> Option<(u64, u16)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (local, state) = (fields.nth(1)?, fields.nth(1)?);
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    (state == LISTEN).then_some((inode, port))
}

/// A file's text, if it has at most `most` bytes; what is no UTF-8 is replaced.
pub(super) fn read_text(path: &Path, most: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "42 (a) b (c) S 7 41 41 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 987654 1 2";
        let stat = Stat::parse(text).expect("a line of stat");
        assert_eq!((&*stat.comm, stat.parent, stat.group, stat.start), ("a) b (c", 7, 41, 987_654));
        assert_eq!(Stat::parse("42 (x) S 7"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn own_listeners_are_found_with_their_holder() {
        let sockets = ["127.0.0.1:0", "[::1]:0"].map(|address| std::net::TcpListener::bind(address).expect("loopback"));
        let (proc, own) = (Proc::new(Path::new("/proc")), std::process::id());
        let listeners = proc.listeners(own);
        let held: Vec<u16> = proc.held(own, &listeners).into_values().collect();
        for socket in &sockets {
            let port = socket.local_addr().expect("bound").port();
            assert!(listeners.values().any(|known| *known == port) && held.contains(&port), "{port}");
        }
        assert!(
            !proc.held(std::os::unix::process::parent_id(), &listeners).into_values().any(|port| held.contains(&port))
        );
        assert_eq!(proc.stat(own).expect("it runs").parent, std::os::unix::process::parent_id());
        assert!(proc.all().any(|pid| pid == own));
    }

    #[test]
    fn large_files_are_not_read() {
        assert_eq!(read_text(Path::new("/dev/zero"), 100), None);
        assert!(read_text(Path::new("/proc/self/stat"), 4096).is_some());
    }
}

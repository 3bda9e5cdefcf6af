//! Two network namespaces with a cable between them: what is done to packets there happens to nobody else.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use crate::{process::Process, require};

/// One of the two.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// Its end of the cable.
    pub address: Ipv4Addr,
}

/// A server's and a client's; removed with their owner.
#[derive(Debug)]
pub struct Cable {
    /// Where servers are.
    pub server: Namespace,
    /// Where clients are.
    pub client: Namespace,
}

/// Runs a command that must succeed, and returns what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("running {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ip(arguments: &[&str]) -> String {
    run(Command::new(require::tool("ip").expect("required")).args(arguments))
}

impl Namespace {
    fn new(name: String, address: Ipv4Addr) -> Self {
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self { name, address }
    }

    /// The file that stands for it.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that runs in it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(require::tool("ip").expect("required"));
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// What a command printed that ran in it and must succeed.
    #[must_use]
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        run(self.command(require::tool(program).expect("required")).args(arguments))
    }

    /// Starts a program in it.
    #[must_use]
    pub fn spawn(&self, name: &str, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Process {
        let mut command = self.command(program);
        command.args(arguments);
        Process::spawn(name, command)
    }

    /// Does something in a thread that is in it; sockets made there stay there.
    ///
    /// # Panics
    /// If it cannot be entered, or `work` panics.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.file()).expect("it was made");
        thread::scope(|scope| {
            let enter = || {
                // SAFETY: an open descriptor, and no pointers.
                let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "entering {}: {}", self.name, io::Error::last_os_error());
                work()
            };
            scope.spawn(enter).join().expect("the thread in the namespace")
        })
    }

    /// Sets one of its own sysctls.
    pub fn sysctl(&self, name: &str, value: &str) {
        self.within(|| {
            std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
                .unwrap_or_else(|error| panic!("setting {name}: {error}"));
        });
    }

    /// One of its SNMP counters, by `nstat`'s name, from its beginning.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        let text = self.output("nstat", &["-a", "-z", "-s", name]);
        let mut fields = text.lines().find(|line| line.starts_with(name)).expect("a known name").split_whitespace();
        fields.nth(1).and_then(|text| text.parse().ok()).expect("a number")
    }

    /// Connections from this port of it, as `ss` tells.
    #[must_use]
    pub fn connections(&self, port: u16) -> Vec<Ss> {
        let text = self.output("ss", &["-tinOH", "sport", "=", &format!(":{port}")]);
        text.lines().map(Ss::parse).collect()
    }
}

/// What `ss -ti` says of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ss {
    /// Smoothed round-trip time, in microseconds.
    pub rtt: u64,
    /// Segments sent again, in all.
    pub retransmits: u64,
    /// Bytes written and not sent.
    pub unsent: u64,
    /// The peer's window; `None`: this `ss` does not say.
    pub window: Option<u64>,
}

impl Ss {
    fn parse(line: &str) -> Self {
        let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
        let number = |key: &str| value(key).and_then(|text| text.parse().ok());
        let milliseconds = value("rtt:").and_then(|text| text.split('/').next()?.parse::<f64>().ok());
        Self {
            rtt: milliseconds.map_or(0, |rtt| (rtt * 1000.0).round() as u64),
            retransmits: value("retrans:").and_then(|text| text.split('/').nth(1)?.parse().ok()).unwrap_or(0),
            unsent: number("notsent:").unwrap_or(0),
            window: number("snd_wnd:"),
        }
    }
}

impl Cable {
    /// New ones, of this process.
    ///
    /// # Panics
    /// If they cannot be made.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Nobody else sees these addresses: both ends of the cable are in namespaces of the test's own.
        let server = Namespace::new(format!("observer-e2e-s{id}"), Ipv4Addr::new(10, 231, 0, 1));
        let client = Namespace::new(format!("observer-e2e-c{id}"), Ipv4Addr::new(10, 231, 0, 2));
        let cable = Self { server, client };
        let (s, c) = (&cable.server.name, &cable.client.name);
        ip(&["-n", s, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", c]);
        for end in [&cable.server, &cable.client] {
            ip(&["-n", &end.name, "address", "add", &format!("{}/24", end.address), "dev", "cable"]);
            ip(&["-n", &end.name, "link", "set", "cable", "up"]);
        }
        cable
    }

    /// The server's end, with a port.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.server.address, port).into()
    }
}

impl Default for Cable {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for end in [&self.server, &self.client] {
            let gone = Command::new(require::tool("ip").expect("required")).args(["netns", "del", &end.name]).status();
            if !gone.is_ok_and(|status| status.success()) {
                println!("{} could not be removed", end.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ss_prints() {
        let line = "ESTAB 0 5 10.0.0.1:80 10.0.0.2:9 cubic wscale:7,7 rto:204 rtt:40.123/0.02 mss:1448 snd_wnd:64256 \
                    retrans:0/12 lastsnd:4 notsent:77 minrtt:0.02";
        assert_eq!(Ss::parse(line), Ss { rtt: 40_123, retransmits: 12, unsent: 77, window: Some(64_256) });
    }
}

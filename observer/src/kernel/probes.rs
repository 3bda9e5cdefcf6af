//! The one table of probes, and how it is told what became of each.

use serde::Serialize;

use super::{signal::Signal, socket_hook::Tried};
use crate::config::SocketHook;

/// How a program is hooked in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// A tracepoint with typed arguments (`tp_btf`): no tracefs, no perf event, no trampoline.
    BtfTracepoint,
    /// Runs over all objects of a kind, when user space reads.
    Iterator,
    /// At the beginning of a function of the kernel, by a trampoline.
    Fentry,
    /// At its end.
    Fexit,
}

impl Mechanism {
    /// Its value of the `mechanism` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BtfTracepoint => "btf_tracepoint",
            Self::Iterator => "iterator",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
        }
    }

    /// Whether the kernel must write a trampoline into one of its functions for it.
    #[must_use]
    pub const fn is_trampoline(self) -> bool {
        matches!(self, Self::Fentry | Self::Fexit)
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its name for people and labels.
    pub name: &'static str,
    /// Its program in the BPF object.
    pub program: &'static str,
    /// How it is hooked in.
    pub mechanism: Mechanism,
    /// What it is hooked to.
    pub target: &'static str,
    /// The first kernel release that has it.
    pub since: &'static str,
    /// What it is for: what is missing without it.
    pub intent: &'static str,
    /// Nothing can be measured without it.
    pub required: bool,
    /// The signal that it is for; `None`: requests, or the scope.
    pub signal: Option<Signal>,
    /// When it is tried at all.
    pub tried: Tried,
}

/// Every probe. No program is attached anywhere else.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "socket_send",
        program: "obs_sock_send",
        mechanism: Mechanism::BtfTracepoint,
        target: "sock_send_length",
        since: "6.3",
        intent: RESPONSES,
        required: true,
        signal: None,
        tried: Tried::With(SocketHook::Tracepoint),
    },
    Probe {
        name: "socket_receive",
        program: "obs_sock_recv",
        mechanism: Mechanism::BtfTracepoint,
        target: "sock_recv_length",
        since: "6.3",
        intent: REQUESTS,
        required: true,
        signal: None,
        tried: Tried::With(SocketHook::Tracepoint),
    },
    Probe::of_sockets("tcp_send", "obs_tcp_send", "tcp_sendmsg", RESPONSES, true),
    Probe::of_sockets("tcp_receive", "obs_tcp_recv", "tcp_recvmsg", REQUESTS, true),
    Probe::of_sockets("unix_send", "obs_unix_send", "unix_stream_sendmsg", UNIX_SOCKETS, false),
    Probe::of_sockets("unix_receive", "obs_unix_recv", "unix_stream_recvmsg", UNIX_SOCKETS, false),
    Probe { since: "5.6", ..Probe::of_sockets("mptcp_receive", "obs_mptcp_recv", "mptcp_recvmsg", MPTCP, false) },
    Probe {
        name: "socket_syscall",
        program: "obs_sock_exit",
        mechanism: Mechanism::BtfTracepoint,
        target: "sys_exit",
        since: "4.17",
        intent: "requests and responses",
        required: true,
        signal: None,
        tried: Tried::With(SocketHook::SysExit),
    },
    Probe {
        name: "socket_state",
        program: "obs_sock_state",
        mechanism: Mechanism::BtfTracepoint,
        target: "inet_sock_set_state",
        since: "4.16",
        intent: "cancellations, truncation, new listening ports, arrival of a connection's first request",
        required: false,
        signal: None,
        tried: Tried::Always,
    },
    Probe {
        name: "data_ready",
        program: "obs_data_ready",
        mechanism: Mechanism::BtfTracepoint,
        target: "sk_data_ready",
        since: "6.2",
        intent: ARRIVALS,
        required: false,
        signal: None,
        tried: Tried::Always,
    },
    Probe {
        name: "data_ready_function",
        program: "obs_readable",
        mechanism: Mechanism::Fentry,
        target: "sock_def_readable",
        since: "2.6",
        intent: ARRIVALS,
        required: false,
        signal: None,
        tried: Tried::Without("data_ready"),
    },
    Probe {
        name: "process_fork",
        program: "obs_fork",
        mechanism: Mechanism::BtfTracepoint,
        target: "sched_process_fork",
        since: "2.6",
        intent: "new processes of workloads, and of the pid scope",
        required: false,
        signal: None,
        tried: Tried::Always,
    },
    Probe {
        name: "process_exit",
        program: "obs_exit",
        mechanism: Mechanism::BtfTracepoint,
        target: "sched_process_exit",
        since: "2.6",
        intent: "ended processes leave their workload and the pid scope",
        required: false,
        signal: None,
        tried: Tried::Always,
    },
    Probe {
        name: "scheduler_switch",
        program: "obs_switch",
        mechanism: Mechanism::BtfTracepoint,
        target: "sched_switch",
        since: "5.14",
        intent: "run-queue latency, CPU time and page faults of workloads",
        required: false,
        signal: Some(Signal::Scheduler),
        tried: Tried::Always,
    },
    Probe {
        name: "tcp_retransmit",
        program: "obs_retransmit",
        mechanism: Mechanism::BtfTracepoint,
        target: "tcp_retransmit_skb",
        since: "4.15",
        intent: "retransmits of workloads' connections",
        required: false,
        signal: Some(Signal::Tcp),
        tried: Tried::Always,
    },
    Probe {
        name: "tcp_sockets",
        program: "obs_tcp_sockets",
        mechanism: Mechanism::Iterator,
        target: "tcp",
        since: "5.9",
        intent: "unsent bytes and listen-queue overflows of workloads",
        required: false,
        signal: Some(Signal::Tcp),
        tried: Tried::Always,
    },
    // The kernel's own functions before system calls: what comes later is tried if what comes earlier fails.
    Probe::at_function("file_read", "obs_read_end", Mechanism::Fexit, "vfs_read", READS),
    Probe::at_function("file_write", "obs_write_end", Mechanism::Fexit, "vfs_write", WRITES),
    Probe::at_function("file_readv", "obs_readv_end", Mechanism::Fexit, "vfs_readv", READS),
    Probe::at_function("file_writev", "obs_writev_end", Mechanism::Fexit, "vfs_writev", WRITES),
    Probe::at_function("file_read_begin", "obs_read_begin", Mechanism::Fentry, "vfs_read", TIMES),
    Probe::at_function("file_write_begin", "obs_write_begin", Mechanism::Fentry, "vfs_write", TIMES),
    Probe::at_function("file_readv_begin", "obs_readv_begin", Mechanism::Fentry, "vfs_readv", TIMES),
    Probe::at_function("file_writev_begin", "obs_writev_begin", Mechanism::Fentry, "vfs_writev", TIMES),
    Probe {
        name: "syscall_enter",
        program: "obs_sys_enter",
        mechanism: Mechanism::BtfTracepoint,
        target: "sys_enter",
        since: "4.17",
        intent: TIMES,
        required: false,
        signal: Some(Signal::Io),
        tried: Tried::Always,
    },
    Probe {
        name: "syscall_exit",
        program: "obs_sys_exit",
        mechanism: Mechanism::BtfTracepoint,
        target: "sys_exit",
        since: "4.17",
        intent: "reads and writes of workloads: files and pipes",
        required: false,
        signal: Some(Signal::Io),
        tried: Tried::Always,
    },
    Probe {
        name: "page_cache_fill",
        program: "obs_page_fill",
        mechanism: Mechanism::BtfTracepoint,
        target: "mm_filemap_add_to_page_cache",
        since: "5.18",
        intent: "what comes into the page cache for workloads, weights among it",
        required: false,
        signal: Some(Signal::PageCache),
        tried: Tried::Always,
    },
    Probe {
        name: "block_start",
        program: "obs_block_start",
        mechanism: Mechanism::BtfTracepoint,
        target: "block_io_start",
        since: "6.5",
        intent: "block I/O of workloads: whose a request is",
        required: false,
        signal: Some(Signal::Block),
        tried: Tried::Always,
    },
    Probe {
        name: "block_issue",
        program: "obs_block_issue",
        mechanism: Mechanism::BtfTracepoint,
        target: "block_rq_issue",
        since: "5.11",
        intent: "block I/O of workloads: queue time apart from device time",
        required: false,
        signal: Some(Signal::Block),
        tried: Tried::Always,
    },
    Probe {
        name: "block_merge",
        program: "obs_block_merge",
        mechanism: Mechanism::BtfTracepoint,
        target: "block_rq_merge",
        since: "5.11",
        intent: "block I/O of workloads: requests that become part of others",
        required: false,
        signal: Some(Signal::Block),
        tried: Tried::Always,
    },
    Probe {
        name: "block_complete",
        program: "obs_block_done",
        mechanism: Mechanism::BtfTracepoint,
        target: "block_rq_complete",
        since: "4.16",
        intent: "block I/O of workloads: bytes and times",
        required: false,
        signal: Some(Signal::Block),
        tried: Tried::Always,
    },
];

const RESPONSES: &str = "responses: every token's time";
const REQUESTS: &str = "requests";
const UNIX_SOCKETS: &str = "requests and responses over Unix sockets";
const MPTCP: &str = "that connections of Multipath TCP are counted";
const ARRIVALS: &str = "arrival times: queueing before the server reads";
const READS: &str = "reads of workloads: files and pipes";
const WRITES: &str = "writes of workloads: files and pipes";
const TIMES: &str = "how long reads and writes of workloads take";

impl Probe {
    /// A row for a function of the kernel that reads or writes a file.
    const fn at_function(
        name: &'static str,
        program: &'static str,
        mechanism: Mechanism,
        target: &'static str,
        intent: &'static str,
    ) -> Self {
        Self {
            name,
            program,
            mechanism,
            target,
            since: "2.6",
            intent,
            required: false,
            signal: Some(Signal::Io),
            tried: Tried::Always,
        }
    }

    /// A row for the end of a function of the kernel that moves bytes of sockets.
    const fn of_sockets(
        name: &'static str,
        program: &'static str,
        target: &'static str,
        intent: &'static str,
        required: bool,
    ) -> Self {
        Self {
            name,
            program,
            mechanism: Mechanism::Fexit,
            target,
            since: "2.6",
            intent,
            required,
            signal: None,
            tried: Tried::With(SocketHook::Fexit),
        }
    }
}

/// What became of a probe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "status", content = "reason")]
pub enum Status {
    /// Loaded and attached.
    Attached,
    /// This kernel has no such hook.
    Unsupported(String),
    /// This process may not.
    NotPermitted(String),
    /// The kernel refused the program: a defect of ours, or a kernel that we do not know.
    Broken(String),
    /// Its signal is switched off by this setting.
    Off(String),
}

impl Status {
    /// Whether it runs, or is not meant to.
    #[must_use]
    pub fn is_as_wanted(&self) -> bool {
        matches!(self, Self::Attached | Self::Off(_))
    }
}

/// A probe and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// Its name.
    pub name: &'static str,
    /// How it was to be hooked in.
    pub mechanism: Mechanism,
    /// To what.
    pub target: &'static str,
    /// What is missing without it.
    pub intent: &'static str,
    /// Whether anything works without it.
    pub required: bool,
    /// The signal that it is for.
    pub signal: Option<Signal>,
    /// Instructions that the verifier followed, where the kernel says.
    pub verified_instructions: Option<u32>,
    /// What became of it.
    #[serde(flatten)]
    pub status: Status,
}

impl ProbeReport {
    /// Of a probe that was tried, or not.
    pub(super) const fn new(probe: &Probe, status: Status) -> Self {
        let Probe { name, mechanism, target, intent, required, signal, .. } = *probe;
        Self { name, mechanism, target, intent, required, signal, verified_instructions: None, status }
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.status == Status::Attached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_names_are_unique_in_what_the_kernel_keeps() {
        let mut names: Vec<&str> = PROBES.iter().map(|probe| &probe.program[..probe.program.len().min(15)]).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PROBES.len());
    }
}

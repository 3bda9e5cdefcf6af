//! What runs where.

use super::{Lockdown, machine::Machine};
use crate::setup::vm::Kernel;

/// A file of `tests/e2e/tests`, or some of its tests, and the machines that run it.
#[derive(Clone, Debug)]
pub(super) struct Check<'a> {
    pub(super) file: &'a str,
    /// Names of tests, or parts of names; none: all.
    pub(super) only: &'a [&'a str],
    pub(super) on: &'a [Machine],
}

impl<'a> Check<'a> {
    /// All tests of a file.
    pub(super) const fn whole(file: &'a str) -> Self {
        Self { file, only: &[], on: &[] }
    }
}

const OLD: Machine = Machine { kernel: Kernel::Six1, lockdown: Lockdown::None };
const OLD_LOCKED: Machine = Machine { kernel: Kernel::Six1, lockdown: Lockdown::Confidentiality };
const NEW: Machine = Machine { kernel: Kernel::Six12, lockdown: Lockdown::None };
const NEW_LOCKED: Machine = Machine { kernel: Kernel::Six12, lockdown: Lockdown::Confidentiality };

/// What each of these machines has, and tests may ask for: there it is demanded.
pub(super) fn demanded(machine: &Machine) -> Vec<&'static str> {
    let mut needs = vec!["kernel", "own_clock", "ip", "ss", "tc", "nft", "nstat", "socket_hook_fexit"];
    if machine.kernel == Kernel::Six12 {
        needs.push("socket_hook_tracepoint");
    }
    needs.push(match machine.lockdown {
        // It finds the socket behind a descriptor in the kernel's memory.
        Lockdown::None => "socket_hook_sys_exit",
        Lockdown::Confidentiality => "confidentiality",
    });
    needs
}

/// Each test starts an observer, which takes an emulated processor seconds: few, and what differs by kernel.
pub(super) const CHECKS: &[Check<'static>] = &[
    // Bytes and moments of the eight calls that carry them, and their order; each hook where it is the best one.
    Check { file: "sockets", only: FEXIT, on: &[OLD, OLD_LOCKED, NEW] },
    Check { file: "sockets", only: TRACEPOINT, on: &[NEW, NEW_LOCKED] },
    Check { file: "sockets", only: SYS_EXIT, on: &[OLD, NEW] },
    // How servers call them.
    Check {
        file: "syscalls",
        only: &["hyper_reads_24_bytes_first::fexit", "hyper_reads_24_bytes_first::sys_exit"],
        on: &[OLD, NEW],
    },
    Check { file: "syscalls", only: &["many_threads::tracepoint"], on: &[NEW_LOCKED] },
    // A server's metrics, against what its clients were told.
    Check { file: "surface", only: &["exposition_formats"], on: &[OLD, OLD_LOCKED, NEW, NEW_LOCKED] },
    // Delays by `tc netem`.
    Check { file: "host_tcp", only: &["round_trip_times_are_those_of_the_kernel"], on: &[NEW] },
    // What reading maps and attaching takes, once capabilities are dropped.
    Check { file: "sandbox", only: &["every_thread_keeps_what_it_needs"], on: &[OLD, NEW_LOCKED] },
    // On these machines the wall clock may be set.
    Check { file: "chaos", only: &["the_wall_clock_is_set"], on: &[OLD, NEW] },
    Check { file: "lockdown", only: &[], on: &[OLD_LOCKED, NEW_LOCKED] },
];

const FEXIT: &[&str] = &[
    "gathered_from_vectors_and_messages::fexit",
    "scattered_into_vectors_and_messages::fexit",
    "reader_and_writer_on_different_threads::fexit",
];
const SYS_EXIT: &[&str] = &[
    "gathered_from_vectors_and_messages::sys_exit",
    "scattered_into_vectors_and_messages::sys_exit",
    "reader_and_writer_on_different_threads::sys_exit",
];
const TRACEPOINT: &[&str] = &[
    "gathered_from_vectors_and_messages::tracepoint",
    "scattered_into_vectors_and_messages::tracepoint",
    "reader_and_writer_on_different_threads::tracepoint",
];

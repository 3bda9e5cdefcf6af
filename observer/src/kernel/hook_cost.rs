//! What a hook costs besides its program: the way into BPF and back, which run statistics do not see.
//!
//! Measured with an empty program of our own, at a place that hardly anybody but this thread passes: the name of a
//! thread is set (`prctl(PR_SET_NAME)`), with the program in place and without, by turns. That says what the kind of
//! hook costs on this machine. At the beginning and the end of system calls it would say too little while somebody hooks
//! these already, since the first one makes the kernel take a longer way: there the constant below is taken.

use std::{
    fmt, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use aya::Btf;
use aya_obj::{
    btf::BtfKind,
    generated::{bpf_attach_type, bpf_cmd, bpf_prog_type},
};
use serde::Serialize;

use super::{
    as_written::{bpf, no_attributes},
    error::chain,
    probes::{Mechanism, Probe},
    statistics::{self, Statistics},
};

/// What costs alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// A tracepoint with typed arguments.
    BtfTracepoint,
    /// The same at the beginning of every system call, which then takes the kernel's longer way.
    SyscallEnter,
    /// The same at its end.
    SyscallExit,
    /// A trampoline at the beginning of a function.
    Fentry,
    /// A trampoline around a function.
    Fexit,
}

impl HookKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::BtfTracepoint, Self::SyscallEnter, Self::SyscallExit, Self::Fentry, Self::Fexit];

    /// Of a probe; `None`: an iterator hooks nothing.
    #[must_use]
    pub fn of(probe: &Probe) -> Option<Self> {
        match (probe.mechanism, probe.target) {
            (Mechanism::BtfTracepoint, "sys_enter") => Some(Self::SyscallEnter),
            (Mechanism::BtfTracepoint, "sys_exit") => Some(Self::SyscallExit),
            (Mechanism::BtfTracepoint, _) => Some(Self::BtfTracepoint),
            (Mechanism::Fentry, _) => Some(Self::Fentry),
            (Mechanism::Fexit, _) => Some(Self::Fexit),
            (Mechanism::Iterator, _) => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BtfTracepoint => "btf_tracepoint",
            Self::SyscallEnter => "syscall_enter",
            Self::SyscallExit => "syscall_exit",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
        }
    }

    /// Nanoseconds a run where nothing can be measured (`docs/overhead.md` says where each number is from).
    #[must_use]
    pub const fn documented(self) -> f64 {
        match self {
            Self::SyscallEnter => 70.0,
            Self::SyscallExit => 85.0,
            // Of trampolines no machine of ours has told: as much as a tracepoint's way into BPF, which is the same.
            Self::BtfTracepoint | Self::Fentry | Self::Fexit => 50.0,
        }
    }

    /// Whether another hook of this kind makes one that is added cheaper than the first.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::SyscallEnter | Self::SyscallExit)
    }

    /// The kernel's type of what is hooked in a trial.
    const fn trial(self) -> (BtfKind, &'static str, bpf_attach_type) {
        match self {
            Self::BtfTracepoint => (BtfKind::Typedef, "btf_trace_task_rename", bpf_attach_type::BPF_TRACE_RAW_TP),
            Self::SyscallEnter => (BtfKind::Typedef, "btf_trace_sys_enter", bpf_attach_type::BPF_TRACE_RAW_TP),
            Self::SyscallExit => (BtfKind::Typedef, "btf_trace_sys_exit", bpf_attach_type::BPF_TRACE_RAW_TP),
            Self::Fentry => (BtfKind::Func, "__set_task_comm", bpf_attach_type::BPF_TRACE_FENTRY),
            Self::Fexit => (BtfKind::Func, "__set_task_comm", bpf_attach_type::BPF_TRACE_FEXIT),
        }
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What was measured of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Nanoseconds that a call takes longer with an empty program hooked in.
    pub nanoseconds: f64,
    /// What statistics say of a run of that program: what their clock adds to every program's time.
    pub empty_run: Option<f64>,
}

/// Rounds of a trial; the fastest of each side is compared, since whatever disturbs makes a round slower.
const ROUNDS: usize = 12;
/// Calls of one round.
const CALLS: u32 = 5_000;

/// Tries one kind: for about a tenth of a second, or longer where the kernel is slow to attach.
///
/// # Errors
/// What the kernel refused.
pub fn measure(kind: HookKind) -> Result<Measured, String> {
    // A thread of its own: it is renamed, and kept on one CPU.
    thread::scope(|scope| scope.spawn(|| trial(kind)).join().map_err(|_| "the trial failed".to_owned())?)
}

fn trial(kind: HookKind) -> Result<Measured, String> {
    let program = load(kind)?;
    let attach = || attach(&program).map_err(|error| format!("an empty program cannot be attached: {error}"));
    stay();
    let call = || match kind.is_shared() {
        // SAFETY: it takes nothing. Through `syscall`, so that nothing is remembered in between.
        true => unsafe { libc::syscall(libc::SYS_getppid) },
        // SAFETY: a string that ends with a zero byte.
        false => unsafe { libc::prctl(libc::PR_SET_NAME, c"hook-trial".as_ptr()).into() },
    };
    let round = || {
        let begun = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        begun.elapsed()
    };
    let (mut with, mut without) = (Duration::MAX, Duration::MAX);
    round();
    for _ in 0..ROUNDS {
        without = without.min(round());
        let link = attach()?;
        with = with.min(round());
        drop(link);
    }
    let nanoseconds = (with.as_secs_f64() - without.as_secs_f64()) * 1e9 / f64::from(CALLS);
    Ok(Measured { nanoseconds: nanoseconds.max(0.0), empty_run: empty_run(&program, attach, round) })
}

#[expect(clippy::cast_precision_loss, reason = "few enough")]
fn empty_run(
    program: &OwnedFd,
    attach: impl Fn() -> Result<OwnedFd, String>,
    round: impl Fn() -> Duration,
) -> Option<f64> {
    let _on = Statistics::enable().ok()?;
    let before = statistics::read(program.as_fd()).ok()?;
    let link = attach().ok()?;
    round();
    drop(link);
    let cost = statistics::read(program.as_fd()).ok()?.since(before);
    (cost.runs >= u64::from(CALLS)).then(|| cost.nanoseconds as f64 / cost.runs as f64)
}

/// A program that returns 0 at once.
fn load(kind: HookKind) -> Result<OwnedFd, String> {
    /// `BPF_ALU64 | BPF_MOV | BPF_K` to register 0, then `BPF_JMP | BPF_EXIT`: eight bytes each.
    const INSTRUCTIONS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let (types, name, attach_type) = kind.trial();
    let btf = Btf::from_sys_fs().map_err(|error| chain(&error))?;
    let target = btf.id_by_type_name_kind(name, types).map_err(|error| chain(&error))?;
    let mut attributes = no_attributes();
    // SAFETY: the fields of this command; all other bytes are zero.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = attach_type as u32;
    load.attach_btf_id = target;
    load.insns = INSTRUCTIONS.as_ptr() as u64;
    load.insn_cnt = INSTRUCTIONS.len() as u32;
    load.license = c"Dual MIT/GPL".as_ptr() as u64;
    bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes).map_err(|error| format!("an empty program is refused: {error}"))
}

/// Hooks it in, for as long as the result is open.
fn attach(program: &OwnedFd) -> io::Result<OwnedFd> {
    let mut attributes = no_attributes();
    attributes.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attributes)
}

/// Keeps this thread on the CPU that it is on: no two are equally fast.
fn stay() {
    // SAFETY: zeroes are a valid, empty set, given with its size.
    unsafe {
        let Ok(cpu) = usize::try_from(libc::sched_getcpu()) else { return };
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::probes::PROBES, *};

    #[test]
    fn every_probe_that_hooks_something_is_of_a_kind() {
        for probe in PROBES {
            let kind = HookKind::of(probe);
            assert_eq!(kind.is_none(), probe.mechanism == Mechanism::Iterator, "{}", probe.name);
            assert!(kind.is_none_or(|kind| kind.is_shared() == probe.target.starts_with("sys_")), "{}", probe.name);
        }
        assert!(HookKind::ALL.iter().all(|kind| kind.documented() > 0.0));
    }

    /// The numbers of `docs/overhead.md`: `cargo test --release -p observer --lib hook_cost -- --nocapture`, as root.
    #[test]
    fn each_kind_can_be_tried_or_says_why_not() {
        for kind in HookKind::ALL {
            match measure(kind) {
                Ok(measured) => {
                    println!("{kind}: {measured:?}");
                    // What it is is the machine's matter; what no machine takes is a mistake in the taking.
                    assert!((0.0..20_000.0).contains(&measured.nanoseconds), "{kind}: {measured:?}");
                }
                Err(reason) => {
                    println!("{kind}: {reason}");
                    assert!(!reason.is_empty());
                }
            }
        }
    }
}

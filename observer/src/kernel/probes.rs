//! The one table of probes, and what became of each.

use aya::{Btf, Ebpf, programs::BtfTracePoint};
use serde::Serialize;

/// How a program is hooked in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// A tracepoint with typed arguments (`tp_btf`): no tracefs, no perf event, no trampoline.
    BtfTracepoint,
}

impl Mechanism {
    /// Its value of the `mechanism` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BtfTracepoint => "btf_tracepoint",
        }
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
}

/// Every probe. No program is attached anywhere else.
pub const PROBES: &[Probe] = &[
    Probe {
        name: "socket_send",
        program: "obs_sock_send",
        mechanism: Mechanism::BtfTracepoint,
        target: "sock_send_length",
        since: "6.3",
        intent: "responses: every token's time",
        required: true,
    },
    Probe {
        name: "socket_receive",
        program: "obs_sock_recv",
        mechanism: Mechanism::BtfTracepoint,
        target: "sock_recv_length",
        since: "6.3",
        intent: "requests",
        required: true,
    },
    Probe {
        name: "socket_state",
        program: "obs_sock_state",
        mechanism: Mechanism::BtfTracepoint,
        target: "inet_sock_set_state",
        since: "4.16",
        intent: "cancellations, truncation, new listening ports, arrival of a connection's first request",
        required: false,
    },
    Probe {
        name: "data_ready",
        program: "obs_data_ready",
        mechanism: Mechanism::BtfTracepoint,
        target: "sk_data_ready",
        since: "6.2",
        intent: "arrival times: queueing before the server reads",
        required: false,
    },
    Probe {
        name: "process_fork",
        program: "obs_fork",
        mechanism: Mechanism::BtfTracepoint,
        target: "sched_process_fork",
        since: "2.6",
        intent: "descendants of processes in the pid scope",
        required: false,
    },
    Probe {
        name: "process_exit",
        program: "obs_exit",
        mechanism: Mechanism::BtfTracepoint,
        target: "sched_process_exit",
        since: "2.6",
        intent: "ended processes leave the pid scope",
        required: false,
    },
];

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
    /// Instructions that the verifier followed, where the kernel says.
    pub verified_instructions: Option<u32>,
    /// What became of it.
    #[serde(flatten)]
    pub status: Status,
}

impl ProbeReport {
    /// Whether it runs.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.status == Status::Attached
    }
}

/// Loads and attaches every probe of the table; never fails as a whole.
pub(super) fn attach_all(ebpf: &mut Ebpf, btf: &Btf) -> Vec<ProbeReport> {
    let report = |probe: &Probe| {
        let status = attach(ebpf, btf, probe);
        let program = ebpf.program(probe.program);
        ProbeReport {
            name: probe.name,
            mechanism: probe.mechanism,
            target: probe.target,
            intent: probe.intent,
            required: probe.required,
            verified_instructions: program.and_then(|program| program.info().ok()?.verified_instruction_count()),
            status,
        }
    };
    PROBES.iter().map(report).collect()
}

fn attach(ebpf: &mut Ebpf, btf: &Btf, probe: &Probe) -> Status {
    let Some(program) = ebpf.program_mut(probe.program) else {
        return Status::Broken(format!("the BPF object has no program {}", probe.program));
    };
    let attached: Result<(), aya::programs::ProgramError> = match probe.mechanism {
        Mechanism::BtfTracepoint => <&mut BtfTracePoint>::try_from(program).and_then(|program| {
            program.load(probe.target, btf)?;
            program.attach()?;
            Ok(())
        }),
    };
    attached.map_or_else(|error| classify(&chain(&error), probe), |()| Status::Attached)
}

/// An error with all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What an attach error means to a user.
fn classify(error: &str, probe: &Probe) -> Status {
    let Probe { target, since, .. } = probe;
    // The verifier's log can be pages long, and its end says why.
    let mut lines: Vec<&str> = error.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.len() > 6 {
        lines.drain(1..lines.len() - 5);
    }
    let short = lines.join(" | ");
    if error.contains("unknown BTF type") || error.contains("no BTF type") {
        Status::Unsupported(format!("this kernel has no tracepoint {target}, which came with Linux {since}"))
    } else if error.contains("(os error 1)") || error.contains("(os error 13)") || error.contains("not permitted") {
        Status::NotPermitted(short)
    } else {
        Status::Broken(short)
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

    #[test]
    fn errors_are_classified() {
        let probe = &PROBES[0];
        assert!(matches!(classify("unknown BTF type `btf_trace_x`", probe), Status::Unsupported(_)));
        assert!(matches!(
            classify("the BPF_PROG_LOAD syscall failed: Operation not permitted (os error 1)", probe),
            Status::NotPermitted(_)
        ));
        let log = (0..100).map(|line| format!("line {line}\n")).collect::<String>();
        let Status::Broken(text) = classify(&format!("failed to load\n{log}"), probe) else { panic!("broken") };
        assert!(text.starts_with("failed to load | line 95") && text.ends_with("line 99"));
    }
}

//! Loads the programs of the table of probes, and hooks them in.

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FEntry, FExit, Iter},
};

use super::{
    as_written::AsWritten,
    block,
    btf::Btf as OwnBtf,
    constants,
    error::chain,
    io::{self, Link},
    probes::{Mechanism, PROBES, Probe, ProbeReport, Status},
    signal::Signal,
    socket_hook,
};
use crate::config::{Signals, SocketHook};

/// What is in place, by the probe's name: detached when dropped.
pub(super) type Links = Vec<(&'static str, Link)>;

/// Loads and attaches every probe of the table; never fails as a whole. Those that are only wanted while there is a
/// workload are tried and detached again. Without `all`, the first required one that fails ends it.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    loading: Loading<'_>,
    own: &OwnBtf,
    (signals, hook): (Signals, SocketHook),
    all: bool,
) -> (Vec<ProbeReport>, Links) {
    let mut reports: Vec<ProbeReport> = Vec::new();
    let mut links = Links::new();
    for probe in PROBES {
        let missing = probe.signal.and_then(|signal| constants::missing(own, signal));
        let another_way = socket_hook::not_tried(probe, hook, &reports);
        let is_alternative = another_way.is_some();
        let not_tried = (probe.signal == Some(Signal::Io))
            .then(|| io::not_tried(probe, signals, &reports))
            .flatten()
            .or(another_way);
        let status = match (probe.signal, missing, not_tried) {
            (Some(signal), ..) if !signal.is_on(signals) => Status::Off(format!("{} = {}", signal.key(), signal.off())),
            (_, Some(missing), _) => Status::Unsupported(missing),
            (.., Some(reason)) => Status::Off(reason),
            _ => {
                let (status, link) = attach(ebpf, loading, probe);
                links.extend(link.map(|link| (probe.name, link)));
                status
            }
        };
        let program = ebpf.program(probe.program);
        let mut report = ProbeReport::new(probe, status);
        report.verified_instructions = program.and_then(|program| program.info().ok()?.verified_instruction_count());
        report.required &= !is_alternative;
        let failed = report.required && !report.is_attached();
        reports.push(report);
        if failed && !all {
            return (reports, links);
        }
    }
    io::settle(signals, &mut reports);
    socket_hook::settle(&mut reports, PROBES);
    block::settle(ebpf, &mut reports, &mut links);
    (reports, links)
}

/// What loading a program takes besides the program.
#[derive(Clone, Copy)]
pub(super) struct Loading<'a> {
    pub(super) btf: &'a Btf,
    pub(super) as_written: Option<&'a AsWritten>,
}

/// Loads a probe and attaches it; one that is in place only on demand is detached again, and iterators are attached
/// whenever somebody asks.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    Loading { btf, as_written }: Loading<'_>,
    probe: &Probe,
) -> (Status, Option<Link>) {
    let Some(program) = ebpf.program_mut(probe.program) else {
        return (Status::Broken(format!("the BPF object has no program {}", probe.program)), None);
    };
    let target = probe.target;
    let as_written = as_written.filter(|as_written| as_written.has(probe.program));
    let loaded = match probe.mechanism {
        _ if let Some(as_written) = as_written => as_written.load(program, probe.program, target, btf),
        Mechanism::BtfTracepoint => {
            <&mut BtfTracePoint>::try_from(program).and_then(|program| program.load(target, btf))
        }
        Mechanism::Fentry => <&mut FEntry>::try_from(program).and_then(|program| program.load(target, btf)),
        Mechanism::Fexit => <&mut FExit>::try_from(program).and_then(|program| program.load(target, btf)),
        Mechanism::Iterator => <&mut Iter>::try_from(program).and_then(|program| program.load(target, btf)),
    };
    let attached = loaded.and_then(|()| match probe.mechanism {
        Mechanism::Iterator => Ok(None),
        _ => io::hook(ebpf, probe).map(Some),
    });
    match attached {
        Ok(link) => (Status::Attached, link.filter(|_| !io::is_on_demand(probe))),
        Err(error) => (classify(&chain(&error), probe), None),
    }
}

/// What an attach error means to a user.
fn classify(error: &str, probe: &Probe) -> Status {
    let Probe { target, since, .. } = probe;
    let hook = match probe.mechanism {
        Mechanism::BtfTracepoint => "tracepoint",
        Mechanism::Iterator => "iterator",
        Mechanism::Fentry | Mechanism::Fexit => "function",
    };
    // The verifier's log can be pages long, and its end says why.
    let mut lines: Vec<&str> = error.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.len() > 6 {
        lines.drain(1..lines.len() - 5);
    }
    let short = lines.join(" | ");
    // The first is what kernels before 6.8 say.
    let is_barred = |line: &str| {
        (line.contains("unknown func") || line.contains("cannot use helper")) && line.contains("bpf_probe_read")
    };
    if error.lines().any(is_barred) {
        Status::Unsupported("this kernel is locked down (confidentiality): no program may read its memory".to_owned())
    } else if error.contains("unknown BTF type") || error.contains("no BTF type") {
        Status::Unsupported(format!("this kernel has no {hook} {target}, which came with Linux {since}"))
    } else if probe.mechanism.is_trampoline() && (error.contains("(os error 1)") || error.contains("(os error 524)")) {
        // Not a matter of this process, which could hook tracepoints; and the kernel says no more than that.
        Status::Unsupported("this kernel refuses trampolines, which hooks at its functions take".to_owned())
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
    fn errors_are_classified() {
        let probe = &PROBES[0];
        assert!(matches!(classify("unknown BTF type `btf_trace_x`", probe), Status::Unsupported(_)));
        assert!(matches!(
            classify("the BPF_PROG_LOAD syscall failed: Operation not permitted (os error 1)", probe),
            Status::NotPermitted(_)
        ));
        for barred in
            ["program of this type cannot use helper bpf_probe_read#4", "unknown func bpf_probe_read_kernel#113"]
        {
            let error =
                format!("the BPF_PROG_LOAD syscall failed: Invalid argument (os error 22)\n{barred}\nprocessed 9");
            let Status::Unsupported(reason) = classify(&error, probe) else { panic!("{error}") };
            assert!(reason.contains("confidentiality"), "{reason}");
        }
        let function = PROBES.iter().find(|probe| probe.mechanism == Mechanism::Fexit).expect("there are some");
        for error in ["the BPF_PROG_LOAD syscall failed: (os error 1)", "attach failed: (os error 524)"] {
            let Status::Unsupported(reason) = classify(error, function) else { panic!("{error}") };
            assert!(reason.contains("trampolines"), "{reason}");
        }
        let log = (0..100).map(|line| format!("line {line}\n")).collect::<String>();
        let Status::Broken(text) = classify(&format!("failed to load\n{log}"), probe) else { panic!("broken") };
        assert!(text.starts_with("failed to load | line 95") && text.ends_with("line 99"));
    }
}

//! The report, as it is printed.

use std::io::{self, IsTerminal, Write};

use super::{Report, SEES};
use crate::kernel::{
    capabilities::{Capabilities, Level},
    probes::Status,
};

/// Prints the report; JSON if asked to.
///
/// # Errors
/// Standard output's.
pub fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        return writeln!(out);
    }
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    write!(out, "{}", text(&report.capabilities, colour))
}

fn text(report: &Capabilities, colour: bool) -> String {
    let mut text = String::new();
    let mut line = |level: Level, left: &str, right: &str| {
        let (mark, code) = match level {
            Level::Ok => ("ok     ", "32"),
            Level::Warning => ("warning", "33"),
            Level::Error => ("error  ", "31"),
        };
        let mark = if colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_owned() };
        text.push_str(&format!("{mark}  {left:<18} {right}\n"));
    };
    for finding in &report.findings {
        let advice = if finding.advice.is_empty() { String::new() } else { format!(" - {}", finding.advice) };
        line(finding.level, finding.subject, &format!("{}{advice}", finding.found));
    }
    for probe in &report.probes {
        let (level, state) = match &probe.status {
            Status::Attached => (Level::Ok, "attaches".to_owned()),
            Status::Off(setting) => (Level::Ok, format!("off: {setting}")),
            Status::Unsupported(reason) | Status::NotPermitted(reason) | Status::Broken(reason) => {
                (if probe.required { Level::Error } else { Level::Warning }, reason.clone())
            }
        };
        let target = format!("{} {}", probe.mechanism.as_str(), probe.target);
        line(level, probe.name, &format!("{target}: {state} ({})", probe.intent));
    }
    text.push_str(&format!("\n{SEES}\n"));
    text.push_str(if report.ready {
        "\nReady: `observer run` can observe this host.\n"
    } else {
        "\nNot ready: mend what is marked as error, then run `observer doctor` again.\n"
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        capabilities::Finding,
        probes::{Mechanism, ProbeReport},
    };

    fn report(status: Status) -> Capabilities {
        Capabilities {
            findings: vec![Finding {
                subject: "privileges",
                level: Level::Error,
                found: "no capability for BPF".into(),
                advice: "run as root".into(),
            }],
            ready: status == Status::Attached,
            probes: vec![ProbeReport {
                name: "socket_send",
                mechanism: Mechanism::BtfTracepoint,
                target: "sock_send_length",
                intent: "responses",
                required: true,
                signal: None,
                verified_instructions: None,
                status,
            }],
        }
    }

    #[test]
    fn says_what_is_wrong_and_what_to_do() {
        let text = text(&report(Status::Unsupported("no such tracepoint".into())), false);
        assert!(text.contains("error    privileges         no capability for BPF - run as root\n"), "{text}");
        assert!(text.contains("btf_tracepoint sock_send_length: no such tracepoint (responses)"), "{text}");
        assert!(text.contains("Not ready"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn colours_only_when_asked() {
        assert!(text(&report(Status::Attached), true).contains("\x1b[32mok     \x1b[0m  socket_send"));
    }
}

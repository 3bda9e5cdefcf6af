//! What is said of other observers on this host.

use crate::kernel::{
    OtherObserver,
    capabilities::{Finding, Level},
};

const SUBJECT: &str = "other observers";

/// None, one, or too many.
pub(super) fn finding(others: &[OtherObserver]) -> Finding {
    let finding =
        |level, found: String, advice: &str| Finding { subject: SUBJECT, level, found, advice: advice.to_owned() };
    let names: Vec<String> = others.iter().map(name).collect();
    match others.len() {
        0 => finding(Level::Ok, "none runs".to_owned(), ""),
        1 => {
            let found = format!(
                "one runs: {}; a second one would measure the same, and right, but every read and write would pay for \
                 both",
                names[0]
            );
            finding(Level::Ok, found, "")
        }
        count => {
            let found = format!(
                "{count} run: {}; each measures right, every read and write pays for all of them, and sums over them \
                 count each request {count} times",
                names.join(", ")
            );
            finding(Level::Warning, found, "stop all but one, unless their scopes (--ports, --pids, --cgroups) differ")
        }
    }
}

fn name(other: &OtherObserver) -> String {
    let process = match other.pid {
        Some(pid) => format!("pid {pid}"),
        None => "in another PID namespace, or hidden from this process".to_owned(),
    };
    match other.listens.first() {
        Some(address) => format!("{process} at {address}"),
        None => process,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_as_usual_and_two_are_not() {
        let at = |pid, port| OtherObserver { pid: Some(pid), listens: vec![([127, 0, 0, 1], port).into()] };
        assert_eq!(finding(&[]).level, Level::Ok);
        let one = finding(&[at(7, 9478)]);
        assert!(one.level == Level::Ok && one.found.contains("pid 7 at 127.0.0.1:9478"), "{one:?}");
        let two = finding(&[at(7, 9478), OtherObserver { pid: None, listens: Vec::new() }]);
        assert!(two.level == Level::Warning && two.found.starts_with("2 run: pid 7") && !two.advice.is_empty());
    }
}

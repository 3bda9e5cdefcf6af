//! The same test with each of the observer's hooks for reads and writes of sockets.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use crate::{observer, require};

thread_local! {
    /// What the observers that this thread starts are told to take.
    static NAMED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Makes of each named function three tests, one with each hook. Where a hook does not load, its test says why, and
/// passes, unless `OBSERVER_REQUIRE` names it as `socket_hook_NAME`.
#[macro_export]
macro_rules! with_each_socket_hook {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn tracepoint() {
                $crate::hooks::with("tracepoint", super::$name);
            }

            #[test]
            fn fexit() {
                $crate::hooks::with("fexit", super::$name);
            }

            #[test]
            fn sys_exit() {
                $crate::hooks::with("sys-exit", super::$name);
            }
        }
    )+};
}

/// The hook that observers of this thread are told to take; `None`: they choose.
pub(crate) fn named() -> Option<&'static str> {
    NAMED.get()
}

/// Runs a test whose observers take this hook, if it loads here.
///
/// # Panics
/// If it does not load although the kernel has it, or `OBSERVER_REQUIRE` names it.
pub fn with(hook: &'static str, test: impl FnOnce()) {
    if let Some(reason) = require::missing("kernel").or_else(|| missing(hook)) {
        let demanded = std::env::var("OBSERVER_REQUIRE").unwrap_or_default();
        let name = format!("socket_hook_{}", hook.replace('-', "_"));
        assert!(!demanded.split(',').any(|need| need.trim() == name), "OBSERVER_REQUIRE={demanded}, but {reason}");
        println!("skipped: {reason}");
        return;
    }
    NAMED.set(Some(hook));
    test();
    NAMED.set(None);
}

/// Why a hook does not load here.
fn missing(hook: &'static str) -> Option<String> {
    static TRIED: Mutex<BTreeMap<&'static str, Option<String>>> = Mutex::new(BTreeMap::new());
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    tried.entry(hook).or_insert_with(|| examine(hook)).clone()
}

fn examine(hook: &str) -> Option<String> {
    let output = observer::command()
        .args(["doctor", "--json", "--gpu", "off", "--socket-hook", hook])
        .output()
        .expect("the observer's binary runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON of observer doctor");
    if report["ready"] == true {
        return None;
    }
    // That the verifier refuses a program is a defect, and no property of this host.
    let probes = report["probes"].as_array().expect("probes");
    let broken = probes.iter().find(|probe| probe["required"] == true && probe["status"] == "broken");
    assert!(broken.is_none(), "{broken:#?}");
    let findings = report["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["subject"] == "socket hook");
    Some(found.map_or_else(|| report.to_string(), |finding| finding["found"].as_str().unwrap_or_default().to_owned()))
}

//! A kernel that is locked down to keep its memory confidential: requests are measured, and whatever would have to read
//! the kernel's memory says so. `cargo xtask vm` boots such kernels.

use observer_e2e::{observer, require};
use serde_json::Value;

/// Probes that look at names of files, or for sockets behind descriptors.
const BARRED: [&str; 2] = ["file_read", "page_cache_fill"];

#[test]
fn the_doctor_says_what_is_barred() {
    require!(kernel, confidentiality);
    let output = observer::command().args(["doctor", "--json", "--gpu", "off"]).output().expect("it runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success() && report["ready"] == true, "{report:#}");
    let findings = report["findings"].as_array().expect("findings");
    let finding = findings.iter().find(|finding| finding["subject"] == "lockdown").expect("it is looked at");
    assert_eq!(finding["level"], "warning", "{finding:#}");
    let text = format!("{} {}", finding["found"], finding["advice"]);
    for words in ["bpf_probe_read_kernel", "still seen", "files and pipes", "page cache", "lockdown=integrity"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let probes = report["probes"].as_array().expect("probes");
    for name in BARRED {
        let probe = probes.iter().find(|probe| probe["name"] == name).expect("in the table");
        let reason = probe["reason"].as_str().unwrap_or_default();
        // Off, where it is one of several ways, none of which there is.
        let status = probe["status"].as_str().expect("a status");
        assert!(["unsupported", "off"].contains(&status) && reason.contains("confidentiality"), "{probe:#}");
    }
    // Nothing else is refused.
    let broken: Vec<_> =
        probes.iter().filter(|probe| probe["status"] == "broken" || probe["status"] == "not_permitted").collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

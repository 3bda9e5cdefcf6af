//! Request headers that become labels.

use observer::{
    config::HeaderLabel,
    event::{Data, Direction},
    request::{
        labels::HeaderLabels,
        record::Outcome,
        tracker::{Tracker, TrackerConfig},
    },
};

use crate::harness::{Host, chat, config, request};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

fn host() -> Host {
    let tenant = HeaderLabel { label: "tenant".to_owned(), ..HeaderLabel::of("x-tenant") };
    let team = HeaderLabel { hash: true, ..HeaderLabel::of("X-Team") };
    let labels = HeaderLabels::new(&[tenant, team], None);
    let mut host = Host::bare();
    host.tape.off();
    host.tracker = Tracker::new(TrackerConfig { labels, ..config() });
    host.open(|_| {});
    host
}

fn ask(tenant: &str) -> String {
    let body = r#"{"model":"asked"}"#;
    request("/v1/completions", body)
        .replace("host: x\r\n", &format!("X-Tenant: {tenant}\r\nhost: x\r\nx-team: abc\r\n"))
}

/// Labels of each record.
fn told(host: &Host) -> Vec<String> {
    let label = |label: &observer::request::record::HeaderLabel| {
        format!("{}={}", label.name, label.value.as_deref().unwrap_or("?"))
    };
    host.said.records.iter().map(|record| record.labels.iter().map(label).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn labels_are_of_their_own_request_wherever_reads_split_it() {
    let both = ask("a") + &ask("b");
    for split in 0..=both.len() {
        let mut host = host();
        let (first, second) = both.split_at(split);
        host.read(0.0, first);
        host.read(1.0, second);
        host.write(2.0, OK);
        host.write(3.0, OK);
        // Without the headers: nothing of an earlier request is left.
        host.read(4.0, chat(false));
        host.write(5.0, OK);
        let expected = ["tenant=a x_team=ba7816bf8f01cfea", "tenant=b x_team=ba7816bf8f01cfea", "tenant=? x_team=?"];
        assert_eq!(told(&host), expected, "{split}");
    }
}

#[test]
fn a_head_that_was_not_captured_whole_has_unknown_labels_and_the_next_has_its_own() {
    let mut host = host();
    let text = ask("a");
    let line = text.find("\r\n").unwrap() + 2;
    let call = host.call(Direction::Receive, 0.0, text.as_bytes());
    host.data(&Data { head: &text.as_bytes()[..line], ..call });
    host.write(1.0, OK);
    host.read(2.0, ask("b"));
    host.write(3.0, OK);
    assert_eq!(host.said.records[0].outcome, Outcome::Incomplete);
    assert_eq!(told(&host), ["tenant=? x_team=?", "tenant=b x_team=ba7816bf8f01cfea"]);
}

#[test]
fn without_configuration_there_are_none() {
    let mut host = Host::new();
    host.read(0.0, ask("a"));
    host.write(1.0, OK);
    assert!(host.record().labels.is_empty());
}

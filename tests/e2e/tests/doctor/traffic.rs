//! Shares of bytes, against bytes that the tests themselves moved while the doctor counted.

use std::{collections::BTreeSet, process::Command, thread, time::Duration};

use observer_e2e::{
    bpf,
    process::Process,
    raw::{
        Link, Listener,
        uring::{Mode, Ring},
    },
    require,
    scratch::Scratch,
    servers::scripts,
    traffic::{self, Answer},
    wait::{self, SOON},
};
use serde_json::{Value, json};

use super::{command, finding, report};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Probes that counting takes: those without a signal of their own.
const PROBES: usize = 6;

/// The doctor, from the moment when it counts.
fn counting(time: &str, ports: &[u16]) -> Process {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let process = Process::spawn("doctor", command(&["--json", "--for", time, "--ports", &ports.join(",")]));
    // It tries all probes first, with other programs.
    let mut tried = BTreeSet::new();
    wait::until("the doctor to count", 3 * SOON, || {
        let held = bpf::held_by(process.pid());
        if tried.is_empty() || !held.is_disjoint(&tried) {
            tried.extend(held);
            return None;
        }
        (held.len() >= PROBES).then_some(())
    });
    // The last one is loaded, and attached next.
    thread::sleep(Duration::from_secs(1));
    process
}

fn talk(link: &Link, said: &[u8], answer: &[u8]) {
    link.client.send(said);
    assert_eq!(link.server.drain(said.len()), said);
    link.server.send(answer);
    assert_eq!(link.client.drain(answer.len()), answer);
}

/// A compressed answer, as far as anybody who does not decompress it can tell; and how long its body is.
fn compressed() -> (Vec<u8>, u64) {
    let body = [b"\x1f\x8b\x08\x00".as_slice(), &[0x5a; 900]].concat();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    ([head.as_bytes(), &body].concat(), body.len() as u64)
}

fn moved(report: &Value, content: &str) -> (u64, u64) {
    let bytes = &report["traffic"]["bytes"][content];
    (bytes["received"].as_u64().unwrap_or(0), bytes["sent"].as_u64().unwrap_or(0))
}

#[test]
fn shares_are_those_of_the_bytes_that_passed() {
    require!(kernel, python3, openssl);
    let scratch = Scratch::new();
    let mut tls = tls_server(&scratch);
    let port = tls.line(SOON, |line| line.contains("port"));
    let port: Value = serde_json::from_str(&port).expect("JSON");
    let port = u16::try_from(port["port"].as_u64().expect("a port")).expect("a port");

    let (listener, outside) = (Listener::v4(), Listener::v4());
    let early = listener.link();
    talk(&early, b"1234", b"5678");
    let doctor = counting("15s", &[listener.port(), port]);

    tls.signal(libc::SIGUSR1);
    let (question, answer) = (traffic::chat("plain"), Answer::new(5, 40).bytes());
    talk(&listener.link(), &question, &answer);
    // Of another port nothing is counted.
    talk(&outside.link(), &question, &answer);
    // Neither does it look like HTTP, nor is it known what came before.
    talk(&early, b"abcdefgh", b"ijk");
    let (coded, body) = compressed();
    talk(&listener.link(), &question, &coded);
    let link = listener.link();
    talk(&link, PREFACE, &[0; 700]);
    talk(&link, &[1; 50], &[2; 20]);
    let (upgrade, switched) = (
        b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".as_slice(),
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n".as_slice(),
    );
    let link = listener.link();
    talk(&link, upgrade, switched);
    talk(&link, &[3; 44], &[4; 66]);
    let link = listener.link();
    link.server.send(b"220 mail ESMTP\r\n");
    link.client.drain(16);
    talk(&link, b"EHLO x\r\n", b"250 OK\r\n");
    let of_tls = tls.line(SOON, |line| line.contains("received"));
    let of_tls: Value = serde_json::from_str(&of_tls).expect("JSON");
    let of_tls = (of_tls["received"].as_u64().expect("bytes"), of_tls["sent"].as_u64().expect("bytes"));

    let (ready, report) = report(doctor);
    assert!(ready, "{report:#}");
    println!("{:#}", report["traffic"]);
    let long = |bytes: &[u8]| bytes.len() as u64;
    let plain = (2 * long(&question) + long(upgrade), long(&answer) + long(&coded) - body + long(switched));
    assert_eq!(moved(&report, "plain"), plain);
    assert_eq!(moved(&report, "tls"), of_tls, "the older connection's bytes among them");
    assert_eq!(moved(&report, "http2"), (long(PREFACE) + 50, 700 + 20));
    assert_eq!(moved(&report, "compressed"), (0, body));
    assert_eq!(moved(&report, "upgrade"), (44, 66));
    assert_eq!(moved(&report, "not_http"), (8, 16 + 8));
    assert_eq!(moved(&report, "undecided"), (8, 3));
    let traffic = &report["traffic"];
    assert_eq!(traffic["opaque_connections"], json!({"tls": 2, "http2": 1, "compressed": 1, "upgrade": 1}));
    assert_eq!((traffic["requests"].as_u64(), traffic["lost_events"].as_u64()), (Some(2), Some(0)));
    let opaque = of_tls.0 + of_tls.1 + long(PREFACE) + 50 + 720 + body + 110;
    let ratio = opaque as f64 / (opaque + plain.0 + plain.1) as f64;
    let said = traffic["opaque_ratio"].as_f64().expect("a share");
    assert!((said - ratio).abs() < 1e-9, "{said} and {ratio}");

    let (level, found, _) = finding(&report, "traffic");
    assert!(level == "ok" && found.contains(&format!("{:.1} % opaque", ratio * 100.0)), "{found}");
    for (subject, word) in [
        ("opaque: TLS", "behind"),
        ("opaque: HTTP/2", "HTTP/1.1"),
        ("opaque: compressed", "Accept-Encoding"),
        ("opaque: upgrade", "not measured"),
    ] {
        let (level, found, advice) = finding(&report, subject);
        assert!(level == "warning" && found.contains("% of bytes") && advice.contains(word), "{found}: {advice}");
    }
    let text = report.to_string();
    assert!(!text.contains("realtime") && !text.contains("ESMTP"), "nothing of what was said");
}

fn tls_server(scratch: &Scratch) -> Process {
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| scratch.file(name));
    let mut command = Command::new(require::tool("openssl").expect("required"));
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]);
    command.args(["-subj", "/CN=localhost", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
    let made = command.output().expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut command = Command::new(require::tool("python3").expect("required"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(scripts().join("tls.py")).arg(&certificate).arg(&key);
    Process::spawn("tls.py", command)
}

/// A server that reads and writes by io_uring, and one whose clients speak Multipath TCP.
#[test]
fn calls_and_transports_that_hide_bytes() {
    require!(kernel, io_uring, mptcp);
    let (listener, multipath) = (Listener::v4(), Listener::multipath().expect("required"));
    let doctor = counting("10s", &[listener.port(), multipath.port()]);
    let (question, answer) = (traffic::chat("hidden"), Answer::new(3, 30).bytes());
    let link = listener.link();
    let ring = Ring::new().expect("required");
    for _ in 0..2 {
        let got = ring.recv(&link.server, 65_536, Mode::Worker, || {
            link.client.send(&question);
        });
        // The request is one segment, and one read.
        assert_eq!(got, question);
        ring.send(&link.server, &answer, Mode::Worker);
        link.client.drain(answer.len());
    }
    let link = multipath.multipath_link();
    talk(&link, &question, &answer);
    let (_, report) = report(doctor);
    let long = |bytes: &[u8]| bytes.len() as u64;
    assert_eq!(moved(&report, "unreadable"), (2 * long(&question), 2 * long(&answer)), "{:#}", report["traffic"]);
    assert_eq!(moved(&report, "mptcp"), (long(&question), long(&answer)), "{:#}", report["traffic"]);
    assert_eq!(report["traffic"]["opaque_connections"], json!({"unreadable": 1, "mptcp": 1}));
    assert_eq!(report["traffic"]["opaque_ratio"].as_f64(), Some(1.0));
    for subject in ["opaque: io_uring", "opaque: MPTCP"] {
        let (level, _, advice) = finding(&report, subject);
        assert!(level == "warning" && !advice.is_empty());
    }
}

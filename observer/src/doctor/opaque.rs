//! What is said of traffic, and what to do about what cannot be read.

use super::traffic::{Traffic, is_opaque};
use crate::{
    event::Content,
    kernel::capabilities::{Finding, Level},
};

/// Who may be asked for what, in a finding without traffic.
const HOW: &str = "observer doctor --for 5s counts for so long what passes on the ports in scope";

fn finding(subject: &'static str, level: Level, found: String, advice: &str) -> Finding {
    Finding { subject, level, found, advice: advice.to_owned() }
}

/// Nothing was counted.
pub(super) fn not_counted() -> Finding {
    finding("traffic", Level::Ok, format!("not looked at: {HOW}"), "")
}

/// It could not be counted.
pub(super) fn failed(reason: &dyn std::fmt::Display) -> Finding {
    finding("traffic", Level::Warning, format!("not counted: {reason}"), "see what is marked above")
}

/// What passed: one finding for all, and one for each kind that cannot be read.
pub(super) fn findings(traffic: &Traffic) -> Vec<Finding> {
    let span = match traffic.seconds {
        Some(seconds) => format!("in {seconds:.1} s"),
        None => format!("since its start, says the observer at {}", traffic.source),
    };
    let whole = traffic.whole();
    let aside = traffic.sum(|content| matches!(content, Content::NotHttp | Content::Undecided));
    let mut findings = Vec::new();
    findings.push(if whole == 0 {
        let found = format!("no HTTP and nothing opaque passed on ports in scope {span}");
        let advice = if traffic.seconds.is_some() { "send a request meanwhile, or take a longer --for" } else { "" };
        finding("traffic", Level::Ok, found, advice)
    } else {
        let requests = traffic.requests.map(|count| format!(", {count} LLM requests ended")).unwrap_or_default();
        let plain = share(traffic.sum(|content| content == Content::Plain), whole);
        let opaque = share(traffic.sum(is_opaque), whole);
        let found = format!("{} {span}{requests}: {plain} plain HTTP/1.1, {opaque} opaque", size(whole));
        finding("traffic", Level::Ok, found, "")
    });
    for (content, bytes) in traffic.bytes.iter().filter(|(content, _)| is_opaque(**content)) {
        let connections = traffic.opaque_connections.get(content.as_str());
        let connections = connections.map(|count| format!(", {count} connections")).unwrap_or_default();
        let found = format!(
            "{} of bytes ({}{connections}): {}",
            share(bytes.total(), whole),
            size(bytes.total()),
            name(*content)
        );
        findings.push(finding(subject(*content), Level::Warning, found, advice(*content)));
    }
    // Told of, but not even one more byte was seen of them.
    for (reason, count) in &traffic.opaque_connections {
        if let Some(content) = Content::ALL.into_iter().find(|content| content.as_str() == *reason)
            && !traffic.bytes.contains_key(&content)
        {
            let found = format!("{count} connections without further bytes: {}", name(content));
            findings.push(finding(subject(content), Level::Warning, found, advice(content)));
        }
    }
    if aside > 0 {
        let of = |content| size(traffic.sum(|other| other == content));
        let (other, undecided) = (of(Content::NotHttp), of(Content::Undecided));
        let found = format!(
            "{other} of something other than HTTP, and {undecided} on connections older than this look, of which \
             nobody can tell before their next request: no part of the shares above"
        );
        findings.push(finding("other traffic", Level::Ok, found, ""));
    }
    if traffic.lost_events > 0 {
        let found = format!("{} events: that much is missing from what is plain", traffic.lost_events);
        findings.push(finding("lost events", Level::Warning, found, "name fewer --ports"));
    }
    findings
}

/// For the left column, and what people search for.
const fn subject(content: Content) -> &'static str {
    match content {
        Content::Tls => "opaque: TLS",
        Content::Ktls => "opaque: kTLS",
        Content::Http2 => "opaque: HTTP/2",
        Content::Mptcp => "opaque: MPTCP",
        Content::Unreadable => "opaque: io_uring",
        Content::Upgrade => "opaque: upgrade",
        Content::Connect => "opaque: CONNECT",
        Content::Compressed => "opaque: compressed",
        Content::Plain | Content::NotHttp | Content::Undecided => "traffic",
    }
}

const fn name(content: Content) -> &'static str {
    match content {
        Content::Tls => "encrypted by the server or a proxy",
        Content::Ktls => "encrypted by the kernel for the server",
        Content::Http2 => "HTTP/2 without TLS (h2c), as gRPC has it",
        Content::Mptcp => "Multipath TCP, whose subflows have numbers of their own",
        Content::Unreadable => "read by io_uring or splice, whose buffers no hook sees",
        Content::Upgrade => "WebSocket or another protocol after 101 Switching Protocols",
        Content::Connect => "a tunnel that CONNECT opened",
        Content::Compressed => "bodies in a content coding: such requests have their times, but no tokens",
        Content::Plain | Content::NotHttp | Content::Undecided => "",
    }
}

const fn advice(content: Content) -> &'static str {
    match content {
        Content::Tls | Content::Ktls => {
            "observe behind what ends TLS: let a proxy do it (nginx, Envoy, an ingress) and the server speak plain HTTP \
             behind it; the proxy's own port stays opaque"
        }
        Content::Http2 => {
            "let the proxy or the client speak HTTP/1.1 to the server (nginx: proxy_http_version 1.1; Envoy: no \
             http2_protocol_options on the cluster)"
        }
        Content::Mptcp => {
            "let the server listen by plain TCP (Go 1.24 and later: GODEBUG=multipathtcp=0; mptcpize disable for a \
             systemd unit)"
        }
        Content::Unreadable => "run the server with an event loop on epoll, if it has one",
        Content::Upgrade | Content::Connect => "nothing here: such connections are not measured; use the plain routes",
        Content::Compressed => {
            "have clients or the proxy ask without Accept-Encoding (nginx: proxy_set_header Accept-Encoding \"\"), or \
             leave the server's compression off for its API"
        }
        Content::Plain | Content::NotHttp | Content::Undecided => "",
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn share(part: u64, whole: u64) -> String {
    match part as f64 / whole.max(1) as f64 * 100.0 {
        percent if part > 0 && percent < 0.1 => "under 0.1 %".to_owned(),
        percent if part < whole && percent > 99.9 => "over 99.9 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn size(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes < 1e3 => format!("{bytes} B"),
        bytes if bytes < 1e6 => format!("{:.1} kB", bytes / 1e3),
        bytes if bytes < 1e9 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.1} GB", bytes / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::traffic::Bytes, *};

    #[test]
    fn shares_are_of_what_may_be_language_models_traffic() {
        let bytes = |received, sent| Bytes { received, sent };
        let traffic = Traffic {
            source: "this command".into(),
            seconds: Some(5.0),
            requests: Some(2),
            opaque_connections: [("tls", 3), ("http2", 1)].into(),
            bytes: [
                (Content::Plain, bytes(1000, 2000)),
                (Content::Tls, bytes(500, 500)),
                (Content::NotHttp, bytes(0, 70_000)),
            ]
            .into(),
            opaque_ratio: Some(0.25),
            lost_events: 0,
        };
        let findings = findings(&traffic);
        let said: Vec<_> = findings.iter().map(|finding| (finding.subject, finding.found.as_str())).collect();
        assert_eq!(said[0], ("traffic", "4.0 kB in 5.0 s, 2 LLM requests ended: 75.0 % plain HTTP/1.1, 25.0 % opaque"));
        assert_eq!(
            said[1],
            ("opaque: TLS", "25.0 % of bytes (1.0 kB, 3 connections): encrypted by the server or a proxy")
        );
        assert!(said[2].0 == "opaque: HTTP/2" && said[2].1.starts_with("1 connections without further bytes"));
        assert!(said[3].0 == "other traffic" && said[3].1.contains("70.0 kB"), "{said:?}");
        assert!(findings[1..3].iter().all(|finding| !finding.advice.is_empty()));
    }

    #[test]
    fn everything_opaque_has_a_name_and_advice() {
        for content in Content::ALL.into_iter().filter(|content| is_opaque(*content)) {
            assert!(!name(content).is_empty() && !advice(content).is_empty() && subject(content) != "traffic");
        }
    }

    #[test]
    fn small_shares_are_not_none() {
        assert_eq!(
            (share(0, 10), share(1, 10_000), share(1, 4)),
            ("0.0 %".into(), "under 0.1 %".into(), "25.0 %".into())
        );
        assert_eq!((share(9_999, 10_000), share(10, 10)), ("over 99.9 %".into(), "100.0 %".into()));
    }
}

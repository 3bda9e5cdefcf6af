//! Short writes, blocked ones, and bytes that say nothing to us: case 25.

use observer::{
    event::{Content, Data, Direction, OpaqueReason},
    request::record::Outcome,
};

use super::ttft;
use crate::{
    harness::{END, Host, STREAM_HEAD, Said, at, chat, chunk, content, done, ms, request},
    splits::Script,
};

#[test]
fn case_25_only_what_was_written_counts() {
    // At every byte of an event: a write that took so much of it, one in vain, the rest.
    let token = content("a");
    for cut in 1..token.len() {
        let mut host = Host::new();
        host.read(0.0, chat(true));
        host.write(1.0, STREAM_HEAD);
        let front = &token.as_bytes()[..cut];
        host.data(&Data { requested: Some(token.len() as u32), ..host.call(Direction::Send, 2.0, front) });
        host.failed_write(2.5, libc::EAGAIN);
        host.write(7.0, &token[cut..]);
        host.failed_write(8.0, libc::EAGAIN);
        host.failed_write(8.5, libc::EAGAIN);
        host.write(9.0, content("b"));
        host.write(10.0, END);
        let record = host.record();
        // The blank line that ends it may have been in the first part; the chunk's own line end is no part of it.
        let first = if cut >= token.len() - 2 { 2.0 } else { 7.0 };
        assert_eq!((ttft(record), record.token_events), (ms(first), Some(2)), "{cut}");
        assert_eq!((record.write_blocked, record.outcome), (ms(6.0), Outcome::Ok), "{cut}");
        assert_eq!(record.response_bytes, u64::from(host.sent.wrapping_sub(12345)), "{cut}");
    }
}

#[test]
fn case_25_what_is_not_http_from_the_start() {
    for reason in [OpaqueReason::Tls, OpaqueReason::Http2, OpaqueReason::Mptcp, OpaqueReason::Unreadable] {
        let mut host = Host::bare();
        host.open(|open| open.opaque = Some(reason));
        assert_eq!((host.said.opaque.as_slice(), host.tracker.connections()), ([reason].as_slice(), 0));
        // Nothing more is told of it; bytes that are nevertheless are not guessed at.
        host.read(1.0, chat(true));
        host.write(2.0, format!("{STREAM_HEAD}{}{END}", content("a")));
        assert_eq!((host.said.records.len(), host.said.others, host.said.unparsed), (0, 0, [0, 0]));
    }
    // HTTP/1 at first sight, and found not to be: a prefix of a method, and then the preface of HTTP/2.
    let mut host = Host::new();
    host.read(1.0, "PR");
    host.open(|open| open.opaque = Some(OpaqueReason::Http2));
    assert_eq!((host.said.opaque.as_slice(), host.said.records.len()), ([OpaqueReason::Http2].as_slice(), 0));
}

#[test]
fn case_25_the_preface_of_http2_is_no_request() {
    let said = Script::default().read(1.0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0").every_split();
    assert_eq!((said.records.len(), said.others), (0, 0), "{said:?}");
    assert!(said.unparsed[0] > 0, "and is counted: {said:?}");
}

#[test]
fn case_25_upgrades_and_tunnels() {
    let websocket = "GET /v1/realtime HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let said = Script::default()
        .read(0.0, chat(false))
        .write(1.0, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .read(2.0, websocket)
        .write(3.0, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{1}\u{2}")
        .read(4.0, request("/v1/completions", "{}"))
        .write(5.0, format!("{STREAM_HEAD}{}{END}", content("a")))
        .every_split();
    assert_eq!((said.opaque.as_slice(), said.others), ([OpaqueReason::Upgrade].as_slice(), 1));
    let after = request("/v1/completions", "{}").len() as u64;
    assert_eq!(said.bytes[&(Content::Upgrade, "receive")], after);
    assert_eq!(said.bytes[&(Content::Upgrade, "send")], 2 + format!("{STREAM_HEAD}{}{END}", content("a")).len() as u64);
    assert_eq!(said.bytes[&(Content::Plain, "receive")], (chat(false).len() + websocket.len()) as u64);
    assert_eq!(said.record().outcome, Outcome::Ok, "what came before stands");
    assert_eq!(said.unparsed, [0, 0]);

    for (status, opaque) in [("200 Connection established", vec![OpaqueReason::Connect]), ("403 No", vec![])] {
        let length = if opaque.is_empty() { "Content-Length: 0\r\n" } else { "" };
        let said = Script::default()
            .read(0.0, "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n")
            .write(1.0, format!("HTTP/1.1 {status}\r\n{length}\r\n"))
            .read(2.0, chat(true))
            .every_split();
        assert_eq!((said.opaque.clone(), said.others, said.records.len()), (opaque, 1, 0));
    }
}

fn coded(coding: &str) -> Said {
    // Bytes that would be an event, were they not coded: nobody may look.
    let content = format!("\u{1f}\u{8}{}", content("a"));
    let head = STREAM_HEAD.replacen("\r\n\r\n", &format!("\r\nContent-Encoding: {coding}\r\n\r\n"), 1);
    let mut script = Script::default();
    for time in [0.0, 10.0] {
        script = script
            .read(time, chat(true))
            .write(time + 1.0, &head)
            .write(time + 2.0, chunk(&content))
            .write(time + 3.0, END);
    }
    script.every_split()
}

#[test]
fn case_25_a_coded_response_has_times_and_no_tokens() {
    for coding in ["gzip", "zstd", "br", "x-new, gzip"] {
        let said = coded(coding);
        assert_eq!(said.opaque, [OpaqueReason::Compressed], "once for a connection");
        let [first, second] = &said.records[..] else { panic!("{said:?}") };
        for (record, begin) in [(first, 0.0), (second, 10.0)] {
            assert_eq!((record.outcome, record.status, record.stream), (Outcome::Ok, Some(200), Some(true)));
            assert_eq!((record.token_events, record.timeline.first, record.timeline.last), (None, None, None));
            assert_eq!((record.coalesced, record.gaps.count, record.usage.output), (0, 0, None));
            assert_eq!(record.timeline.header, Some(at(begin + 1.0)));
            assert_eq!(record.timeline.end, Some(at(begin + 3.0)));
        }
        assert_eq!(first.response_bytes, second.response_bytes);
        assert!(first.response_bytes > 100);
        let coded = format!("\u{1f}\u{8}{}", content("a")).len() as u64;
        assert_eq!(said.bytes[&(Content::Compressed, "send")], 2 * coded, "without their framing");
        let all = said.bytes[&(Content::Plain, "send")] + 2 * coded;
        assert_eq!(all, first.response_bytes + second.response_bytes, "each byte once");
        assert_eq!(said.bytes[&(Content::Plain, "receive")], 2 * chat(true).len() as u64);
    }
    assert_eq!(coded("identity").records[0].token_events, Some(1), "no coding at all");
}

#[test]
fn case_25_a_coded_answer_and_a_coded_request() {
    let zstd = "\u{28}\u{2f}not text \"model\":\"evil\"";
    let head = |coding: &str| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            zstd.len()
        )
    };
    let said = Script::default()
        .read(0.0, head("zstd") + zstd)
        .write(1.0, format!("{STREAM_HEAD}{}{}{END}", content("a"), done()))
        .read(10.0, head("gzip") + zstd)
        .write(
            11.0,
            format!("HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{zstd}", zstd.len()),
        )
        .every_split();
    let [first, second] = &said.records[..] else { panic!("{said:?}") };
    assert_eq!((first.outcome, first.token_events, first.stream), (Outcome::Ok, Some(1), Some(true)));
    assert_eq!((first.request_model.as_deref(), first.response_model.as_deref()), (None, Some("served")));
    for direction in ["receive", "send"] {
        let bodies = if direction == "send" { 1 } else { 2 };
        assert_eq!(said.bytes[&(Content::Compressed, direction)], bodies * zstd.len() as u64);
    }
    assert_eq!(first.request_bytes, (head("zstd").len() + zstd.len()) as u64);
    assert_eq!((second.outcome, second.status), (Outcome::HttpError, Some(500)));
    assert_eq!((&second.request_model, &second.response_model), (&None, &None));
}

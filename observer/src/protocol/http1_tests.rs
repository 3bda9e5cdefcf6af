use proptest::prelude::*;

use super::*;

/// Frames as text, bodies joined.
fn parse<K: Kind>(chunks: &[Chunk<'_>], answers: Method) -> (Vec<String>, Parser<K>)
where
    K::Head: std::fmt::Debug,
{
    let (mut parser, mut out) = (Parser::<K>::default(), Vec::<String>::new());
    let mut lost = false;
    for chunk in chunks {
        let mut chunk = *chunk;
        if lost {
            break;
        }
        while let Some(frame) = parser.step(&mut chunk, answers) {
            let text = match frame {
                Frame::Begin => continue,
                Frame::Body(Chunk::Data(bytes)) => format!("body {}", String::from_utf8_lossy(bytes)),
                Frame::Body(Chunk::Gap(n)) => format!("body {}", "?".repeat(n as usize)),
                Frame::Head(head) => format!("{head:?}"),
                Frame::End => format!("end {}", parser.message_bytes()),
                Frame::Lost(loss) => {
                    lost = true;
                    format!("{loss:?}")
                }
            };
            match (out.last_mut(), text.strip_prefix("body ")) {
                (Some(last), Some(more)) if last.starts_with("body ") => last.push_str(more),
                _ => out.push(text),
            }
        }
        assert!(chunk.is_empty());
    }
    (out, parser)
}

fn requests(text: &str) -> Vec<String> {
    parse::<Request>(&[Chunk::Data(text.as_bytes())], Method::Other).0
}

#[test]
fn headers_that_were_wanted_are_kept_and_no_others() {
    let names: Arc<[Box<str>]> = Arc::new(["x-tenant".into(), "X-Team".into()]);
    let long = "l".repeat(129);
    let heads = |wanted: Option<Arc<[Box<str>]>>, text: &str| {
        let mut parser = RequestParser::wanting(wanted);
        let mut heads = Vec::new();
        let mut chunk = Chunk::Data(text.as_bytes());
        while let Some(frame) = parser.step(&mut chunk, Method::Other) {
            match frame {
                Frame::Head(head) => {
                    heads.push(head.wanted.iter().map(|value| value.as_deref().map(str::to_owned)).collect::<Vec<_>>())
                }
                Frame::End => parser.reset(),
                _ => {}
            }
        }
        heads
    };
    let text = format!(
        "GET / HTTP/1.1\r\nX-TENANT:  acme 1 \r\nx-team: blue\r\nx-tenant: second\r\n\r\n\
         GET / HTTP/1.1\r\nx-tenant: \r\nx-team: {long}\r\n\r\n\
         GET / HTTP/1.1\r\nx-tenant: caf\u{e9}\r\nx-team: {}\r\n\r\n\
         GET / HTTP/1.1\r\nx-tenants: a\r\n\r\n",
        &long[1..]
    );
    let some = |text: &str| Some(text.to_owned());
    let expected =
        [vec![some("acme 1"), some("blue")], vec![None, None], vec![None, some(&long[1..])], vec![None, None]];
    assert_eq!(heads(Some(names), &text), expected);
    assert_eq!(heads(None, &text), [const { Vec::new() }; 4]);
}

fn responses(text: &str, answers: Method) -> Vec<String> {
    parse::<Response>(&[Chunk::Data(text.as_bytes())], answers).0
}

#[test]
fn pipelined_requests_of_each_framing() {
    let frames = requests(
        "POST /a HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\nabc\r\nGET /b HTTP/1.0\n\nPUT /c HTTP/1.1\r\nTransfer-Encoding: \
         gzip, Chunked\r\nContent-Length: 9\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    );
    assert_eq!(frames.len(), 8, "{frames:#?}");
    assert!(frames[0].contains("Post") && frames[0].contains("\"/a\""));
    assert_eq!(frames[1..3], ["body abc", "end 42"]);
    assert!(frames[3].contains("\"/b\""));
    assert_eq!(frames[4], "end 17");
    assert_eq!(frames[6], "body x");
}

#[test]
fn request_id_and_trace() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let head = |id: &str, parent: &str| {
        requests(&format!("GET / HTTP/1.1\r\nX-Request-ID: {id}\r\nTraceParent: {parent}\r\n\r\n"))[0].clone()
    };
    let frame = head("abc-1", &format!("00-{trace}-00f067aa0ba902b7-01"));
    assert!(frame.contains("\"abc-1\"") && frame.contains(trace), "{frame}");
    let frame = head(&"x".repeat(129), &format!("ff-{trace}-00f067aa0ba902b7-01"));
    assert!(frame.contains("request_id: None, trace_id: None"), "{frame}");
    assert!(head("a", "00-00000000000000000000000000000000-00f067aa0ba902b7-01").contains("trace_id: None"));
    assert!(head("h\u{e9}", "nonsense").contains("request_id: None, trace_id: None"));
}

#[test]
fn garbage_is_no_request() {
    for garbage in [
        "\u{16}\u{3}\u{1}",
        "get / HTTP/1.1\r\n\r\n",
        "POST\r\n\r\n",
        "POST x HTTP/1.1\r\n\r\n",
        "POST / HTTP/2.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "TOOLONGFORAMETHODNAME / HTTP/1.1\r\n\r\n",
        "{\"a\":1}",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        assert_eq!(requests(garbage), ["Unparsable"], "{garbage:?}");
    }
    let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(HEAD_MAX));
    assert_eq!(requests(&endless), ["Unparsable"]);
}

#[test]
fn responses_without_a_body() {
    let head = "Content-Length: 5\r\n\r\n";
    assert_eq!(responses(&format!("HTTP/1.1 200 OK\r\n{head}"), Method::Head)[1], "end 38");
    assert_eq!(responses(&format!("HTTP/1.1 204 No\r\n{head}"), Method::Other)[1], "end 38");
    assert_eq!(responses(&format!("HTTP/1.1 304 No\r\n{head}"), Method::Other)[1], "end 38");
}

#[test]
fn interim_responses_are_skipped() {
    let frames = responses(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: \
         2\r\n\r\nhi",
        Method::Post,
    );
    assert_eq!(frames.len(), 3, "{frames:#?}");
    assert!(frames[0].contains("200"));
    assert_eq!(frames[1..], ["body hi", "end 40"]);
}

#[test]
fn tunnels() {
    assert!(responses("HTTP/1.1 101 Switching\r\n\r\nxyz", Method::Other)[0].contains("tunnel: true"));
    assert!(responses("HTTP/1.1 200 OK\r\n\r\nxyz", Method::Connect)[0].contains("tunnel: true"));
    assert!(responses("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", Method::Connect)[0].contains("tunnel: false"));
}

#[test]
fn close_delimited() {
    let (frames, mut parser) = parse::<Response>(&[Chunk::Data(b"HTTP/1.0 200 OK\n\nabc")], Method::Other);
    assert_eq!(frames[1..], ["body abc"]);
    assert!(parser.is_until_close() && parser.close() && !parser.close());
}

#[test]
fn content_types_and_codings() {
    let head = |fields: &str| responses(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"), Method::Other)[0].clone();
    assert!(head("CONTENT-TYPE: Text/Event-Stream; charset=utf-8").contains("EventStream, coded: false"));
    assert!(head("content-type: application/problem+json").contains("Json"));
    assert!(head("content-type: text/html\r\ncontent-encoding: gzip").contains("Other, coded: true"));
    assert!(head("content-encoding: identity").contains("coded: false"));
}

#[test]
fn gaps() {
    let head = b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nab";
    let next = b"jGET / HTTP/1.1\r\n\r\n";
    let (frames, _) = parse::<Request>(&[Chunk::Data(head), Chunk::Gap(7), Chunk::Data(next)], Method::Other);
    assert_eq!(frames[1..3], ["body ab???????j", "end 49"]);
    assert_eq!(frames.last().unwrap(), "end 18");
    let (frames, _) = parse::<Request>(&[Chunk::Data(head), Chunk::Gap(9)], Method::Other);
    assert_eq!(frames[1..], ["body ab????????", "end 49", "HeadGap"]);
    let (frames, parser) = parse::<Request>(&[Chunk::Data(&head[..20]), Chunk::Gap(1)], Method::Other);
    assert_eq!(frames, ["HeadGap"]);
    assert_eq!(parser.head_bytes(), &head[..20]);
}

const REQUESTS: &[u8] = b"\r\nPOST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nhello world!\
    GET /health HTTP/1.1\n\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n\
    nonsense";
const RESPONSES: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nnoHTTP/1.0 \
    200 OK\r\n\r\neverything else\r\n\r\n";

fn cut(bytes: &'static [u8], mut cuts: Vec<usize>) -> Vec<Chunk<'static>> {
    cuts.extend([0, bytes.len()]);
    cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
    cuts.sort_unstable();
    cuts.windows(2).map(|w| Chunk::Data(&bytes[w[0]..w[1]])).collect()
}

proptest! {
    #[test]
    fn every_split_gives_the_same(cuts in proptest::collection::vec(0..300_usize, 0..12)) {
        let whole = parse::<Request>(&[Chunk::Data(REQUESTS)], Method::Other).0;
        prop_assert_eq!(whole.len(), 9);
        prop_assert_eq!(parse::<Request>(&cut(REQUESTS, cuts.clone()), Method::Other).0, whole);
        let whole = parse::<Response>(&[Chunk::Data(RESPONSES)], Method::Other).0;
        prop_assert_eq!(whole.len(), 8);
        prop_assert_eq!(parse::<Response>(&cut(RESPONSES, cuts), Method::Other).0, whole);
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), gap in 0..9_u64) {
        let chunks = [Chunk::Data(&bytes), Chunk::Gap(gap), Chunk::Data(&bytes)];
        parse::<Request>(&chunks, Method::Other);
        parse::<Response>(&chunks, Method::Post);
    }
}

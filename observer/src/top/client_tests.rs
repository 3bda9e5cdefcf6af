//! The client against real sockets.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{
    FetchError, TopError, TopOptions,
    client::{Client, Endpoint, parse},
    first_answer, run,
    trust::{Credentials, Trust},
};

const BODY: &str = r#"{"version":"0.1.0","uptime_seconds":5.0,"window_seconds":60.0,"servers":[],
"ttft_heatmap":{"bounds":[],"column_seconds":1.0,"columns":[]},"observer":{"events_per_second":0.0,"events":7,
"lost":{},"incomplete":{},"opaque":{},"connections":0,"cpu_ratio":0.0,"resident_bytes":1,"probes":[],"scope":"é"}}"#;

/// A server that answers each connection with `answer`, after reading the whole request. Returns its address, and
/// what was asked.
fn serve(answer: impl Fn(&mut TcpStream) + Send + 'static) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (asked, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _nobody_asks = asked.send(request(&mut stream));
            answer(&mut stream);
        }
    });
    (address, requests)
}

fn request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap()
}

fn client(address: &str) -> Client {
    Client::new(Endpoint::parse(address).unwrap(), Trust::default()).with_answer_timeout(Duration::from_millis(400))
}

/// What the client makes of a server that sends `bytes` and closes.
fn fetch(bytes: String) -> Result<u64, FetchError> {
    let (address, _requests) = serve(move |stream| stream.write_all(bytes.as_bytes()).unwrap());
    client(&address).fetch().map(|summary| summary.observer.events)
}

fn with_length(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn chunked(body: &str) -> String {
    let mut text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for chunk in body.as_bytes().chunks(100) {
        text += &format!("{:X};x=y\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap());
    }
    text + "0\r\nTrailer: z\r\n\r\n"
}

#[test]
fn asks_as_it_should_on_an_open_connection() {
    // The server keeps the connection: the length alone ends the answer.
    let (address, requests) = serve(|stream| {
        stream.write_all(with_length(BODY).as_bytes()).unwrap();
        let _closed = stream.read(&mut [0]);
    });
    let summary = client(&format!("http://{address}/behind/a/proxy/")).fetch().unwrap();
    assert_eq!((summary.observer.events, summary.observer.scope.as_str()), (7, "é"));
    let request = requests.recv().unwrap();
    assert!(request.starts_with("GET /behind/a/proxy/api/v1/summary HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nHost: {address}\r\n")), "{request}");
}

#[test]
fn reads_every_kind_of_body() {
    assert_eq!(fetch(with_length(BODY)).unwrap(), 7);
    assert_eq!(fetch(chunked(&BODY.replace('é', "e"))).unwrap(), 7);
    assert_eq!(fetch(format!("HTTP/1.0 200 OK\r\n\r\n{BODY}")).unwrap(), 7);
    assert_eq!(fetch(format!("HTTP/1.1 103 Early\r\na: b\r\n\r\n{}", with_length(BODY))).unwrap(), 7);
}

#[test]
fn reads_an_answer_in_any_pieces() {
    for text in [with_length(BODY), chunked(&BODY.replace('é', "e"))] {
        let bytes = text.as_bytes();
        let whole = parse(bytes, false).unwrap().unwrap();
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end], false).unwrap(), None, "{end} of {}", bytes.len());
        }
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&whole.body).unwrap()["observer"]["events"], 7);
    }
    let (address, _requests) = serve(|stream| {
        for piece in chunked(&BODY.replace('é', "e")).as_bytes().chunks(70) {
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
    });
    assert_eq!(client(&address).fetch().unwrap().observer.events, 7);
}

#[test]
fn tells_what_is_wrong_with_an_answer() {
    let cut = with_length(BODY);
    for (answer, error) in [
        (
            cut[..cut.len() - 1].to_owned(),
            format!("connection closed after {} bytes of an incomplete answer", cut.len() - 1),
        ),
        (String::new(), "connection closed after 0 bytes of an incomplete answer".to_owned()),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_owned(), "HTTP status 500".to_owned()),
        ("HTTP/1.1 404 Not Found\r\n\r\nno".to_owned(), "HTTP status 404".to_owned()),
        (
            "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
            "the answer is not HTTP/1: it does not begin with a status line".to_owned(),
        ),
        (
            "HTTP/1.1 twohundred\r\n\r\n".to_owned(),
            "the answer is not HTTP/1: its status line has no status".to_owned(),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            "the answer is not HTTP/1: the size of a chunk is no number".to_owned(),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n".to_owned(),
            "the answer is not HTTP/1: a chunk is longer than its size".to_owned(),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_owned(),
            "the answer is longer than 4194304 bytes".to_owned(),
        ),
        (with_length("<html>"), "its answer is no summary: expected value at line 1 column 1".to_owned()),
    ] {
        assert_eq!(fetch(answer.clone()).unwrap_err().to_string(), error, "{answer}");
    }
}

#[test]
fn an_endless_answer_is_given_up() {
    let (address, _requests) = serve(|stream| {
        let _reset = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b' '; 65536]).is_ok() {}
    });
    assert!(matches!(
        client(&address).with_answer_timeout(Duration::from_secs(20)).fetch(),
        Err(FetchError::TooLong(_))
    ));
}

#[test]
fn a_trickle_does_not_prolong_the_wait() {
    let (address, _requests) = serve(|stream| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"a: b\r\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let start = Instant::now();
    let error = client(&address).fetch().unwrap_err();
    assert_eq!(error.to_string(), "no complete answer within 400ms");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// The address of nobody.
fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn says_what_to_do_when_nobody_answers() {
    let address = closed_port();
    let options = TopOptions {
        url: address.clone(),
        credentials: Credentials::default(),
        interval: Duration::MAX,
        run_for: Some(Duration::MAX),
        plain: true,
    };
    let start = Instant::now();
    let error = run(&options).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no observer answers at http://{address} (connection refused): start one with `observer run`, or name its \
             address with --url"
        )
    );
    assert!(std::error::Error::source(&error).is_none(), "the message would be printed twice");
    assert!(start.elapsed() > Duration::from_secs(2), "it may still be starting: {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn waits_for_an_observer_that_is_starting() {
    let address = closed_port();
    let late = address.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        let listener = TcpListener::bind(late).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        request(&mut stream);
        stream.write_all(with_length(BODY).as_bytes()).unwrap();
    });
    assert_eq!(first_answer(&client(&address), Duration::from_secs(5)).unwrap().observer.events, 7);
}

#[test]
fn tells_another_server_and_a_sick_observer_from_silence() {
    let (address, _requests) = serve(|stream| stream.write_all(with_length("hello").as_bytes()).unwrap());
    let error = first_answer(&client(&address), Duration::ZERO).unwrap_err();
    assert!(matches!(error, TopError::NotAnObserver { .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("what answers at http://{address} does not talk like an observer")));
    let (address, _requests) = serve(|stream| stream.write_all(b"HTTP/1.1 503 x\r\n\r\n").unwrap());
    let error = first_answer(&client(&address), Duration::ZERO).unwrap_err();
    assert!(matches!(error, TopError::Refused { .. }), "{error}");
}

#[test]
fn urls_as_people_write_them() {
    for (url, shown) in [
        ("http://127.0.0.1:9478", "http://127.0.0.1:9478"),
        (" HTTP://gpu-7:80/ ", "http://gpu-7:80"),
        ("gpu-7", "http://gpu-7:9478"),
        ("localhost:1234", "http://localhost:1234"),
        ("http://[::1]:9478/x/", "http://[::1]:9478/x"),
        ("[fe80::1]", "http://[fe80::1]:9478"),
        ("http://h:9/p/api/v1/summary", "http://h:9/p"),
    ] {
        assert_eq!(Endpoint::parse(url).unwrap().to_string(), shown);
    }
    for (url, reason) in [
        ("", "names no host"),
        ("http://:80", "names no host"),
        ("ftp://h", "only http and https are spoken"),
        ("ftp://h", "only http"),
        ("h:0", "no number from 1"),
        ("h:65536", "no number from 1"),
        ("h:", "no number from 1"),
        ("::1", "goes into [ ]"),
        ("http://[::1", "is not closed"),
        ("http://[::1]9478x", "no number from 1"),
        ("http://user:pass@h", "more than a host"),
        ("http://h/a b", "more than a host"),
        ("http://h/\r\nX: y", "more than a host"),
    ] {
        let error = Endpoint::parse(url).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("http://host:port"), "{url}: {error}");
    }
}

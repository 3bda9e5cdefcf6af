//! Proxies and backends on one host.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::harness::{END, Host, STREAM_HEAD, at, content, request};
use observer::{
    event::{Connect, Cookie, Event, StateChange},
    request::{hops::CLIENTS_MAX, record::Role},
};

const PROXY: u32 = 100;
const BACKEND: u32 = 200;
const STRANGER: u32 = 999;

fn server(pid: u32) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8000 + u16::try_from(pid).expect("small")))
}

/// The client's end of a connection.
fn client(cookie: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 40_000 + u16::try_from(cookie).expect("small")))
}

/// Several connections, each with its cookie.
struct Net {
    host: Host,
    positions: BTreeMap<u64, (u32, u32)>,
}

impl Net {
    fn new() -> Self {
        Self { host: Host::bare(), positions: BTreeMap::new() }
    }

    fn on(&mut self, cookie: u64) -> &mut Host {
        self.positions.insert(self.host.cookie, (self.host.received, self.host.sent));
        self.host.cookie = cookie;
        (self.host.received, self.host.sent) = self.positions.get(&cookie).copied().unwrap_or((1000, 2000));
        &mut self.host
    }

    /// Process `pid` is the server of a connection.
    fn open(&mut self, cookie: u64, pid: u32) {
        self.on(cookie).open(|open| {
            (open.pid, open.server, open.client) = (pid, Some(server(pid)), Some(client(cookie)));
        });
    }

    /// Process `pid` is the client of a connection to `to`.
    fn connect(&mut self, cookie: u64, pid: u32, to: u32) {
        let connect = Connect { time: at(0.0), pid, local: client(cookie), remote: server(to) };
        self.host.event(&Event::Connect(connect));
    }

    /// A connection of process `from` to process `to`.
    fn link(&mut self, cookie: u64, from: u32, to: u32) {
        self.connect(cookie, from, to);
        self.open(cookie, to);
    }

    fn ask(&mut self, cookie: u64, time: f64, request: &str) {
        self.on(cookie).read(time, request);
    }

    fn answer(&mut self, cookie: u64, time: f64) {
        let host = self.on(cookie);
        host.write(time, STREAM_HEAD);
        host.write(time + 0.1, content("a"));
        host.write(time + 0.2, END);
    }

    /// The roles of all requests that are over, by connection, in the order of their ends.
    fn roles(&self) -> Vec<(u64, Role)> {
        self.host.said.records.iter().map(|record| (record.connection.cookie.0, record.role)).collect()
    }
}

fn chat_for(model: &str) -> String {
    chat_with(model, "")
}

fn chat_with(model: &str, headers: &str) -> String {
    let request = request("/v1/chat/completions", &format!(r#"{{"model":"{model}","stream":true,"messages":[]}}"#));
    request.replacen("host: x\r\n", &format!("host: x\r\n{headers}"), 1)
}

fn embedding() -> String {
    request("/v1/embeddings", r#"{"model":"e","input":"text"}"#)
}

#[test]
fn a_proxy_and_its_backend() {
    let mut net = Net::new();
    net.open(1, PROXY);
    net.link(2, PROXY, BACKEND);
    net.ask(1, 1.0, &chat_for("m"));
    net.ask(2, 2.0, &chat_for("m"));
    net.answer(2, 10.0);
    net.answer(1, 11.0);
    // The same connections once more: the pool of a proxy lives long.
    net.ask(1, 21.0, &chat_for("m"));
    net.ask(2, 22.0, &chat_for("m"));
    // The proxy's end may come first: a client that leaves.
    net.answer(1, 31.0);
    net.answer(2, 32.0);
    let (proxy, backend) = ((1, Role::Proxy), (2, Role::Backend));
    assert_eq!(net.roles(), [backend, proxy, proxy, backend]);
}

#[test]
fn who_connected_may_be_told_late() {
    // After the server's end of the connection.
    let mut net = Net::new();
    net.open(1, PROXY);
    net.open(2, BACKEND);
    net.connect(2, PROXY, BACKEND);
    net.ask(1, 1.0, &chat_for("m"));
    net.ask(2, 2.0, &chat_for("m"));
    net.answer(2, 10.0);
    net.answer(1, 11.0);
    assert_eq!(net.roles(), [(2, Role::Backend), (1, Role::Proxy)]);
    // After the request.
    let mut net = Net::new();
    net.open(1, PROXY);
    net.open(2, BACKEND);
    net.ask(1, 1.0, &chat_for("m"));
    net.ask(2, 2.0, &chat_for("m"));
    net.connect(2, PROXY, BACKEND);
    net.answer(2, 10.0);
    net.answer(1, 11.0);
    assert_eq!(net.roles(), [(2, Role::Backend), (1, Role::Proxy)]);
}

#[test]
fn clients_that_serve_nothing_make_no_hop() {
    let mut net = Net::new();
    net.open(1, PROXY);
    net.link(2, STRANGER, BACKEND);
    net.open(3, BACKEND);
    net.ask(1, 1.0, &chat_for("m"));
    net.ask(2, 2.0, &chat_for("m"));
    net.ask(3, 3.0, &chat_for("m"));
    for (cookie, time) in [(3, 10.0), (2, 11.0), (1, 12.0)] {
        net.answer(cookie, time);
    }
    assert_eq!(net.roles(), [(3, Role::Server), (2, Role::Server), (1, Role::Server)]);
}

#[test]
fn a_proxy_that_asks_for_itself_is_none() {
    let mut net = Net::new();
    net.open(1, PROXY);
    net.link(2, PROXY, BACKEND);
    // Before it was asked (a warm-up), and after it has answered.
    net.ask(2, 1.0, &chat_for("m"));
    net.ask(1, 2.0, &chat_for("m"));
    net.answer(2, 3.0);
    net.answer(1, 4.0);
    net.ask(2, 5.0, &chat_for("m"));
    net.answer(2, 6.0);
    assert_eq!(net.roles(), [(2, Role::Server), (1, Role::Server), (2, Role::Server)]);
}

#[test]
fn what_generates_no_tokens_does_not_become_what_does() {
    let mut net = Net::new();
    net.open(1, PROXY);
    net.link(2, PROXY, BACKEND);
    net.ask(1, 1.0, &chat_for("m"));
    net.ask(2, 2.0, &embedding());
    net.answer(2, 3.0);
    net.answer(1, 4.0);
    assert_eq!(net.roles(), [(2, Role::Server), (1, Role::Server)]);
    // An embedding that is passed on is one.
    net.ask(1, 11.0, &embedding());
    net.ask(2, 12.0, &embedding());
    net.answer(2, 13.0);
    net.answer(1, 14.0);
    assert_eq!(net.roles()[2..], [(2, Role::Backend), (1, Role::Proxy)]);
}

#[test]
fn the_middle_of_three_hops_is_a_backend() {
    const NGINX: u32 = 300;
    let mut net = Net::new();
    net.open(1, NGINX);
    net.link(2, NGINX, PROXY);
    net.link(3, PROXY, BACKEND);
    for (cookie, time) in [(1, 1.0), (2, 2.0), (3, 3.0)] {
        net.ask(cookie, time, &chat_for("m"));
    }
    for (cookie, time) in [(3, 10.0), (2, 11.0), (1, 12.0)] {
        net.answer(cookie, time);
    }
    assert_eq!(net.roles(), [(3, Role::Backend), (2, Role::Backend), (1, Role::Proxy)]);
}

#[test]
fn a_server_can_be_its_own_client() {
    let mut net = Net::new();
    net.open(1, PROXY);
    net.link(2, PROXY, PROXY);
    net.ask(1, 1.0, &chat_for("m"));
    net.ask(2, 2.0, &chat_for("m"));
    net.answer(2, 10.0);
    net.answer(1, 11.0);
    net.ask(2, 22.0, &chat_for("m"));
    net.answer(2, 23.0);
    assert_eq!(net.roles(), [(2, Role::Backend), (1, Role::Proxy), (2, Role::Server)]);
}

#[test]
fn a_retry_is_a_backends_too() {
    let mut net = Net::new();
    net.open(1, PROXY);
    net.link(2, PROXY, BACKEND);
    net.link(3, PROXY, 201);
    net.ask(1, 1.0, &chat_for("m"));
    net.ask(2, 2.0, &chat_for("m"));
    net.on(2).write(3.0, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    net.ask(3, 4.0, &chat_for("m"));
    net.answer(3, 10.0);
    net.answer(1, 11.0);
    assert_eq!(net.roles(), [(2, Role::Backend), (3, Role::Backend), (1, Role::Proxy)]);
}

/// Requests of one proxy at once, of which only the one on connection 2 is passed on.
fn of_three(asked: [&str; 3], passed_on: &str) -> Vec<(u64, Role)> {
    let mut net = Net::new();
    for (cookie, request) in (1..).zip(asked) {
        net.open(cookie, PROXY);
        net.ask(cookie, cookie as f64, request);
    }
    net.link(9, PROXY, BACKEND);
    net.ask(9, 9.0, passed_on);
    net.answer(9, 10.0);
    for cookie in 1..4 {
        net.answer(cookie, 20.0 + cookie as f64);
    }
    net.roles()
}

#[test]
fn of_several_requests_the_likeliest_was_passed_on() {
    let second = [(9, Role::Backend), (1, Role::Server), (2, Role::Proxy), (3, Role::Server)];
    let third = [(9, Role::Backend), (1, Role::Server), (2, Role::Server), (3, Role::Proxy)];
    // By its id,
    let id = |id: &str| chat_with("m", &format!("x-request-id: {id}\r\n"));
    assert_eq!(of_three([&id("a"), &id("b"), &id("c")], &id("b")), second);
    // its trace,
    let trace = |n: u8, span: u8| chat_with("m", &format!("traceparent: 00-{n:032x}-{span:016x}-01\r\n"));
    assert_eq!(of_three([&trace(1, 1), &trace(2, 1), &trace(3, 1)], &trace(2, 9)), second);
    // its model,
    assert_eq!(of_three([&chat_for("a"), &chat_for("b"), &chat_for("c")], &chat_for("b")), second);
    // or as the latest, also where the proxy gives models other names.
    assert_eq!(of_three([&chat_for("m"), &chat_for("m"), &chat_for("m")], &chat_for("m")), third);
    assert_eq!(of_three([&chat_for("m"), &chat_for("m"), &chat_for("m")], &chat_for("b")), third);
    // An embedding is not it.
    assert_eq!(of_three([&embedding(), &chat_for("m"), &embedding()], &chat_for("b")), second);
}

#[test]
fn requests_at_once_are_each_passed_on() {
    let mut net = Net::new();
    for n in 1..=8 {
        net.open(n, PROXY);
        net.link(10 + n, PROXY, BACKEND);
        net.ask(n, n as f64, &chat_for("m"));
    }
    for n in 1..=8 {
        net.ask(10 + n, 10.0 + n as f64, &chat_for("m"));
    }
    for n in (1..=8).rev() {
        net.answer(10 + n, 30.0);
        net.answer(n, 40.0);
    }
    for (cookie, role) in net.roles() {
        assert_eq!(role, if cookie > 10 { Role::Backend } else { Role::Proxy }, "{cookie}");
    }
}

#[test]
fn the_end_of_a_connection_ends_what_is_known_of_its_client() {
    let mut net = Net::new();
    net.open(1, PROXY);
    net.link(2, PROXY, BACKEND);
    net.ask(1, 1.0, &chat_for("m"));
    net.ask(2, 2.0, &chat_for("m"));
    net.answer(2, 3.0);
    assert_eq!(net.host.tracker.clients(), 1);
    net.on(2).state(4.0, StateChange::ClientFin);
    net.on(2).state(4.0, StateChange::Closed);
    assert_eq!(net.host.tracker.clients(), 0);
    // Another connection between the same ends, from a place that is not this host's.
    net.open(2, BACKEND);
    net.ask(2, 5.0, &chat_for("m"));
    net.answer(2, 6.0);
    assert_eq!(net.roles(), [(2, Role::Backend), (2, Role::Server)]);
    // An end whose event was lost is an end.
    net.link(3, PROXY, BACKEND);
    net.host.tracker.ended(Cookie(3), &mut net.host.said);
    assert_eq!(net.host.tracker.clients(), 0);
    // A connection that leaves the scope lives on.
    net.link(4, PROXY, BACKEND);
    net.on(4).state(7.0, StateChange::OutOfScope);
    net.open(4, BACKEND);
    net.ask(4, 8.0, &chat_for("m"));
    net.answer(4, 9.0);
    assert_eq!(net.roles()[2..], [(4, Role::Backend)]);
}

#[test]
fn clients_are_bounded_and_those_of_servers_stay() {
    let mut net = Net::new();
    net.open(1, PROXY);
    net.link(2, PROXY, BACKEND);
    net.ask(1, 1.0, &chat_for("m"));
    net.ask(2, 2.0, &chat_for("m"));
    net.answer(2, 3.0);
    for n in 0..3 * CLIENTS_MAX as u32 {
        let remote = SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 443));
        let local = SocketAddr::from(([10, 1, 0, (n >> 16) as u8], 40_000));
        net.host.event(&Event::Connect(Connect { time: at(5.0 + f64::from(n)), pid: STRANGER, local, remote }));
    }
    let clients = net.host.tracker.clients();
    assert!(clients <= CLIENTS_MAX && clients > CLIENTS_MAX / 2, "{clients}");
    assert_eq!(net.host.tracker.clients_given_up() + clients as u64, 3 * CLIENTS_MAX as u64 + 1);
    net.ask(2, 1e6, &chat_for("m"));
    net.answer(2, 1e6 + 1.0);
    assert_eq!(net.roles(), [(2, Role::Backend), (2, Role::Backend)]);
}

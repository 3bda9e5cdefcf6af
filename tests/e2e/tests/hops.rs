//! Proxies and backends on one host, told apart by who connects to whom.

use std::{net::SocketAddr, sync::Barrier, thread, time::Duration};

use observer_e2e::{
    http::Client,
    observer::Observer,
    request_log::RequestLine,
    require,
    servers::Server,
    traffic::{self, ASKED},
    wait::{self, SOON},
};

const TOKENS: u64 = 6;

fn ask(client: &mut Client, id: &str) {
    let response = client.ask(&traffic::sample_chat(id, 30, 5, TOKENS)).expect("an answer");
    assert_eq!(response.status, 200, "{response:?}");
    assert!(response.text().trim_end().ends_with("[DONE]"), "{response:?}");
}

fn connect(address: SocketAddr) -> Client {
    Client::connect(address).expect("it listens")
}

/// Port and role of each request in the log, by port; every one streamed, and whole.
fn roles(lines: &[RequestLine]) -> Vec<(u16, &str)> {
    let role = |line: &RequestLine| line.server.as_deref().and_then(|server| server.rsplit(':').next()?.parse().ok());
    let mut roles = Vec::new();
    for line in lines {
        assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(TOKENS)), "{line:#?}");
        roles.push((role(line).expect("TCP"), line.role.as_deref().unwrap_or("")));
    }
    roles.sort_unstable();
    roles
}

/// Each of `count` times, in the order of ports.
fn expect(lines: &[RequestLine], mut wanted: Vec<(u16, &str)>, count: usize) {
    wanted.sort_unstable();
    let wanted: Vec<_> = wanted.into_iter().flat_map(|one| std::iter::repeat_n(one, count)).collect();
    assert_eq!(roles(lines), wanted, "{lines:#?}");
}

/// Eight at once through the proxy, and eight past it.
fn at_once(pass_ids: bool) {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 5;
    let backend = Server::sample(&[]);
    let proxy = Server::proxy(&backend.address.to_string(), pass_ids);
    let observer = Observer::start(&[backend.port(), proxy.port()]);
    let barrier = Barrier::new(2 * CLIENTS);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            for (way, address) in [("through", proxy.address), ("past", backend.address)] {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut connection = connect(address);
                    barrier.wait();
                    (0..REQUESTS).for_each(|number| ask(&mut connection, &format!("{way}-{client}-{number}")));
                });
            }
        }
    });
    let all = CLIENTS * REQUESTS;
    let lines = observer.lines_when(3 * all, SOON);
    assert_eq!(lines.len(), 3 * all);
    let (past, mut through): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(|line| line.request_id.as_deref().is_some_and(|id| id.starts_with("past")));
    expect(&past, vec![(backend.port(), "")], all);
    expect(&through, vec![(proxy.port(), "proxy"), (backend.port(), "backend")], all);
    if pass_ids {
        // One of each by every name.
        let key = |line: &RequestLine| (line.request_id.clone(), line.role.clone());
        through.sort_by_key(key);
        let names = through.chunk_by(|a, b| a.request_id == b.request_id);
        assert!(names.clone().count() == all && names.into_iter().all(|pair| pair.len() == 2));
    }
    let metrics = observer.metrics();
    let count = |labels: &[(&str, &str)]| metrics.sum("llm_requests_total", labels) as usize;
    let (front, back) = (proxy.port().to_string(), backend.port().to_string());
    assert_eq!(count(&[("role", "proxy"), ("server_port", &front)]), all);
    assert_eq!(count(&[("role", "backend"), ("server_port", &back)]), all);
    assert_eq!(
        (count(&[("server_port", &front)]), count(&[("server_port", &back)]), count(&[])),
        (all, 2 * all, 3 * all)
    );
    assert_eq!(metrics.sum("observer_events_lost_total", &[]), 0.0);
    // Everyone who connected did so after the observer was there: the tests' clients, and the proxy's pool.
    let connects = metrics.sum("observer_events_total", &[("source", "connect")]);
    assert!((2 * CLIENTS + 1..=3 * CLIENTS).contains(&(connects as usize)), "{connects}");
}

#[test]
fn a_proxy_that_passes_ids_on() {
    require!(kernel, sample, python);
    at_once(true);
}

#[test]
fn a_proxy_that_passes_no_ids_on() {
    require!(kernel, sample, python);
    at_once(false);
}

/// The proxy's connection to its backend is older than the observer.
#[test]
fn a_pool_that_was_there_before() {
    require!(kernel, sample, python);
    let backend = Server::sample(&[]);
    let proxy = Server::proxy(&backend.address.to_string(), true);
    let mut client = connect(proxy.address);
    ask(&mut client, "before");
    let observer = Observer::start(&[backend.port(), proxy.port()]);
    for number in 0..3 {
        ask(&mut client, &format!("after-{number}"));
    }
    expect(&observer.lines_when(6, SOON), vec![(proxy.port(), "proxy"), (backend.port(), "backend")], 3);
    let metrics = observer.metrics();
    assert_eq!(metrics.sum("observer_events_total", &[("source", "connect")]), 0.0, "no connection was new");
    // The test's to the proxy, and the proxy's to the backend.
    assert_eq!(metrics.sum("observer_map_entries", &[("map", "clients")]), 2.0);
    // They end with their connections.
    drop(client);
    drop(proxy);
    wait::until("the ends of all connections", SOON, || {
        (observer.metrics().sum("observer_map_entries", &[("map", "clients")]) == 0.0).then_some(())
    });
}

#[test]
fn addresses_of_all_kinds() {
    require!(kernel, sample, python);
    // Where the backend listens, and how the proxy calls it.
    for (listens, called) in [("[::1]:0", "[::1]"), ("[::]:0", "127.0.0.1"), ("127.0.0.1:0", "[::ffff:127.0.0.1]")] {
        let backend = Server::sample_at(listens, &[]);
        let proxy = Server::proxy(&format!("{called}:{}", backend.port()), true);
        let mut client = connect(proxy.address);
        let old = Observer::start(&[backend.port(), proxy.port()]);
        ask(&mut client, "new");
        let wanted = vec![(proxy.port(), "proxy"), (backend.port(), "backend")];
        expect(&old.lines_when(2, SOON), wanted.clone(), 1);
        // To another observer the same connections are old.
        let young = Observer::start(&[backend.port(), proxy.port()]);
        ask(&mut client, "old");
        expect(&young.lines_when(2, SOON), wanted, 1);
    }
}

#[test]
fn of_three_hops_only_the_outermost_is_no_backend() {
    require!(kernel, sample, python);
    let backend = Server::sample(&[]);
    let middle = Server::proxy(&backend.address.to_string(), false);
    let outer = Server::proxy(&middle.address.to_string(), false);
    let observer = Observer::start(&[backend.port(), middle.port(), outer.port()]);
    let mut client = connect(outer.address);
    for number in 0..3 {
        ask(&mut client, &format!("three-{number}"));
    }
    let wanted = vec![(outer.port(), "proxy"), (middle.port(), "backend"), (backend.port(), "backend")];
    expect(&observer.lines_when(9, SOON), wanted, 3);
}

/// Whoever ends first.
#[test]
fn a_client_that_leaves() {
    require!(kernel, sample, python);
    let backend = Server::sample(&[]);
    let proxy = Server::proxy(&backend.address.to_string(), true);
    let observer = Observer::start(&[backend.port(), proxy.port()]);
    let mut client = connect(proxy.address);
    client.send(&traffic::sample_chat("left", 30, 20, 200)).expect("it reads");
    thread::sleep(Duration::from_millis(400));
    drop(client);
    let mut lines = observer.lines_when(2, SOON);
    lines.sort_by_key(|line| line.role.clone());
    let said: Vec<_> = lines.iter().map(|line| (line.role.as_deref(), line.outcome.as_str())).collect();
    assert_eq!(said, [(Some("backend"), "cancelled"), (Some("proxy"), "cancelled")], "{lines:#?}");
    assert!(lines.iter().all(|line| line.request_model.as_deref() == Some(ASKED)));
}

//! No storage for the state of connections.

use std::net::SocketAddr;

use observer_e2e::{
    http::Client,
    netns::Cable,
    observer::Observer,
    require,
    servers::listening,
    traffic,
    wait::{self, SOON},
};

use super::{form, scene::losses};

/// How much memory a socket's options, and what programs keep with it, may take.
const LIMIT: &str = "net.core.optmem_max";

/// The kernel refuses to keep anything with a server's sockets: the server goes on, what is not seen is counted, and
/// connections that come after are measured as ever.
#[test]
fn none_for_connections() {
    require!(kernel, sample, ip);
    let cable = Cable::new();
    let read = || std::fs::read_to_string(format!("/proc/sys/{}", LIMIT.replace('.', "/"))).ok();
    // Older kernels have one limit for the whole host, which is not ours to set.
    let Some(usual) = cable.server.within(read) else {
        println!(
            "skipped: {LIMIT} is none of a network namespace's own on this kernel (Linux 6.8 and later have it so)"
        );
        return;
    };
    let address: SocketAddr = cable.at(8000);
    let sample = require::sample();
    let mut server = cable.server.spawn("sample-llm", &sample, &["serve", "--listen", &address.to_string()]);
    assert_eq!(listening(&mut server), address);
    let mut observer = Observer::start(&[address.port()]);
    let ask = |id: &str| {
        let mut client = Client::connect(address).expect("it listens");
        assert_eq!(client.ask(&traffic::sample_chat(id, 5, 2, 3)).expect("an answer").status, 200);
    };
    let lost = || losses(&observer.metrics()).get("open out_of_memory").copied().unwrap_or(0);
    let expect_measured = |id: &str| {
        cable.client.within(|| ask(id));
        let line = observer.line(id);
        assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(3)), "{line:#?}");
        line.expect_order(true);
    };
    expect_measured("before");
    assert_eq!(lost(), 0);
    let requests = form(50, 2000);
    cable.server.sysctl(LIMIT, "64");
    cable.client.within(|| (0..requests).for_each(|number| ask(&format!("refused-{number}"))));
    observer.settle();
    let refused = lost();
    println!("{requests} connections without storage, {refused} refusals counted");
    assert!(refused >= requests, "each connection is counted: {refused} of {requests}");
    assert_eq!(observer.lines().len(), 1, "nothing is known of what was refused: {:#?}", observer.lines());
    cable.server.sysctl(LIMIT, usual.trim());
    for number in 0..20 {
        expect_measured(&format!("after-{number}"));
    }
    assert_eq!(lost(), refused, "nothing is refused any more");
    wait::until("all connections to be forgotten", SOON, || {
        (observer.metrics().sum("observer_connections", &[]) == 0.0).then_some(())
    });
    observer.expect_alive();
    println!("chaos: {requests} connections without storage, {refused} refusals counted, 20 after them measured");
}

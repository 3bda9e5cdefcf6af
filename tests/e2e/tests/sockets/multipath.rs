//! Multipath TCP: its streams are spread over several connections and are not put together here.

use observer_e2e::{
    observer::Observer,
    raw::Listener,
    require,
    traffic::{self, Answer},
    wait::{self, SOON},
};

use super::respond;

/// Connections of Multipath TCP are counted, once each, and never measured; plain ones to the same listener are.
#[test]
fn counted_as_opaque() {
    require!(kernel, mptcp);
    const CONNECTIONS: usize = 4;
    let listener = Listener::multipath().expect("required");
    let observer = Observer::start(&[listener.port()]);
    for number in 0..CONNECTIONS {
        let link = listener.multipath_link();
        // Several requests on each: a connection is counted once.
        for round in 0..2 {
            link.client.send(&traffic::chat(&format!("multipath-{number}-{round}")));
            assert!(!link.server.take().bytes.is_empty());
            respond(&link, &Answer::new(3, 10));
        }
    }
    let link = listener.link();
    link.client.send(&traffic::chat("plain"));
    assert!(!link.server.take().bytes.is_empty());
    respond(&link, &Answer::new(3, 10));
    let line = observer.line("plain");
    assert_eq!((line.outcome.as_str(), line.token_events), ("ok", Some(3)), "{line:#?}");
    wait::until("all of them to be counted", SOON, || {
        let metrics = observer.metrics();
        let count = metrics.sum("observer_opaque_connections_total", &[("reason", "mptcp")]);
        assert_eq!(metrics.sum("observer_opaque_connections_total", &[]), count, "{metrics:#?}");
        (count == CONNECTIONS as f64).then_some(())
    });
    observer.settle();
    assert_eq!(observer.lines().len(), 1, "{:#?}", observer.lines());
}

//! How requests end.

use observer::{
    event::StateChange,
    request::record::{IncompleteReason, Outcome},
};

use crate::harness::{Host, STREAM_HEAD, at, chat, chunk, content, delta, done, ms};

#[test]
fn cancelled_work_is_unknown_where_the_last_write_was_lost() {
    for lost in [false, true] {
        let mut host = Host::new();
        host.read(0.0, chat(false));
        host.write(10.0, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
        host.state(20.0, StateChange::ClientFin);
        host.write(30.0, "answer");
        if lost {
            host.sent = host.sent.wrapping_add(6);
        } else {
            host.write(40.0, "answer");
        }
        host.state(50.0, StateChange::Reset);
        host.tick(60.0);
        assert_eq!(host.record().outcome, Outcome::Cancelled);
        assert_eq!(host.record().cancelled_work, (!lost).then_some(ms(20.0)));
    }
}

#[test]
fn leaving_after_done_is_no_cancel() {
    for reset in [true, false] {
        let mut host = Host::new();
        host.read(0.0, chat(true));
        host.write(1.0, format!("{STREAM_HEAD}{}", content("a")));
        host.write(2.0, done());
        host.state(2.1, if reset { StateChange::Reset } else { StateChange::ClientFin });
        host.failed_write(3.0, libc::EPIPE);
        assert_eq!((host.record().outcome, host.record().timeline.end), (Outcome::Ok, Some(at(2.0))));
    }
}

/// The client's leaving was seen and the connection's end was not: writes may be missing, too.
#[test]
fn an_end_that_was_lost_is_no_cancel() {
    let mut host = Host::new();
    host.read(1.0, chat(true));
    host.write(2.0, format!("{STREAM_HEAD}{}", content("a")));
    host.state(4.0, StateChange::ClientFin);
    host.ended();
    assert_eq!(host.record().outcome, Outcome::Incomplete);
    assert_eq!(host.record().incomplete, Some(IncompleteReason::Abandoned));
    assert_eq!((host.in_flight(), host.tracker.connections()), (0, 0));
}

#[test]
fn the_server_closes_before_the_end() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(1.0, format!("{STREAM_HEAD}{}", content("a")));
    host.state(2.0, StateChange::ServerFin);
    host.state(3.0, StateChange::Closed);
    assert_eq!((host.record().outcome, host.record().timeline.end), (Outcome::Truncated, Some(at(2.0))));

    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.state(3.0, StateChange::Closed);
    assert_eq!((host.record().outcome, host.record().status, host.record().stream), (Outcome::Truncated, None, None));
}

#[test]
fn llama_server_half_closes_after_each_answer() {
    let mut host = Host::new();
    host.read(0.0, chat(true));
    host.write(
        1.0,
        format!(
            "{STREAM_HEAD}{}",
            chunk(format!(
                "data: {}\n\ndata: {}\n\n",
                delta(r#"{"role":"assistant","content":null}"#),
                delta(r#"{"content":"a"}"#)
            ))
        ),
    );
    host.write(2.0, done());
    host.write(2.1, "0\r\n");
    host.write(2.2, "\r\n");
    host.state(2.3, StateChange::ServerFin);
    host.read(5.0, chat(true));
    host.state(6.0, StateChange::Closed);
    let outcomes: Vec<_> = host.said.records.iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Truncated]);
    assert_eq!(host.said.records[0].timeline.end, Some(at(2.2)));
}

#[test]
fn close_delimited_answers() {
    for (client_first, outcome) in [(false, Outcome::Ok), (true, Outcome::Cancelled)] {
        let mut host = Host::new();
        host.read(0.0, chat(true));
        host.write(1.0, "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        host.write(2.0, format!("data: {}\n\n", delta(r#"{"content":"a"}"#)));
        if client_first {
            host.state(2.5, StateChange::ClientFin);
        }
        host.write(3.0, format!("data: {}\n\n", delta(r#"{"content":"b"}"#)));
        host.state(4.0, if client_first { StateChange::Closed } else { StateChange::ServerFin });
        assert_eq!(host.record().outcome, outcome);
        assert_eq!(host.record().timeline.end, Some(at(if client_first { 2.5 } else { 3.0 })));
    }
}

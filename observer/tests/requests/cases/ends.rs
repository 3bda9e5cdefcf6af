//! How requests end: cases 17 to 19.

use observer::{event::StateChange, request::record::Outcome};

use crate::{
    harness::{END, STREAM_HEAD, at, chat, content, done, event, ms},
    splits::Script,
};

fn stream() -> Script {
    Script::default().read(0.0, chat(true)).write(1.0, format!("{STREAM_HEAD}{}", content("a")))
}

#[test]
fn case_17_the_end_in_one_write_or_three() {
    for parts in [vec![done(), "0\r\n".into(), "\r\n".into()], vec![[&*done(), END].concat()]] {
        let (mut script, mut time) = (stream(), 5.0);
        for part in parts {
            time += 1.0;
            script = script.write(time, part);
        }
        let said = script.every_split();
        assert_eq!((said.record().outcome, said.record().timeline.end), (Outcome::Ok, Some(at(time))));
        assert_eq!(said.record().token_events, Some(1));
    }
}

#[test]
fn case_18_an_error_in_the_stream() {
    let said = stream()
        .write(2.0, event(r#"{"error":{"message":"x","code":500}}"#))
        .write(3.0, format!("{}{END}", done()))
        .every_split();
    let record = said.record();
    assert_eq!((record.outcome, record.status, record.token_events), (Outcome::ErrorInStream, Some(200), Some(1)));
    assert_eq!(record.timeline.end, Some(at(3.0)));
}

#[test]
fn case_19_cancelled_once() {
    for way in ["read 0", "EPIPE", "ECONNRESET", "fin", "reset"] {
        let script = stream().write(2.0, content("b"));
        let script = match way {
            "read 0" => {
                let in_vain = script.read(3.0, b"").write(4.0, content("c")).write(5.0, content("d"));
                in_vain.failed_write(6.0, libc::EPIPE)
            }
            "EPIPE" => script.failed_write(3.0, libc::EPIPE),
            "ECONNRESET" => script.failed_write(3.0, libc::ECONNRESET),
            "fin" => script.state(3.0, StateChange::ClientFin).read(3.5, b"").write(4.0, content("c")),
            _ => script.state(3.0, StateChange::Reset),
        };
        let said = script.failed_write(7.0, libc::EPIPE).state(8.0, StateChange::Closed).every_split();
        let record = said.record();
        assert_eq!((record.outcome, record.status), (Outcome::Cancelled, Some(200)), "{way}");
        assert_eq!((record.timeline.first, record.timeline.last), (Some(at(1.0)), Some(at(2.0))), "{way}");
        assert_eq!(record.timeline.end, Some(at(3.0)), "{way}");
        // What was written in vain is counted, and its gaps are nobody's wait.
        assert_eq!((record.gaps.count, record.gaps.sum, record.gaps.max), (1, ms(1.0), ms(1.0)), "{way}");
        let work = match way {
            "read 0" => 3.0,
            "fin" => 4.0,
            _ => 0.0,
        };
        assert_eq!(record.cancelled_work, Some(ms(work)), "{way}");
    }
}

#[test]
fn case_19_a_half_close_that_is_answered_is_no_cancel() {
    let said = Script::default()
        .read(0.0, chat(true))
        .state(0.5, StateChange::ClientFin)
        .read(0.6, b"")
        .write(1.0, format!("{STREAM_HEAD}{}", content("a")))
        .write(2.0, format!("{}{END}", done()))
        .state(3.0, StateChange::Closed)
        .every_split();
    assert_eq!((said.record().outcome, said.record().timeline.end), (Outcome::Ok, Some(at(2.0))));
    assert_eq!(said.record().cancelled_work, None);
}

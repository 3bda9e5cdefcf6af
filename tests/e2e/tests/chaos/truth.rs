//! The observer's log against the clients' own.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use observer_e2e::{request_log::RequestLine, wait};
use sample_llm::load::{Line, Outcome};

use super::scene::{INTERVAL_MS, TTFT_MS};

/// Stamps of writes are up to 20 us early or late, and a client may be served on another processor meanwhile.
fn slack() -> u64 {
    500_000 * u64::from(wait::slowness())
}

/// Timers of servers have a resolution of a millisecond.
const TIMER_NS: u64 = 1_000_000;

/// What became of the clients' requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Those that reached a server.
    pub(crate) asked: usize,
    /// In the log, with times.
    pub(crate) measured: usize,
    /// In the log, as incomplete.
    pub(crate) incomplete: usize,
    /// Not in the log.
    pub(crate) unseen: usize,
}

/// The clients' log.
pub(crate) fn read(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).expect("the client's log");
    text.lines().map(|line| serde_json::from_str(line).expect("the client's own format")).collect()
}

/// Demands that each measured request is what its client saw, and that each other one is called incomplete or is not
/// there at all.
///
/// # Panics
/// If one is told otherwise, or twice.
pub(crate) fn compare(clients: &[Line], lines: &[RequestLine]) -> Tally {
    let mut seen: HashMap<&str, &RequestLine> = HashMap::new();
    for line in lines.iter().filter(|line| line.request_id.is_some()) {
        let id = line.request_id.as_deref().unwrap_or_default();
        if let Some(other) = seen.insert(id, line) {
            panic!("told of twice: {other:#?} {line:#?}");
        }
    }
    let mut tally = Tally::default();
    for client in clients {
        let line = seen.remove(client.request_id.as_str());
        // Nobody accepted the connection, or nobody read from it.
        let unanswered = client.outcome == Outcome::Failed
            || client.outcome == Outcome::Truncated && client.status.is_none() && line.is_none();
        if unanswered {
            assert!(line.is_none(), "{client:#?} {line:#?}");
            continue;
        }
        tally.asked += 1;
        match line {
            None => tally.unseen += 1,
            Some(line) if line.outcome == "incomplete" => {
                assert!(line.incomplete_reason.is_some(), "{line:#?}");
                tally.incomplete += 1;
            }
            Some(line) => {
                same(client, line);
                tally.measured += 1;
            }
        }
    }
    tally
}

fn same(client: &Line, line: &RequestLine) {
    let (both, slack) = (format!("{client:#?}\n{line:#?}"), slack());
    assert_eq!(line.incomplete_reason, None, "{both}");
    assert_eq!(line.request_bytes, Some(client.request_bytes), "{both}");
    assert_eq!(line.request_model, client.model, "{both}");
    let first_read = line.t_arrive_ns.or(line.t_read_ns).unwrap_or_else(|| panic!("no beginning: {both}"));
    assert!(first_read + slack >= client.start_ns, "before it was sent: {both}");
    match client.outcome {
        Outcome::Ok => {}
        Outcome::Truncated => {
            // What was on its way when the server died may have reached the network and not the client.
            assert!(["truncated", "cancelled"].contains(&line.outcome.as_str()), "{both}");
            assert!(client.token_events == 0 || line.token_events >= Some(client.token_events), "{both}");
            return;
        }
        other => panic!("a load that ends as {other:?} is not compared: {both}"),
    }
    assert_eq!((line.outcome.as_str(), line.status), ("ok", Some(200)), "{both}");
    assert_eq!(line.response_bytes, Some(client.response_bytes), "{both}");
    assert_eq!((line.input_tokens, line.output_tokens), (client.input_tokens, client.output_tokens), "{both}");
    let end = line.t_end_ns.unwrap_or_else(|| panic!("no end: {both}"));
    assert!(end <= client.start_ns + client.total_ns + slack, "after it was received: {both}");
    if !client.stream {
        return;
    }
    assert_eq!(line.token_events, Some(client.token_events), "{both}");
    assert_eq!(line.chunk_times_ns.len() as u64, client.token_events, "{both}");
    assert!(line.chunk_times_ns.is_sorted(), "{both}");
    let (Some(first), Some(last), Some(ttft)) = (line.t_first_ns, line.t_last_ns, client.ttft_ns) else {
        panic!("no tokens: {both}")
    };
    // No earlier than the server's timers allow, no later than the client had it.
    assert!(first <= client.start_ns + ttft + slack, "{both}");
    assert!(first + slack + TIMER_NS >= first_read + TTFT_MS * 1_000_000, "{both}");
    let spread = INTERVAL_MS * 1_000_000 * client.token_events.saturating_sub(1);
    assert!(last + slack + TIMER_NS >= first_read + TTFT_MS * 1_000_000 + spread, "{both}");
    assert!(first <= last && last <= end, "{both}");
}

/// Lines by outcome.
pub(crate) fn outcomes(lines: &[RequestLine]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line.outcome.as_str()).or_default() += 1;
    }
    counts
}

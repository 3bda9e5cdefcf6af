//! Never a latency from an incomplete timeline: conversations of which not all is told. Input: how the connection ends
//! (two bytes), how many exchanges there are, which API; of each exchange two bytes and where its calls are cut; then,
//! three bytes each, what becomes of which call.

#![cfg_attr(fuzzing, no_main)]

use observer::{
    event::Direction,
    request::record::{Outcome, RequestRecord},
};
use observer_fuzz::{
    api::Api,
    conversation::{Conversation, End, Exchange, Fate, Kind, serial},
    records,
};

/// The kernel side may lose any calls, or their payload or a part of it, or their arrival stamps; it may tell of them
/// twice, and late, in any order. As long as it tells where the two streams begin and how the connection ends, and of
/// all bytes of requests where the client does not wait for its answers (which answer is whose is told by counting),
/// then:
///
/// 1. there is at most one record of each request;
/// 2. a record that is not incomplete is that of a request which was made, and all its times are the very ones that it
///    has where nothing is lost: of each point the time of the call that moved the byte which defines it, all gaps
///    between token events, and how it ended. Only these may be absent: `arrive` (`arrival_unknown` says so),
///    `first_content`, `cancelled_work`, counts of tokens and of their events, and, each with all phases, `ready` and
///    `head_of_line_until` (`turn_unknown` says so);
/// 3. what is told in time, in whatever order and however often, changes nothing.
///
/// So nothing is measured from an event's absence, and no loss moves a time to another event's.
pub(crate) fn target(data: &[u8]) {
    let conversation = decode(data);
    let whole = conversation.told(false);
    for record in &whole.all {
        undamaged(&conversation, record);
    }
    let asked = conversation.exchanges.iter().filter(|exchange| exchange.whole).count();
    assert!(whole.all.len() >= asked, "{conversation:#?}");

    let told = conversation.told(true);
    records::measured(&told.all);
    let asked = conversation.exchanges.iter().filter(|exchange| exchange.asks).count();
    assert!(told.all.len() <= asked, "more records than requests: {conversation:#?}");
    let mut seen = vec![false; conversation.exchanges.len()];
    for record in &told.all {
        if let Some(serial) = serial(record) {
            assert!(!std::mem::replace(&mut seen[serial], true), "two records of one request: {conversation:#?}");
        }
        if record.outcome != Outcome::Incomplete {
            let same = whole.all.iter().find(|other| serial(other) == serial(record));
            let Some(same) = same else { panic!("nobody asked: {}\n{conversation:#?}", show(record)) };
            assert!(justified(record, same), "{}\nis not\n{}\n{conversation:#?}", show(record), show(same));
        }
    }
    if harmless(&conversation) {
        assert_eq!(told.all.len(), whole.all.len(), "{conversation:#?}");
        for (record, same) in told.all.iter().zip(&whole.all) {
            let points = |record: &RequestRecord| (record.incomplete, record.timeline.arrive, record.timeline.ready);
            let as_well = points(record) == points(same);
            assert!(as_well && justified(record, same), "{}\nis not\n{}\n{conversation:#?}", show(record), show(same));
        }
        assert_eq!(told.others, whole.others);
    }
}

fn show(record: &RequestRecord) -> String {
    let RequestRecord { request_id, outcome, incomplete, status, timeline, gaps, chunk_times, usage, .. } = record;
    format!("{request_id:?} {outcome:?} {incomplete:?} {status:?} {timeline:?} {usage:?} {gaps:?} {chunk_times:?}")
}

/// Where nothing is lost, every point is where the conversation says.
fn undamaged(conversation: &Conversation, record: &RequestRecord) {
    let Some(index) = serial(record) else { panic!("{record:#?}") };
    let exchange = &conversation.exchanges[index];
    if !exchange.whole {
        return;
    }
    assert_eq!(record.incomplete, None, "{conversation:#?}");
    let line = &record.timeline;
    let written = |offset: usize| conversation.moved(index, Direction::Send, offset);
    let read = |offset: usize| conversation.moved(index, Direction::Receive, offset);
    let tokens: Vec<_> = exchange.tokens.iter().filter_map(|(offset, _)| written(*offset)).collect();
    let ready = read(exchange.request.len() - 1).filter(|ready| Some(*ready) <= line.header);
    let found = (line.read, line.ready, line.header, line.first, line.last);
    assert_eq!(found, (read(0), ready, written(exchange.header), tokens.first().copied(), tokens.last().copied()));
    let reasoning_first = exchange.tokens.first().is_some_and(|(_, content)| !content);
    let content = exchange.tokens.iter().find(|(_, content)| *content && reasoning_first);
    assert_eq!(line.first_content, content.and_then(|(offset, _)| written(*offset)));
    assert_eq!(record.chunk_times, tokens);
    // One who leaves after the last word need not wait for the last byte.
    if matches!(record.outcome, Outcome::Ok | Outcome::HttpError | Outcome::ErrorInStream) {
        assert_eq!(line.end, written(exchange.response.len() - 1), "{conversation:#?}");
    }
}

/// Whether all times of `record` are those of `same`, the record of the same request where nothing is lost.
fn justified(record: &RequestRecord, same: &RequestRecord) -> bool {
    let points = |record: &RequestRecord| {
        let line = &record.timeline;
        [line.read, line.header, line.first, line.last, line.end]
    };
    let gaps = |record: &RequestRecord| {
        let gaps = &record.gaps;
        (gaps.count, gaps.sum, gaps.max, gaps.buckets.clone())
    };
    let (line, other) = (&record.timeline, &same.timeline);
    let counted = record.token_events.is_some();
    points(record) == points(same)
        && gaps(record) == gaps(same)
        && (!counted || record.token_events == same.token_events)
        && (!counted || (record.coalesced, &record.chunk_times) == (same.coalesced, &same.chunk_times))
        && (record.outcome, record.status, record.stream) == (same.outcome, same.status, same.stream)
        && absent_or(record.cancelled_work, same.cancelled_work)
        && (line.arrive == other.arrive || (line.arrive.is_none() && line.arrival_unknown))
        && absent_or(line.ready, other.ready)
        && absent_or(line.first_content, other.first_content)
        && (line.head_of_line_until == other.head_of_line_until || line.ready.is_none() || line.turn_unknown)
        && absent_or(record.usage.input, same.usage.input)
        && absent_or(record.usage.output, same.usage.output)
}

fn absent_or<T: PartialEq>(found: Option<T>, expected: Option<T>) -> bool {
    found.is_none() || found == expected
}

/// All calls are told of, and before any of them can be missed.
fn harmless(conversation: &Conversation) -> bool {
    let calls = &conversation.calls;
    calls.iter().enumerate().all(|(index, call)| {
        let Fate { lost, unstamped, captured, twice: _, delay } = call.fate;
        // It is told of within the 5 ms for which others wait for it.
        let told = calls.get(index + usize::from(delay)).map(|other| other.time);
        let in_time = delay == 0 || told.is_some_and(|told| told < call.time + 5_000_000);
        !lost && !unstamped && captured.is_none() && in_time
    })
}

fn decode(data: &[u8]) -> Conversation {
    let mut input = data.iter().copied();
    let mut byte = || input.next().unwrap_or(0);
    let (end, late) = (byte(), usize::from(byte() % 8));
    let (count, api) = (byte(), byte());
    let (count, api) = (1 + usize::from(count % 4), Api::ALL[usize::from(api) % Api::ALL.len()]);
    let mut conversation = Conversation { exchanges: Vec::new(), calls: Vec::new(), end: End::Open };
    conversation.end = match end % 6 {
        0 => End::Open,
        1 => End::Server,
        2 => End::Client { late },
        3 => End::Reset { late },
        4 => End::Lost,
        _ => End::OutOfScope,
    };
    let mut now = 1_000_000_000_000_u64;
    let mut waiting: Vec<(usize, Vec<u8>, u64)> = Vec::new();
    for index in 0..count {
        let (kind, shape) = (byte(), byte());
        let last = index + 1 == count;
        let kind = match kind % 12 {
            0..4 => Kind::Stream { reasoning: kind & 32 != 0, tokens: kind / 64 + kind % 4 },
            4 | 5 => Kind::Answer { interim: kind & 32 != 0 },
            6 => Kind::Refused,
            7 => Kind::Failed,
            8 if last => Kind::UntilClose,
            9 | 10 if last => Kind::CutShort,
            _ => Kind::Other,
        };
        conversation.exchanges.push(Exchange::new(api, kind, index, shape & 1 != 0));
        let step = [7_000, 300_000, 3_000_000, 40_000_000][usize::from(shape >> 1) % 4];
        let mut time = || {
            now += step;
            now
        };
        let cuts: Vec<_> = (0..shape >> 4 & 3).map(|_| byte()).collect();
        conversation.moves(index, Direction::Receive, &cuts, &mut time);
        let cuts: Vec<_> = (0..(shape >> 6) * 3).map(|_| byte()).collect();
        waiting.push((index, cuts, step));
        // Or the client asks again before it is answered.
        if last || shape & 8 == 0 {
            for (index, cuts, step) in waiting.drain(..) {
                let mut time = || {
                    now += step;
                    now
                };
                conversation.moves(index, Direction::Send, &cuts, &mut time);
            }
        }
    }
    let (count, pipelines) = (conversation.calls.len(), conversation.pipelines());
    for _ in 0..8 {
        let (index, fate, operand) = (byte(), byte(), byte());
        let call = &mut conversation.calls[usize::from(index) % count];
        let needed = pipelines && call.direction == Direction::Receive;
        let call = &mut call.fate;
        match fate % 8 {
            1..=3 | 5 | 6 if needed => {}
            1 => call.lost = true,
            2 => call.captured = Some((0, 0)),
            3 => call.captured = Some((fate & 0xf0, operand)),
            4 => call.twice = true,
            5 => call.delay = operand % 8,
            6 => call.delay = operand,
            7 => call.unstamped = true,
            _ => {}
        }
    }
    conversation
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| target(data));

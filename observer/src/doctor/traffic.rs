//! What passes on candidate ports, and what share of it cannot be read: counted for a while, or asked of an observer
//! that runs.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    config::{IoMode, Scope, Signals, SocketHook},
    event::{Content, Direction, Event, OpaqueReason},
    kernel::{Kernel, KernelError, Options, OtherObserver, clock},
    metrics::families::own,
    request::{
        record::{ConnectionInfo, RequestRecord},
        tracker::{EventNames, Sink, Tracker, TrackerConfig},
    },
    top::{Client, Endpoint, Trust},
};

/// Only sockets are looked at.
const NO_SIGNALS: Signals = Signals { scheduler: false, tcp: false, io: IoMode::Off, io_latency: false, block: false };
const RING_BYTES: u32 = 8 << 20;
const PAUSE: Duration = Duration::from_millis(5);
/// How much longer events that are there by the end are followed at most.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How often it is told how far it is.
const TELL: Duration = Duration::from_millis(250);
/// Records handled before anything else gets a turn.
const BATCH: usize = 16_384;

/// Bytes, seen from the server.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Bytes {
    /// Read by servers.
    pub received: u64,
    /// Written by servers.
    pub sent: u64,
}

impl Bytes {
    /// Both ways.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.received + self.sent
    }

    fn add(&mut self, direction: Direction, bytes: u64) {
        match direction {
            Direction::Receive => self.received += bytes,
            Direction::Send => self.sent += bytes,
        }
    }
}

/// Counts, and nothing else, of what passed.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub struct Traffic {
    /// Who counted: `this command`, or where an observer was asked.
    pub source: String,
    /// How long; `None`: since that observer's start.
    pub seconds: Option<f64>,
    /// Requests to language models that ended; `None`: not asked.
    pub requests: Option<u64>,
    /// Connections that cannot be read, by reason. A connection with compressed content counts once.
    pub opaque_connections: BTreeMap<&'static str, u64>,
    /// Bytes by what they are.
    #[serde(serialize_with = "by_name")]
    pub bytes: BTreeMap<Content, Bytes>,
    /// Share of the bytes that cannot be read; what is left alone and what is undecided are no part of the whole.
    pub opaque_ratio: Option<f64>,
    /// Events that were lost: that much less was seen of what is plain.
    pub lost_events: u64,
}

fn by_name<S: serde::Serializer>(bytes: &BTreeMap<Content, Bytes>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(bytes.iter().map(|(content, bytes)| (content.as_str(), bytes)))
}

/// What of it may be, or may hold, requests to language models and cannot be read.
pub(super) const fn is_opaque(content: Content) -> bool {
    !matches!(content, Content::Plain | Content::NotHttp | Content::Undecided)
}

impl Traffic {
    fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), ..Self::default() }
    }

    fn add(&mut self, content: Content, direction: Direction, bytes: u64) {
        if bytes > 0 {
            self.bytes.entry(content).or_default().add(direction, bytes);
        }
    }

    /// Bytes of what `is` accepts.
    pub(super) fn sum(&self, is: impl Fn(Content) -> bool) -> u64 {
        self.bytes.iter().filter(|(content, _)| is(**content)).map(|(_, bytes)| bytes.total()).sum()
    }

    /// What may be language models' traffic.
    pub(super) fn whole(&self) -> u64 {
        self.sum(|content| is_opaque(content) || content == Content::Plain)
    }

    fn settle(mut self) -> Self {
        let whole = self.whole();
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let ratio = (whole > 0).then(|| self.sum(is_opaque) as f64 / whole as f64);
        self.opaque_ratio = ratio;
        self
    }
}

impl Sink for Traffic {
    fn request(&mut self, _: RequestRecord) {
        *self.requests.get_or_insert(0) += 1;
    }

    fn other_request(&mut self, _: &ConnectionInfo) {}

    fn opaque(&mut self, _: &ConnectionInfo, reason: OpaqueReason) {
        *self.opaque_connections.entry(reason.as_str()).or_default() += 1;
    }

    fn bytes(&mut self, content: Content, direction: Direction, bytes: u64) {
        self.add(content, direction, bytes);
    }

    fn joined_mid_request(&mut self, _: &ConnectionInfo) {}

    fn gap(&mut self, _: Direction, _: u64) {}

    fn uncaptured(&mut self, _: Direction, _: u64) {}

    fn unparsed(&mut self, _: Direction, _: u64) {}
}

/// Counts for `time` what passes in `scope`. Nothing of the bytes is kept. `tell` hears now and then how long it has
/// been, and what was seen.
///
/// # Errors
/// The kernel side's.
pub(super) fn observe(
    scope: &Scope,
    socket_hook: SocketHook,
    time: Duration,
    tell: &mut dyn FnMut(Duration, &Traffic),
) -> Result<Traffic, KernelError> {
    let options = Options { ring_bytes: RING_BYTES, wakeup_ratio: 0.5, log: false, signals: NO_SIGNALS, socket_hook };
    let mut kernel = Kernel::attach(options, scope)?;
    let begun = Instant::now();
    let mut ring =
        kernel.take_ring()?.ok_or(KernelError::Map { map: "EVENTS", reason: "it was taken before".into() })?;
    let mut tracker = Tracker::new(TrackerConfig::default());
    let mut traffic = Traffic { requests: Some(0), ..Traffic::new("this command") };
    let (mut ended, mut told) = (Vec::new(), None);
    loop {
        // Read before the drain: whatever happened up to here is in the ring by now.
        let (now, over) = (clock::now(), begun.elapsed() >= time);
        ring.take_ended(&mut ended);
        let drained = ring.drain(BATCH, |event: &Event<'_>| tracker.event(event, &mut EventNames, &mut traffic));
        // There may be no end of it, on a host that makes events faster than one thread follows them.
        if drained.events == BATCH && begun.elapsed() < time + CATCH_UP {
            continue;
        }
        ended.drain(..).for_each(|cookie| tracker.ended(cookie, &mut traffic));
        tracker.tick(now, &mut traffic);
        if over {
            tracker.finish(now, &mut traffic);
            break;
        }
        if told.is_none_or(|told: Instant| told.elapsed() >= TELL) {
            told = Some(Instant::now());
            let mut so_far = traffic.clone();
            kernel.bytes()?.into_iter().for_each(|(content, direction, bytes)| so_far.add(content, direction, bytes));
            tell(begun.elapsed(), &so_far);
        }
        thread::sleep(PAUSE.min(time.saturating_sub(begun.elapsed())));
    }
    traffic.seconds = Some(begun.elapsed().as_secs_f64());
    kernel.bytes()?.into_iter().for_each(|(content, direction, bytes)| traffic.add(content, direction, bytes));
    let counters = kernel.counters()?;
    traffic.lost_events = counters.iter().filter(|(counter, _)| counter.is_loss()).map(|(_, count)| count).sum();
    Ok(traffic.settle())
}

/// What an observer that runs has counted since its start: of the first that answers.
pub(super) fn ask(others: &[OtherObserver]) -> Option<Traffic> {
    others.iter().flat_map(|other| &other.listens).find_map(|address| {
        let address = reachable(*address);
        let client = Client::new(Endpoint::parse(&format!("http://{address}")).ok()?, Trust::default());
        let answer = client.ask("GET", "/metrics", "").ok().filter(|answer| answer.code == 200)?;
        parse(&String::from_utf8_lossy(&answer.body), format!("http://{address}/metrics"))
    })
}

/// An address for clients: that of all interfaces is for listening only.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// `None`: not an observer's, or an older one's.
fn parse(metrics: &str, source: String) -> Option<Traffic> {
    let mut traffic = Traffic::new(source);
    let mut found = false;
    for line in metrics.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Some((name, labels)) = series.split_once('{') else { continue };
        let label =
            |key: &str| labels.split(['{', ',', '}']).find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let is = |key: &str, name: &str| label(key).is_some_and(|value| value.trim_matches('"') == name);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter's value")]
        let value = value.parse::<f64>().map_or(0, |value| value as u64);
        if name == own::TRAFFIC.name {
            found = true;
            let content = Content::ALL.into_iter().find(|content| is("content", content.as_str()));
            let direction = if is("direction", "send") { Direction::Send } else { Direction::Receive };
            if let Some(content) = content {
                traffic.add(content, direction, value);
            }
        } else if name == own::OPAQUE.name
            && let Some(reason) = OpaqueReason::ALL.into_iter().find(|reason| is("reason", reason.as_str()))
            && value > 0
        {
            traffic.opaque_connections.insert(reason.as_str(), value);
        }
    }
    found.then(|| traffic.settle())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_an_observer_are_understood() {
        let text = "# HELP observer_traffic_bytes_total x\n\
                    observer_traffic_bytes_total{content=\"plain\",direction=\"receive\"} 100\n\
                    observer_traffic_bytes_total{content=\"plain\",direction=\"send\"} 200\n\
                    observer_traffic_bytes_total{content=\"tls\",direction=\"send\"} 1e2\n\
                    observer_traffic_bytes_total{content=\"not_http\",direction=\"send\"} 5000\n\
                    observer_opaque_connections_total{reason=\"tls\"} 3\n\
                    observer_opaque_connections_total{reason=\"http2\"} 0\n\
                    other_total{content=\"plain\",direction=\"send\"} 7\n";
        let traffic = parse(text, "x".to_owned()).expect("an observer's");
        assert_eq!(traffic.bytes[&Content::Plain], Bytes { received: 100, sent: 200 });
        assert_eq!((traffic.whole(), traffic.opaque_ratio), (400, Some(0.25)));
        assert_eq!(traffic.opaque_connections, [("tls", 3)].into());
        assert_eq!(parse("observer_connections 3\n", "x".to_owned()), None);
    }

    #[test]
    fn nothing_has_no_share() {
        assert_eq!(Traffic::new("x").settle().opaque_ratio, None);
    }
}

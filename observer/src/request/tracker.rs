//! From events to finished requests, over all connections.

use std::{sync::Arc, time::Duration};

use super::{
    hops::{CLIENTS_MAX, Hops},
    labels::HeaderLabels,
    record::{ConnectionInfo, RequestRecord},
    response::Scratch,
    session::{Context, Fate, Session},
};
use crate::{
    connection::table::Table,
    event::{Content, Cookie, Direction, Event, OpaqueReason, Open},
    time::KernelTime,
    workload::Identity,
};

/// How often idle connections are looked for: a look goes over all.
const IDLE_LOOKS: u32 = 16;

/// Settings of a [`Tracker`].
#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// Upper bounds of the buckets that gaps are sorted into, in seconds, ascending.
    pub gap_bounds: Arc<[f64]>,
    /// Whether the time of each token event is kept.
    pub chunk_times: bool,
    /// How long an early call is held back for an earlier one.
    pub reorder_hold: Duration,
    /// Most connections; beyond, the idlest are given up.
    pub max_connections: usize,
    /// After so long without an event an AF_UNIX connection is given up: its close is not seen. A TCP connection's
    /// is, and it may come back to life after any time.
    pub idle_timeout: Duration,
    /// Request headers that become labels.
    pub labels: HeaderLabels,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            gap_bounds: Arc::new([]),
            chunk_times: false,
            reorder_hold: Duration::from_millis(5),
            max_connections: 65_536,
            idle_timeout: Duration::from_secs(600),
            labels: HeaderLabels::default(),
        }
    }
}

/// Receives what the tracker finds.
pub trait Sink {
    /// A request to a language model was read whole, and is about to be answered. Not told of one whose kind only its
    /// answer shows.
    fn asked(&mut self, _connection: &Arc<ConnectionInfo>) {}
    /// A request to a language model is over.
    fn request(&mut self, record: RequestRecord);
    /// An HTTP request of another kind is over.
    fn other_request(&mut self, connection: &ConnectionInfo);
    /// The connection, or the content of its responses, cannot be read. Once per connection and reason.
    fn opaque(&mut self, connection: &ConnectionInfo, reason: OpaqueReason);
    /// Bytes of connections that are tracked, by what they are: those below among them.
    fn bytes(&mut self, _content: Content, _direction: Direction, _bytes: u64) {}
    /// The connection was first seen inside a request, which is therefore not measured.
    fn joined_mid_request(&mut self, connection: &ConnectionInfo);
    /// Bytes that no call was seen for.
    fn gap(&mut self, direction: Direction, bytes: u64);
    /// Bytes of calls that were seen, beyond what is captured of one call.
    fn uncaptured(&mut self, direction: Direction, bytes: u64);
    /// Captured bytes that are not HTTP/1, or stand where it cannot be told.
    fn unparsed(&mut self, direction: Direction, bytes: u64);
}

/// Names that a connection's measurements carry.
#[derive(Clone, Debug)]
pub struct ConnectionNames {
    /// The server's program.
    pub comm: Arc<str>,
    /// Name of the workload that it belongs to.
    pub workload: Arc<str>,
    /// That workload, where it is known by more than its name.
    pub identity: Option<Arc<Identity>>,
}

/// Finds a connection's names; asked once for each.
pub trait NameResolver {
    /// The names of the server behind `open`.
    fn names(&mut self, open: &Open) -> ConnectionNames;
}

/// Names from the event alone: `comm:port`, or `comm:unix`.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventNames;

impl NameResolver for EventNames {
    fn names(&mut self, open: &Open) -> ConnectionNames {
        let workload = match open.server {
            Some(address) => format!("{}:{}", open.comm, address.port()),
            None => format!("{}:unix", open.comm),
        };
        ConnectionNames { comm: open.comm.as_str().into(), workload: workload.into(), identity: None }
    }
}

/// The state of all connections.
#[derive(Debug)]
pub struct Tracker {
    config: TrackerConfig,
    table: Table<Session>,
    /// Connections that wait for earlier calls.
    waiting: Vec<Cookie>,
    next_look: Option<KernelTime>,
    scratch: Scratch,
    hops: Hops,
}

impl Tracker {
    /// Without any connection.
    #[must_use]
    pub fn new(config: TrackerConfig) -> Self {
        Self {
            table: Table::new(config.max_connections),
            config,
            waiting: Vec::new(),
            next_look: None,
            scratch: Scratch::default(),
            hops: Hops::new(CLIENTS_MAX),
        }
    }

    /// Takes one event, in the order of the ring.
    pub fn event(&mut self, event: &Event<'_>, names: &mut impl NameResolver, sink: &mut impl Sink) {
        let (cookie, time) = match event {
            Event::Open(open) => return self.open(open, names, sink),
            Event::Connect(connect) => return self.hops.connect(connect),
            Event::Listen(_) => return,
            Event::Data(data) => (data.cookie, Some(data.time)),
            Event::State(state) => (state.cookie, Some(state.time)),
            Event::Arrivals(arrivals) => (arrivals.cookie, None),
        };
        let Some(session) = self.table.touch(cookie, time.unwrap_or_default()) else {
            // Its opening was lost, or it was given up to bound memory.
            if let Event::Data(data) = event
                && data.length > 0
            {
                sink.gap(data.direction, u64::from(data.length));
            }
            return;
        };
        let mut context = Context { config: &self.config, sink, scratch: &mut self.scratch, hops: &mut self.hops };
        let fate = match event {
            Event::Data(data) => session.data(data, &mut context),
            Event::State(state) => session.state(state, &mut context),
            Event::Arrivals(arrivals) => session.arrivals(arrivals),
            Event::Open(_) | Event::Listen(_) | Event::Connect(_) => Fate::Alive,
        };
        if fate == Fate::Over {
            self.table.remove(cookie);
        } else if session.is_waiting() && !std::mem::replace(&mut session.listed, true) {
            self.waiting.push(cookie);
        }
    }

    fn open(&mut self, open: &Open, names: &mut impl NameResolver, sink: &mut impl Sink) {
        let ConnectionNames { comm, workload, identity } = names.names(open);
        let info = Arc::new(ConnectionInfo {
            cookie: open.cookie,
            server: open.server,
            client: open.client,
            pid: open.pid,
            comm,
            workload,
            identity,
        });
        if let Some(reason) = open.opaque {
            sink.opaque(&info, reason);
            self.hops.disconnect(&info);
            // What looked like HTTP at first sight is not.
            if let Some(old) = self.table.remove(open.cookie) {
                old.abandon(&mut Context {
                    config: &self.config,
                    sink,
                    scratch: &mut self.scratch,
                    hops: &mut self.hops,
                });
            }
            return;
        }
        if open.mid_request {
            sink.joined_mid_request(&info);
        }
        let mut context = Context { config: &self.config, sink, scratch: &mut self.scratch, hops: &mut self.hops };
        self.table.make_room(|session| session.abandon(&mut context));
        if let Some(old) = self.table.insert(open.cookie, Session::new(info, open, &self.config), open.time) {
            old.abandon(&mut context);
        }
    }

    /// A connection ended, and the event of that was lost. What it carried cannot be told.
    pub fn ended(&mut self, cookie: Cookie, sink: &mut impl Sink) {
        if let Some(session) = self.table.remove(cookie) {
            session.lose(&mut Context { config: &self.config, sink, scratch: &mut self.scratch, hops: &mut self.hops });
        }
    }

    /// All events up to `now` were given: stops waiting for what is overdue. To be called after each drain of the
    /// ring.
    pub fn tick(&mut self, now: KernelTime, sink: &mut impl Sink) {
        let mut context = Context { config: &self.config, sink, scratch: &mut self.scratch, hops: &mut self.hops };
        let table = &mut self.table;
        self.waiting.retain(|cookie| {
            let Some(session) = table.get_mut(*cookie) else { return false };
            if session.expire(now, &mut context) == Fate::Over {
                table.remove(*cookie);
                return false;
            }
            session.listed = session.is_waiting();
            session.listed
        });
        debug_assert!(!table.is_empty() || context.hops.is_idle(), "requests without a connection");
        let idle = self.config.idle_timeout;
        let next_look = *self.next_look.get_or_insert(now + idle / IDLE_LOOKS);
        if now >= next_look {
            self.next_look = Some(now + idle / IDLE_LOOKS);
            if let Some(since) = now.since(KernelTime::default() + idle) {
                let since = KernelTime::default() + since;
                self.table.expire(since, Session::is_unix, |session| session.abandon(&mut context));
            }
        }
    }

    /// The end of observation: calls that are held back are given up on and what they complete is reported. Requests
    /// still under way are dropped: they did not end, and their servers go on without us.
    pub fn finish(&mut self, _now: KernelTime, sink: &mut impl Sink) {
        let forever = KernelTime::from_nanos(u64::MAX);
        let mut context = Context { config: &self.config, sink, scratch: &mut self.scratch, hops: &mut self.hops };
        for cookie in self.waiting.drain(..) {
            if let Some(session) = self.table.get_mut(cookie) {
                session.expire(forever, &mut context);
            }
        }
        self.table = Table::new(self.config.max_connections);
        self.hops = Hops::new(CLIENTS_MAX);
    }

    /// Connections known now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Connections whose clients are known to be processes of this host, used or not.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.hops.clients()
    }

    /// Clients that were forgotten to bound memory, before their connections ended.
    #[must_use]
    pub fn clients_given_up(&self) -> u64 {
        self.hops.given_up()
    }

    /// Every connection, with the number of its requests as in [`Self::in_flight`].
    pub fn connections_in_use(&self) -> impl Iterator<Item = (&ConnectionInfo, u64)> {
        self.table.values().map(|session| (&*session.info, session.in_flight()))
    }

    /// Connections with requests to a language model that have begun and not ended, and how many. A request counts
    /// once its head shows what it asks for.
    pub fn in_flight(&self) -> impl Iterator<Item = (&ConnectionInfo, u64)> {
        self.connections_in_use().filter(|(_, count)| *count > 0)
    }
}

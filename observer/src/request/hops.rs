//! Which requests one server of this host passed on to another.
//!
//! A request whose client is a process that is answering a request of the same kind itself is a backend's, and that other
//! request is a proxy's. What is both, in the middle of a chain, is a backend's: so the outermost hop of each request, and
//! nothing else, is not a backend's.

use std::{collections::BTreeMap, hash::BuildHasher, net::SocketAddr, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashMap};

use super::{
    record::{ConnectionInfo, Operation, Role},
    timeline::Exchange,
};
use crate::{event::Connect, time::KernelTime};

/// Most connections whose clients are remembered; beyond, those that no server has used are forgotten, oldest first.
pub const CLIENTS_MAX: usize = 65_536;

/// Client's and server's end of a connection.
type Ends = (SocketAddr, SocketAddr);

/// A process of this host at the client's end of a connection.
#[derive(Debug)]
struct Client {
    pid: u32,
    /// The server's end is known, too.
    met: bool,
    used: KernelTime,
}

/// A request under way at a server.
#[derive(Debug)]
struct Flight {
    read: KernelTime,
    operation: Operation,
    is_llm: bool,
    model: Option<Arc<str>>,
    request_id: Option<u64>,
    trace_id: Option<u64>,
    role: Role,
    /// Another request was found to be what became of it.
    passed_on: bool,
    /// Its client is known, and what that was answering was looked for.
    settled: bool,
}

impl Flight {
    /// Whether one can be what became of the other: an agent that asks for an embedding while it answers a chat does not
    /// pass that on.
    fn is_like(&self, other: &Self) -> bool {
        self.operation == other.operation || (self.operation.generates() && other.operation.generates())
    }
}

/// Requests under way and the processes that ask for them.
#[derive(Debug)]
pub(super) struct Hops {
    clients: HashMap<Ends, Client>,
    capacity: usize,
    /// Clients forgotten before their connections ended, for others.
    given_up: u64,
    /// By the server's process, and in the order of their beginning.
    flights: BTreeMap<(u32, u64), Flight>,
    /// Tells flights apart; 0 is none.
    last: u64,
    hasher: DefaultHashBuilder,
}

impl Hops {
    /// Remembers the clients of at most `capacity` connections (at least one).
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            clients: HashMap::new(),
            capacity: capacity.max(1),
            given_up: 0,
            flights: BTreeMap::new(),
            last: 0,
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Connections whose clients are remembered.
    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Clients forgotten before their connections ended.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// A process of this host connected to a server. Comes before or after the server's end of it.
    pub(super) fn connect(&mut self, connect: &Connect) {
        let ends = (connect.local, connect.remote);
        if self.clients.len() >= self.capacity && !self.clients.contains_key(&ends) {
            self.make_room();
        }
        self.clients.insert(ends, Client { pid: connect.pid, met: false, used: connect.time });
    }

    /// Some at a time, because finding them looks at all.
    fn make_room(&mut self) {
        let mut by_use: Vec<_> = self.clients.iter().map(|(ends, client)| (client.met, client.used, *ends)).collect();
        let count = (self.capacity / 64 + 1).min(by_use.len());
        if count < by_use.len() {
            by_use.select_nth_unstable(count);
        }
        for (_, _, ends) in &by_use[..count] {
            self.clients.remove(ends);
        }
        self.given_up += count as u64;
    }

    /// A server's connection is over.
    pub(super) fn disconnect(&mut self, connection: &ConnectionInfo) {
        if let Some(ends) = ends(connection) {
            self.clients.remove(&ends);
        }
    }

    /// The head of a request was read.
    pub(super) fn begun(&mut self, connection: &ConnectionInfo, exchange: &mut Exchange) {
        let Some(operation) = operation(exchange) else { return };
        self.last += 1;
        exchange.flight = self.last;
        let hash = |id: &Option<Box<str>>| id.as_deref().map(|id| self.hasher.hash_one(id));
        let flight = Flight {
            read: exchange.timeline.read.unwrap_or_default(),
            operation,
            is_llm: exchange.is_llm(),
            model: None,
            request_id: hash(&exchange.request_id),
            trace_id: hash(&exchange.trace_id),
            role: Role::Server,
            passed_on: false,
            settled: false,
        };
        self.flights.insert((connection.pid, exchange.flight), flight);
    }

    /// All of a request was read: what it asks for is known, as far as it will be.
    pub(super) fn asked(&mut self, connection: &ConnectionInfo, exchange: &Exchange) {
        let key = (connection.pid, exchange.flight);
        let Some(flight) = self.flights.get_mut(&key) else { return };
        flight.operation = operation(exchange).unwrap_or(flight.operation);
        flight.is_llm = exchange.is_llm();
        flight.model.clone_from(&exchange.request_model);
        self.settle(connection, key);
    }

    /// A request is over; what the server was to it.
    pub(super) fn over(&mut self, connection: &ConnectionInfo, exchange: &Exchange) -> Role {
        let key = (connection.pid, exchange.flight);
        match self.flights.get(&key) {
            // Its client may be known by now; or not all of it was read.
            Some(flight) if !flight.settled => self.asked(connection, exchange),
            Some(_) => {}
            None => return Role::Server,
        }
        self.flights.remove(&key).map_or(Role::Server, |flight| flight.role)
    }

    /// Looks for what the client of this request is answering itself.
    fn settle(&mut self, connection: &ConnectionInfo, key: (u32, u64)) {
        let Some(client) = ends(connection).and_then(|ends| self.clients.get_mut(&ends)) else { return };
        // Taken out for the time being: a process can be its own client.
        let Some(mut flight) = self.flights.remove(&key) else { return };
        (client.met, client.used) = (true, client.used.max(flight.read));
        flight.settled = true;
        let candidates = self.flights.range_mut((client.pid, 0)..=(client.pid, u64::MAX)).map(|(_, other)| other);
        let origin = candidates
            .filter(|other| flight.is_llm && other.is_llm && other.read <= flight.read && other.is_like(&flight))
            .max_by_key(|other| {
                let same_id = (other.trace_id.is_some() && other.trace_id == flight.trace_id)
                    || (other.request_id.is_some() && other.request_id == flight.request_id);
                let same_model = other.model.is_some() && other.model == flight.model;
                (same_id, same_model, !other.passed_on, other.read)
            });
        if let Some(origin) = origin {
            origin.passed_on = true;
            if origin.role == Role::Server {
                origin.role = Role::Proxy;
            }
            flight.role = Role::Backend;
        }
        self.flights.insert(key, flight);
    }
}

fn operation(exchange: &Exchange) -> Option<Operation> {
    exchange.route.map(|route| exchange.operation.unwrap_or(route.operation))
}

fn ends(connection: &ConnectionInfo) -> Option<Ends> {
    connection.client.zip(connection.server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Cookie, llm::route, protocol::http1_head::Method};

    fn connection(pid: u32) -> ConnectionInfo {
        let address = |port| Some(([127, 0, 0, 1], port).into());
        ConnectionInfo {
            cookie: Cookie(u64::from(pid)),
            server: address(8000),
            client: address(40_000),
            pid,
            comm: "server".into(),
            workload: "server:8000".into(),
            identity: None,
        }
    }

    /// A request of this operation begins and is read.
    fn ask(hops: &mut Hops, connection: &ConnectionInfo, operation: Operation) -> Exchange {
        let mut exchange = Exchange::new(route::find(Method::Post, "/v1/completions"), Method::Post);
        exchange.operation = Some(operation);
        hops.begun(connection, &mut exchange);
        hops.asked(connection, &exchange);
        exchange
    }

    #[test]
    fn only_like_becomes_of_like() {
        let roles = |asked, passed_on| {
            let mut hops = Hops::new(1);
            let (proxy, backend) = (ConnectionInfo { client: None, ..connection(1) }, connection(2));
            let [local, remote] = [backend.client, backend.server].map(|address| address.expect("given"));
            hops.connect(&Connect { time: KernelTime::default(), pid: 1, local, remote });
            let (outer, inner) = (ask(&mut hops, &proxy, asked), ask(&mut hops, &backend, passed_on));
            let roles = (hops.over(&backend, &inner), hops.over(&proxy, &outer));
            assert!(hops.is_idle());
            roles
        };
        let (linked, apart) = ((Role::Backend, Role::Proxy), (Role::Server, Role::Server));
        assert_eq!(roles(Operation::Chat, Operation::TextCompletion), linked);
        assert_eq!(roles(Operation::Embeddings, Operation::Embeddings), linked);
        // An agent that asks for an embedding while it answers a chat; a search that has a model write its queries.
        assert_eq!(roles(Operation::Chat, Operation::Embeddings), apart);
        assert_eq!(roles(Operation::Embeddings, Operation::Chat), apart);
    }
}

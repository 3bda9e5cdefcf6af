//! TCP of workloads' connections, against what `ss` and `nstat` say of the same ones: in networks of the test's own, where
//! packets can be lost.

use std::{
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{
    clock,
    http::Client,
    metrics::Metrics,
    net::free_port,
    netns::{Cable, Ss},
    observer::{self, Observer},
    process::Process,
    require,
    scratch::Scratch,
    servers::{self, Server, listening},
    traffic,
    wait::{self, SOON},
};

const RETRANSMITS: &str = "workload_tcp_retransmits_total";
const RTT_SUM: &str = "workload_tcp_rtt_seconds_sum";
const RTT_COUNT: &str = "workload_tcp_rtt_seconds_count";
const UNSENT: &str = "workload_tcp_unsent_bytes";
const ZERO_WINDOW: &str = "workload_tcp_zero_window_total";
const OVERFLOWS: &str = "workload_listen_overflows_total";
const FIRST_READ_SUM: &str = "workload_tcp_time_to_first_read_seconds_sum";
const FIRST_READ_COUNT: &str = "workload_tcp_time_to_first_read_seconds_count";

/// A network with the sample server in it, and an observer outside.
struct Setup {
    observer: Observer,
    _server: Process,
    port: u16,
    cable: Cable,
}

impl Setup {
    fn new() -> Self {
        let (cable, port) = (Cable::new(), free_port());
        let observer = Observer::start(&[port]);
        let listen = cable.at(port).to_string();
        let mut server = cable.server.spawn("sample-llm", require::sample(), &["serve", "--listen", &listen]);
        listening(&mut server);
        Self { observer, _server: server, port, cable }
    }

    fn client(&self) -> Client {
        self.cable.client.within(|| Client::connect(self.cable.at(self.port)).expect("it listens"))
    }

    fn value(&self, name: &str) -> f64 {
        self.observer.metrics().sum(name, &[])
    }

    fn connections(&self) -> Vec<Ss> {
        self.cable.server.connections(self.port)
    }

    /// Answers a first request, so that the workload is known.
    fn known(&self, client: &mut Client) {
        client.ask(&traffic::sample_chat("first", 0, 1, 3)).expect("an answer");
        wait::until("the workload to be known", SOON, || self.observer.metrics().has(UNSENT).then_some(()));
    }

    /// Drops packets that come to the client, as this condition of nftables says.
    fn drop_at_client(&self, condition: &str) {
        let file = self.observer.scratch().write(
            "rules",
            &format!(
                "table inet loss {{\nchain input {{\ntype filter hook input priority 0;\n\
                 tcp sport {} {condition} drop\n}}\n}}\n",
                self.port
            ),
        );
        let _nothing = self.cable.client.output("nft", &["-f", file.to_str().expect("plain")]);
    }
}

/// Whatever is lost, the kernel's own count of what it sent again is ours: of connections that live and that closed, and
/// from before the workload was known.
#[test]
fn retransmits_are_those_of_the_kernel() {
    require!(kernel, sample, ip, ss, nft);
    let setup = Setup::new();
    // The very first packet is the SYN-ACK.
    setup.drop_at_client("numgen inc mod 8 0");
    let mut clients: Vec<Client> = (0..3).map(|_| setup.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.ask(&traffic::sample_chat(&format!("first {index}"), 0, 1, 40)).expect("an answer");
    }
    let expect = |least: u64, closed: u64, what: &str| {
        let mut last = (0, 0.0);
        let equal = wait::try_until(SOON, || {
            // What is told in between may change both.
            let before: u64 = setup.connections().iter().map(|seen| seen.retransmits).sum();
            let told = setup.value(RETRANSMITS);
            last = (before + closed, told);
            (before + closed >= least && told == (before + closed) as f64).then_some(before)
        });
        println!("{what}: {} by ss, {} by the observer", last.0, last.1);
        equal.unwrap_or_else(|| panic!("{what}: {last:?}, at least {least} were expected"))
    };
    expect(10, 0, "from before the workload was known");
    for round in 0..3 {
        thread::scope(|scope| {
            for (index, client) in clients.iter_mut().enumerate() {
                scope.spawn(move || {
                    // Several events a write make segments that the network card would cut.
                    let mut body = traffic::sample_body(true, 0, 1, 400);
                    body["sample"]["events_per_write"] = [1, 20, 100][round].into();
                    let id = format!("{round} {index}");
                    client.ask(&traffic::post("/v1/chat/completions", &id, "", &body.to_string())).expect("an answer")
                });
            }
        });
    }
    let all = expect(60, 0, "under loss");
    drop(clients);
    wait::until("the connections to close", Duration::from_secs(30), || setup.connections().is_empty().then_some(()));
    // A connection may send again what says that it closes.
    let told = setup.value(RETRANSMITS);
    println!("closed: {all} before, {told} after");
    assert!(told >= all as f64 && told <= all as f64 + 12.0, "{told}");
}

/// What is added to the sum is what `ss` said right before the write or right after it, to the microsecond.
#[test]
fn round_trip_times_are_those_of_the_kernel() {
    require!(kernel, sample, ip, ss, tc);
    let setup = Setup::new();
    let mut client = setup.client();
    setup.known(&mut client);
    // A bucket that holds a packet: once a request has emptied it, an acknowledgement waits for 2 ms.
    let shaped = ["qdisc", "add", "dev", "cable", "root", "tbf", "rate", "256kbit", "burst", "1600", "latency", "1s"];
    let padding = format!("x-padding: {}\r\n", "x".repeat(2500));
    let rtt = || setup.connections().first().expect("it is open").rtt;
    let told = || {
        let metrics = setup.observer.metrics();
        let sum = metrics.sum(RTT_SUM, &[]);
        ((sum * 1e6).round() as u64, metrics.sum(RTT_COUNT, &[]) as u64)
    };
    let mut seen = Vec::new();
    for index in 0..20 {
        if index == 10 {
            let _nothing = setup.cable.client.output("tc", &shaped);
        }
        // Longer than a delayed acknowledgement, and than the least time between two looks.
        thread::sleep(Duration::from_millis(150));
        let (before, (sum, count)) = (rtt(), told());
        let body = traffic::sample_body(false, 5, 0, 3).to_string();
        let headers = if index < 10 { "" } else { &padding };
        client.ask(&traffic::post("/v1/chat/completions", &index.to_string(), headers, &body)).expect("an answer");
        thread::sleep(Duration::from_millis(100));
        let (after, (new_sum, new_count)) = (rtt(), told());
        assert_eq!(new_count, count + 1, "one write, one look");
        let added = new_sum - sum;
        assert!(added == before || added == after, "{added} us, while ss said {before} before and {after} after");
        seen.push(added);
    }
    println!("{seen:?}");
    // How fast a cable is depends on the machine, which may be an emulated one.
    let cable = *seen[..10].iter().min().expect("ten of them");
    assert!(cable > 0 && seen[19] > cable.max(1000), "a cable, then a narrow one: {seen:?}");
    let _nothing = setup.cable.client.output("tc", &["qdisc", "del", "dev", "cable", "root"]);
    // A stream is looked at ten times a second, not at each of its 200 writes.
    let ((_, count), begun) = (told(), Instant::now());
    client.ask(&traffic::sample_chat("stream", 0, 5, 200)).expect("an answer");
    let ((_, after), took) = (told(), begun.elapsed());
    println!("{} looks at a stream of {took:?}", after - count);
    let most = took.as_millis() as u64 / 100 + 2;
    assert!((5..=most).contains(&(after - count)), "{} looks in {took:?}", after - count);
}

/// A client that does not read: its window closes, bytes wait, and once it reads none do.
#[test]
fn a_slow_reader_shows() {
    require!(kernel, sample, ip, ss, nstat);
    let setup = Setup::new();
    setup.cable.client.sysctl("net.ipv4.tcp_rmem", "4096 65536 65536");
    setup.cable.server.sysctl("net.ipv4.tcp_wmem", "4096 16384 65536");
    let mut client = setup.client();
    setup.known(&mut client);
    assert_eq!((setup.value(UNSENT), setup.value(ZERO_WINDOW)), (0.0, 0.0), "nobody waits yet");
    for pause in 1..=2 {
        let mut body = traffic::sample_body(true, 0, 0, 2000);
        body["sample"]["events_per_write"] = 4.into();
        let closed = setup.cable.client.counter("TcpExtTCPToZeroWindowAdv");
        client.send(&traffic::post("/v1/chat/completions", &pause.to_string(), "", &body.to_string())).expect("sent");
        // Until nothing moves any more, all three agree.
        let stuck = wait::until("the window to close", SOON, || {
            let seen = *setup.connections().first()?;
            (seen.unsent > 0 && seen.window.is_none_or(|window| window == 0)).then_some(())?;
            thread::sleep(Duration::from_millis(300));
            (setup.connections().first() == Some(&seen)).then_some(seen)
        });
        // A look that took long is not done again at once: then a scrape has what was found before.
        let windows = wait::until("what ss says", SOON, || {
            let metrics = setup.observer.metrics();
            (metrics.sum(UNSENT, &[]) == stuck.unsent as f64).then(|| metrics.sum(ZERO_WINDOW, &[]))
        });
        println!("stuck: {stuck:?}; {windows} windows closed");
        assert!(windows >= f64::from(pause), "it closed {pause} times at least");
        let answer = client.receive().expect("an answer");
        assert_eq!(answer.status, 200);
        wait::until("nothing to be unsent", SOON, || (setup.value(UNSENT) == 0.0).then_some(()));
        let by_client = setup.cable.client.counter("TcpExtTCPToZeroWindowAdv") - closed;
        println!("the client closed its window {by_client} times in that answer");
        let told = setup.value(ZERO_WINDOW);
        assert!(told <= setup.cable.client.counter("TcpExtTCPToZeroWindowAdv") as f64, "{told}");
    }
}

/// A server that accepts late drops connections, and one that reads late shows it.
#[test]
fn late_accepts_and_reads_show() {
    require!(kernel, python, ip, ss, nstat);
    let (cable, port, scratch) = (Cable::new(), free_port(), Scratch::new());
    let observer = Observer::start(&[port]);
    let script = servers::scripts().join("late.py");
    let go = scratch.file("go");
    let (address, listen) = (cable.server.address.to_string(), cable.at(port));
    let arguments = [script.to_str(), Some(&address), Some(&port.to_string()), Some("1"), Some("0.3"), go.to_str()]
        .map(|argument| argument.expect("plain").to_owned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut server = cable.server.spawn("late.py", require::python(), &arguments);
    listening(&mut server);
    let connect = || {
        cable.client.within(|| {
            let before = clock::monotonic();
            let client = Client::connect(listen).expect("it listens");
            (client, before, clock::monotonic())
        })
    };
    // The first reads late: from its establishment on time runs.
    let (mut client, from, to) = connect();
    client.send(&traffic::chat("late")).expect("sent");
    let _accept = scratch.write("go0", "");
    let line = server.line(SOON, |line| line.starts_with("read at "));
    assert_eq!(client.receive().expect("an answer").status, 200);
    let read: u64 = line.rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a time");
    let metrics = wait::until("the workload to be known", SOON, || {
        let metrics = observer.metrics();
        (metrics.has(OVERFLOWS) && metrics.has(FIRST_READ_SUM)).then_some(metrics)
    });
    let told = (metrics.sum(FIRST_READ_SUM, &[]) * 1e9) as u64;
    println!("first read after {told} ns, between {} and {}", read - to, read - from);
    // The server takes its time after the read has returned.
    assert!(told > 300_000_000 && told <= read - from + 1000, "{told}");
    assert!(told + 20_000_000 > read - to, "{told}");
    assert_eq!(metrics.sum(FIRST_READ_COUNT, &[]), 1.0);
    assert_eq!(metrics.sum(OVERFLOWS, &[]), 0.0, "nothing was dropped yet");

    // Now nobody accepts: two connections fit in, all else is dropped, again and again.
    let counter = || cable.server.counter("TcpExtListenOverflows");
    assert_eq!(counter(), 0, "the namespace is new");
    let waiting = [connect(), connect()];
    let attempts: Vec<_> =
        cable.client.within(|| (0..3).map(|_| thread::spawn(move || Client::connect(listen))).collect());
    wait::until("attempts to be repeated", SOON, || (counter() >= 6).then_some(()));
    let agreed = wait::until("equal numbers", SOON, || {
        let before = counter();
        let (told, drops) = (observer.metrics().sum(OVERFLOWS, &[]), drops(&cable, port));
        (counter() == before).then_some((told, drops, before))
    });
    println!("{} overflows by the observer, {} drops by ss, {} overflows by nstat", agreed.0, agreed.1, agreed.2);
    assert_eq!((agreed.0 as u64, agreed.1), (agreed.2, agreed.2));
    // Their end is theirs: connections that were never accepted are reset with the server.
    server.stop(libc::SIGKILL, SOON);
    drop(waiting);
    for attempt in attempts {
        let _refused = attempt.join().expect("it ends");
    }
    assert_eq!(observer.metrics().sum(OVERFLOWS, &[]), agreed.0, "it does not fall with its socket");
}

/// Drops of the socket that listens on this port.
fn drops(cable: &Cable, port: u16) -> u64 {
    let text = cable.server.output("ss", &["-ltnmOH", "sport", "=", &format!(":{port}")]);
    let memory = text.split("skmem:(").nth(1).and_then(|rest| rest.split(')').next()).expect("one listener");
    memory.rsplit(',').next().and_then(|field| field.strip_prefix('d')?.parse().ok()).expect("drops come last")
}

/// Connections to other ports of the same process, and what is switched off, have no samples.
#[test]
fn only_connections_to_language_models_count() {
    require!(kernel, sample);
    let server = Server::sample(&[]);
    let off = Observer::tuned(&["--ports", &server.port().to_string()], &[("OBSERVER_SIGNALS_TCP", "false")]);
    let on = Observer::start(&[server.port()]);
    let tcp = [RETRANSMITS, RTT_COUNT, UNSENT, ZERO_WINDOW, OVERFLOWS];
    let has = |metrics: &Metrics| tcp.map(|name| metrics.has(name));
    // Health checks make no workload.
    let mut client = Client::connect(server.address).expect("it listens");
    for _ in 0..3 {
        client.ask(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").expect("an answer");
        thread::sleep(Duration::from_millis(110));
    }
    assert_eq!(has(&on.metrics()), [false; 5]);
    client.ask(&traffic::sample_chat("one", 0, 1, 3)).expect("an answer");
    wait::until("the workload to be known", SOON, || on.metrics().has(OVERFLOWS).then_some(()));
    thread::sleep(Duration::from_millis(110));
    client.ask(&traffic::sample_chat("two", 0, 1, 3)).expect("an answer");
    assert_eq!(has(&on.metrics()), [true; 5]);
    wait::until("the other observer to know it", SOON, || {
        off.metrics().has("workload_cpu_seconds_total").then_some(())
    });
    assert_eq!(has(&off.metrics()), [false; 5]);
    assert!(off.metrics().has(FIRST_READ_COUNT), "of requests, which are seen all the same");
}

/// `observer doctor` names both probes.
#[test]
fn the_doctor_names_the_probes() {
    require!(kernel);
    let mut command = observer::command();
    command.args(["doctor"]);
    let (status, lines) = observer::run(command);
    assert!(status.success(), "{lines:#?}");
    for probe in ["tcp_retransmit", "tcp_sockets"] {
        assert!(lines.iter().any(|line| line.contains(probe) && line.contains("attaches")), "{probe}: {lines:#?}");
    }
}

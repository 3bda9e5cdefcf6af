//! The HTTP server as others meet it: limits, who may ask what, TLS and users by the file that exporters share.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use observer_e2e::{
    http,
    net::{free_address, free_port},
    netns::Cable,
    observer::{self, Observer},
    process::Process,
    prometheus::Prometheus,
    require,
    scratch::Scratch,
    wait::{self, SOON},
};

/// bcrypt of `not-a-secret`, which protects nothing but this test.
const HASH: &str = "$2b$10$Tr9js2u3S4BTBgGYoobcJ.sj0Q96wovrBNjounVFFF0pQ/6NmQ8Mm";
const PASSWORD: &str = "not-a-secret";
const TOKEN: &str = "0123456789abcdef-token";
/// The server's patience with a head, and room for a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const ROOM: Duration = Duration::from_secs(5);

fn scope() -> [String; 2] {
    ["--ports".to_owned(), free_port().to_string()]
}

fn bare(arguments: &[&str]) -> Observer {
    let scope = scope();
    Observer::bare(&[&[scope[0].as_str(), scope[1].as_str()], arguments].concat())
}

/// Waits for the server to end the connection, and says how long that took and what it sent.
fn end_of(stream: &mut TcpStream, begun: Instant) -> (Duration, String) {
    stream.set_read_timeout(Some(PATIENCE + ROOM)).expect("a socket");
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "still open"),
    }
    (begun.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn slow_and_greedy_clients_are_cut_off() {
    require!(kernel);
    let mut observer = bare(&[]);
    let connect = || TcpStream::connect(observer.address()).expect("it listens");
    let begun = Instant::now();
    // A byte now and then does not prolong it.
    let mut slow = connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ").expect("sent");
    let mut dripping = slow.try_clone().expect("a socket");
    let drip = thread::spawn(move || {
        while dripping.write_all(b"a").is_ok() && begun.elapsed() < PATIENCE + ROOM {
            thread::sleep(Duration::from_millis(500));
        }
    });
    let (mut silent, mut idle) = (connect(), connect());
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    // Heads that are too long, and that have too many fields.
    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(17_000));
    let many = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Many: 1\r\n".repeat(200));
    for head in [long, many] {
        let mut stream = connect();
        stream.write_all(head.as_bytes()).expect("sent");
        let (took, said) = end_of(&mut stream, Instant::now());
        assert!(said.starts_with("HTTP/1.1 431 ") && took < ROOM, "{took:?}: {said}");
    }
    let (took, said) = end_of(&mut slow, begun);
    assert!((PATIENCE / 2..PATIENCE + ROOM).contains(&took) && !said.contains(" 200 "), "{took:?}: {said}");
    let (took, _) = end_of(&mut silent, begun);
    assert!(took < PATIENCE + ROOM, "{took:?}");
    let (took, said) = end_of(&mut idle, begun);
    assert!(took < PATIENCE + ROOM && said.starts_with("HTTP/1.1 200 "), "{took:?}: {said}");
    drip.join().expect("it ended");
    observer.expect_alive();
}

#[test]
fn many_idle_connections_keep_nobody_out_for_long() {
    require!(kernel);
    let observer = bare(&[]);
    let held: Vec<_> = (0..600).map(|_| TcpStream::connect(observer.address()).expect("the kernel accepts")).collect();
    thread::sleep(Duration::from_secs(1));
    let descriptors = fs::read_dir(format!("/proc/{}/fd", observer.pid())).expect("it runs").flatten();
    let sockets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    let sockets = sockets.filter(|target| target.to_string_lossy().starts_with("socket:")).count();
    assert!((200..300).contains(&sockets), "{sockets} sockets of 600 connections");
    // Behind them in the queue: those that say nothing go, twice as many as there are places for.
    let begun = Instant::now();
    let answer = wait::try_until(PATIENCE * 3 + ROOM, || http::get(observer.address(), "/metrics").ok());
    assert_eq!(answer.map(|answer| answer.status), Some(200));
    println!("answered after {:?}", begun.elapsed());
    drop(held);
}

#[test]
fn others_are_told_metrics_and_health_and_nothing_more() {
    require!(kernel, ip);
    let cable = Cable::new();
    let scratch = Scratch::new();
    let token = scratch.write("token", &format!("{TOKEN}\n"));
    let port = free_port();
    let listen = SocketAddr::from((cable.server.address, port));
    let status = |from: &observer_e2e::netns::Namespace, to: SocketAddr, path: &str, head: &str| {
        from.within(|| http::get_with(to, path, head).map(|answer| answer.status).unwrap_or(0))
    };
    let start = |settings: &[&str]| {
        let mut command = cable.server.command(require::observer());
        command.args(["run", "--listen", &format!("0.0.0.0:{port}")]).args(scope()).args(settings);
        let mut observer = Process::spawn("observer", command);
        wait::until("the observer to be ready", SOON, || {
            assert!(observer.exited().is_none(), "{:#?}", observer.settled_output());
            (status(&cable.server, listen, "/readyz", "") == 200).then_some(())
        });
        observer
    };
    let local = SocketAddr::from(([127, 0, 0, 1], port));
    let mut observer = start(&[]);
    for path in ["/metrics", "/healthz", "/readyz", "/", "/openapi.json"] {
        assert_eq!(status(&cable.client, listen, path, ""), 200, "{path}");
    }
    for path in ["/api/v1/summary", "/api/v1/gpu", "/api/v1/nothing", "/api/v1/../v1/summary"] {
        assert_eq!(status(&cable.client, listen, path, ""), 403, "{path}");
    }
    assert_eq!(status(&cable.client, listen, "/api/v1/summary", "Authorization: Bearer whatever\r\n"), 403);
    // Its own address is not loopback; a proxy on this host speaks for others.
    assert_eq!(status(&cable.server, listen, "/api/v1/summary", ""), 403);
    assert_eq!(status(&cable.server, local, "/api/v1/summary", ""), 200);
    assert_eq!(status(&cable.server, local, "/api/v1/summary", "X-Forwarded-For: 192.0.2.1\r\n"), 403);
    assert!(observer.stop(libc::SIGTERM, Duration::from_secs(5)).success());

    let mut command = cable.server.command("env");
    command.arg(format!("OBSERVER_WEB_TOKEN_FILE={}", token.display())).arg(require::observer());
    command.args(["run", "--listen", &format!("0.0.0.0:{port}")]).args(scope());
    let mut observer = Process::spawn("observer", command);
    wait::until("the observer to be ready", SOON, || {
        (status(&cable.server, listen, "/readyz", "") == 200).then_some(())
    });
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for (from, to) in [(&cable.client, listen), (&cable.server, local)] {
        assert_eq!(status(from, to, "/api/v1/summary", &bearer), 200);
        assert_eq!(status(from, to, "/metrics", ""), 200);
        let wrong = [
            "",
            "Authorization: Bearer 0123456789abcdef-tokeN\r\n",
            "Authorization: Bearer\r\n",
            "Authorization: Basic YTpi\r\n",
        ];
        for head in wrong {
            assert_eq!(status(from, to, "/api/v1/summary", head), 401, "{head}");
        }
    }
    // A command to the driver stays with this host, token or not.
    let post = format!(
        "POST /api/v1/gpu/release HTTP/1.1\r\nHost: x\r\n{bearer}X-Observer-Command: gpu\r\nContent-Length: 0\r\n\r\n"
    );
    let answer = cable.client.within(|| http::Client::connect(listen)?.ask(post.as_bytes()));
    assert_eq!(answer.expect("an answer").status, 403);

    // Clients show it, or say what is missing.
    let url = format!("http://{listen}");
    let top = |more: &[&str]| {
        let mut command = cable.client.command(require::observer());
        command.args(["top", "--plain", "--for", "1s", "--url", &url]).args(more);
        observer::run(command)
    };
    let (ended, said) = top(&[]);
    assert!(!ended.success() && said.iter().any(|line| line.contains("--token-file")), "{said:#?}");
    let (ended, said) = top(&["--token-file", token.to_str().expect("plain")]);
    assert!(ended.success() && said.iter().any(|line| line.contains("uptime")), "{said:#?}");
    assert!(observer.stop(libc::SIGTERM, Duration::from_secs(5)).success());
}

/// A certificate with its key, signed by itself.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    signed(folder, name, &[])
}

/// A certificate with its key, signed by itself unless `more` has an authority.
fn signed(folder: &Path, name: &str, more: &[&str]) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    command.args(more).arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    let made = command.output().expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

/// What curl got: a status, 0 if there was no answer, and how it ended.
fn curl(url: &str, arguments: &[&str]) -> (u16, i32) {
    let mut command = Command::new(require::tool("curl").expect("required"));
    command
        .args(["--silent", "--output", "/dev/null", "--max-time", "20", "--write-out", "%{http_code}", url])
        .args(arguments);
    let output = command.output().expect("curl runs");
    let code = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0);
    (code, output.status.code().unwrap_or(-1))
}

struct Guarded {
    scratch: Scratch,
    process: Process,
    address: SocketAddr,
}

impl Guarded {
    /// With TLS and a user.
    fn start() -> Self {
        let scratch = Scratch::new();
        let _files = certificate(scratch.path(), "server");
        let config = scratch.write(
            "web.yml",
            &format!("tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  min_version: TLS12\nbasic_auth_users:\n  prometheus: {HASH}\n"),
        );
        let address = free_address();
        let mut command = observer::command();
        command.args(["run", "--listen", &address.to_string(), "--web.config.file"]).arg(config).args(scope());
        let mut process = Process::spawn("observer", command);
        let guarded = |process: &mut Process| {
            assert!(process.exited().is_none(), "{:#?}", process.settled_output());
        };
        let ca = scratch.file("server.pem");
        let url = format!("https://{address}/readyz");
        wait::until("the observer to be ready", SOON, || {
            guarded(&mut process);
            (curl(&url, &["--cacert", ca.to_str().expect("plain")]).0 == 200).then_some(())
        });
        Self { scratch, process, address }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    fn ca(&self) -> String {
        self.scratch.file("server.pem").display().to_string()
    }

    fn status(&self, path: &str, arguments: &[&str]) -> u16 {
        curl(&self.url(path), &[&["--cacert", &self.ca()], arguments].concat()).0
    }
}

#[test]
fn tls_and_passwords_as_exporters_have_them() {
    require!(kernel, curl, openssl);
    let mut guarded = Guarded::start();
    let right = format!("prometheus:{PASSWORD}");
    assert_eq!(guarded.status("/metrics", &[]), 401);
    assert_eq!(guarded.status("/metrics", &["--user", &right]), 200);
    assert_eq!(guarded.status("/api/v1/summary", &["--user", &right]), 200);
    for wrong in ["prometheus:wrong", "nobody:not-a-secret", ":", "prometheus:"] {
        assert_eq!(guarded.status("/metrics", &["--user", wrong]), 401, "{wrong}");
    }
    assert_eq!(guarded.status("/api/v1/summary", &[]), 401);
    assert_eq!(guarded.status("/healthz", &[]), 200, "health checks have no password");
    assert_eq!(guarded.status("/metrics", &["--user", &right, "--tls-max", "1.2"]), 200);
    // Nobody is believed for the asking: another authority, plain HTTP, an old protocol.
    assert_eq!(curl(&guarded.url("/healthz"), &[]), (0, 60));
    assert_eq!(curl(&format!("http://{}/healthz", guarded.address), &[]).0, 0);
    assert_eq!(curl(&guarded.url("/healthz"), &["--insecure", "--tls-max", "1.1"]).0, 0);

    // Guessing does not take the CPU: what was right once is answered meanwhile, at once.
    let attack: Vec<_> = (0..40)
        .map(|number| {
            let (url, ca) = (guarded.url("/metrics"), guarded.ca());
            thread::spawn(move || curl(&url, &["--cacert", &ca, "--user", &format!("prometheus:guess-{number}")]).0)
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(guarded.status("/metrics", &["--user", &right]), 200);
    println!("answered after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let answers: Vec<_> = attack.into_iter().map(|guess| guess.join().expect("curl")).collect();
    assert!(answers.iter().all(|status| [401, 429].contains(status)), "{answers:?}");
    assert!(answers.contains(&429) && answers.contains(&401), "{answers:?}");

    // Its own clients.
    let password = guarded.scratch.write("user", &format!("{right}\n"));
    let run = |arguments: &[&str], environment: &[(&str, String)]| {
        let mut command = observer::command();
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value.as_str())));
        observer::run(command)
    };
    let (url, ca) = (guarded.url(""), guarded.ca());
    let known = ["--url", &url, "--ca-file", &ca, "--user-file", password.to_str().expect("plain")];
    let (ended, said) = run(&[&["top", "--plain", "--for", "1s"][..], &known].concat(), &[]);
    assert!(ended.success() && said.iter().any(|line| line.contains("uptime")), "{said:#?}");
    let (ended, said) = run(&[&["gpu", "status"][..], &known].concat(), &[]);
    assert!(ended.success(), "{said:#?}");
    let (ended, said) = run(&["top", "--plain", "--url", &url, "--ca-file", &ca], &[]);
    assert!(!ended.success() && said.iter().any(|line| line.contains("--user-file")), "{said:#?}");
    let (ended, said) = run(&["top", "--plain", "--url", &format!("http://{}", guarded.address)], &[]);
    assert!(!ended.success() && said.iter().any(|line| line.contains("https://")), "{said:#?}");
    // A container's health check knows the settings, and nothing else.
    let settings = [
        ("OBSERVER_LISTEN", guarded.address.to_string()),
        ("OBSERVER_WEB_CONFIG_FILE", guarded.scratch.file("web.yml").display().to_string()),
    ];
    let (ended, said) = run(&["health", "--ready"], &settings);
    assert!(ended.success(), "{said:#?}");

    // A new certificate is shown, a broken one is not.
    let fingerprint = |ca: &str| curl(&guarded.url("/healthz"), &["--cacert", ca]).0;
    let old = guarded.scratch.file("old.pem");
    fs::copy(guarded.scratch.file("server.pem"), &old).expect("ours");
    let _files = certificate(guarded.scratch.path(), "server");
    wait::until("the new certificate", SOON, || (fingerprint(&guarded.ca()) == 200).then_some(()));
    assert_eq!(fingerprint(old.to_str().expect("plain")), 0);
    fs::write(guarded.scratch.file("server.key"), "no key").expect("ours");
    wait::until("a word about it", SOON, || {
        guarded
            .process
            .output()
            .iter()
            .any(|line| line.contains("server.key") && line.contains("stays in force"))
            .then_some(())
    });
    assert_eq!(guarded.status("/metrics", &["--user", &right]), 200);
    assert!(guarded.process.stop(libc::SIGTERM, Duration::from_secs(5)).success());
}

#[test]
fn prometheus_scrapes_by_tls_with_a_password() {
    require!(kernel, curl, openssl, prometheus);
    let guarded = Guarded::start();
    let config = guarded.scratch.write(
        "prometheus.yml",
        &format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: observer\n    scheme: https\n    tls_config:\n      \
             ca_file: {}\n    basic_auth:\n      username: prometheus\n      password: {PASSWORD}\n    static_configs:\n      \
             - targets: ['{}']\n",
            guarded.ca(),
            guarded.address
        ),
    );
    let data = format!("--storage.tsdb.path={}", guarded.scratch.file("tsdb").display());
    let prometheus = Prometheus::start(&config, &[data]);
    wait::until("a scrape", Duration::from_secs(20), || {
        (prometheus.value("up{job=\"observer\"}") == Some(1.0)).then_some(())
    });
    assert!(prometheus.value("count({__name__=~\"observer_.*\"})").is_some_and(|count| count > 10.0));
    prometheus.stop();
}

#[test]
fn only_who_has_a_certificate_gets_in_where_that_is_asked_for() {
    require!(kernel, curl, openssl);
    let scratch = Scratch::new();
    let _server = certificate(scratch.path(), "server");
    let (authority, its_key) = certificate(scratch.path(), "authority");
    let (authority, its_key) = (authority.to_str().expect("plain"), its_key.to_str().expect("plain"));
    let by = ["-CA", authority, "-CAkey", its_key, "-addext", "basicConstraints=critical,CA:FALSE"];
    let (client, key) = signed(scratch.path(), "client", &by);
    let config = scratch.write(
        "web.yml",
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_ca_file: authority.pem\n  client_auth_type: RequireAndVerifyClientCert\n",
    );
    let address = free_address();
    let mut command = observer::command();
    command.args(["run", "--listen", &address.to_string(), "--web-config-file"]).arg(config).args(scope());
    let mut observer = Process::spawn("observer", command);
    let ca = scratch.file("server.pem");
    let ca = ca.to_str().expect("plain");
    let url = format!("https://{address}/metrics");
    let (client, key) = (client.to_str().expect("plain"), key.to_str().expect("plain"));
    wait::until("an answer", SOON, || {
        (curl(&url, &["--cacert", ca, "--cert", client, "--key", key]).0 == 200).then_some(())
    });
    assert_eq!(curl(&url, &["--cacert", ca]).0, 0);
    // The server's own certificate is one, too, of nobody that it asked for.
    let (own, its) = (scratch.file("server.pem"), scratch.file("server.key"));
    let stranger = ["--cacert", ca, "--cert", own.to_str().expect("plain"), "--key", its.to_str().expect("plain")];
    assert_eq!(curl(&url, &stranger).0, 0);
    assert!(observer.stop(libc::SIGTERM, Duration::from_secs(5)).success());
}

#[test]
fn what_cannot_be_used_is_said_before_anything_starts() {
    require!(observer);
    let scratch = Scratch::new();
    let cases = [
        ("basic_auth_users:\n  a: plain\n", "is no bcrypt hash"),
        ("tls_server_config:\n  cert_file: a.pem\n", "needs cert_file and key_file"),
        ("tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n", "a.pem: No such file"),
        ("tls_server_config:\n  certfile: a.pem\n", "known are tls_server_config"),
        ("basic_auth_users: [\n", "web.yml: "),
    ];
    for (text, wanted) in cases {
        let config = scratch.write("web.yml", text);
        let mut command = observer::command();
        command.args(["run", "--listen", &free_address().to_string(), "--web-config-file"]).arg(config).args(scope());
        let (ended, said) = observer::run(command);
        assert!(!ended.success() && said.iter().any(|line| line.contains(wanted)), "{wanted}: {said:#?}");
    }
    let token = scratch.write("token", "short\n");
    let mut command = observer::command();
    command.args(["run", "--listen", &free_address().to_string()]).args(scope()).env("OBSERVER_WEB_TOKEN_FILE", token);
    let (ended, said) = observer::run(command);
    assert!(!ended.success() && said.iter().any(|line| line.contains("16 printable characters")), "{said:#?}");
}

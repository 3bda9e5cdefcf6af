//! Request headers as labels and in the request log, and exemplars, with real requests.

use std::process::Command;

use observer_e2e::{
    http::{self, Client, header},
    metrics::Metrics,
    net::free_address,
    observer::{self, Observer},
    require,
    scratch::Scratch,
    servers::Server,
    traffic, wait,
};

const VARIABLE: &str = "OBSERVER_METRICS_HEADER_LABELS";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// `printf %s blue | sha256sum`, and `… | openssl dgst -sha256 -hmac 0123456789abcdef`: the first 16 digits.
const HASH_OF_BLUE: &str = "16477688c0e00699";
const KEYED_HASH_OF_BLUE: &str = "386a1f5c6a713cbb";

fn ask(server: &Server, id: &str, headers: &str) {
    ask_slowly(server, id, headers, 5);
}

fn ask_slowly(server: &Server, id: &str, headers: &str, ttft: u64) {
    let mut client = Client::connect(server.address).expect("it listens");
    let body = traffic::sample_body(true, ttft, 1, 3).to_string();
    let request = traffic::post("/v1/chat/completions", id, headers, &body);
    assert_eq!(client.ask(&request).expect("an answer").status, 200);
}

fn observe(server: &Server, settings: &[(&str, &str)]) -> Observer {
    Observer::tuned(&["--ports", &server.port().to_string()], settings)
}

/// A label of the request's line in the log.
fn logged(observer: &Observer, id: &str, label: &str) -> Option<String> {
    observer.line(id).labels.get(label).unwrap_or_else(|| panic!("no {label} in the line of {id}")).clone()
}

#[test]
fn a_tenant_is_a_label_up_to_its_cap() {
    require!(kernel, sample, curl);
    let server = Server::sample(&[]);
    let observer = observe(&server, &[(VARIABLE, "x-tenant:tenant:2,X-Team,x-tier")]);
    // What real clients send, in whatever spelling.
    let status = Command::new(require::tool("curl").expect("required"))
        .args(["-sS", "-o", "/dev/null", "-H", "X-TENANT:   acme", "-H", "x-request-id: curl", "-H", "x-team: ops"])
        .args(["-H", "authorization: Bearer not-for-logs", "-H", "cookie: id=not-for-logs"])
        .args(["-d", &traffic::sample_body(true, 5, 1, 3).to_string()])
        .arg(format!("http://{}/v1/chat/completions", server.address))
        .status();
    assert!(status.expect("curl runs").success());
    observer.line("curl");
    for (id, headers) in [
        ("acme", "x-tenant: acme\r\nx-team: ops\r\n".to_owned()),
        ("globex", "X-Tenant:globex\r\nx-team: ops\r\n".to_owned()),
        ("initech", "x-tenant: initech\r\nx-team: ops\r\n".to_owned()),
        ("hooli", "x-tenant: hooli\r\nx-team: ops\r\n".to_owned()),
        ("long", format!("x-tenant: {}\r\nx-team: ops\r\n", "l".repeat(129))),
        ("odd", "x-tenant: caf\u{e9}\r\nx-team: ops\r\n".to_owned()),
        ("none", String::new()),
    ] {
        ask(&server, id, &headers);
        // One after the other: who comes first gets a place.
        observer.line(id);
    }
    let metrics = observer.metrics();
    let port = server.port().to_string();
    let requests = |labels: &[(&str, &str)]| {
        let all: Vec<_> = [("server_port", &*port), ("outcome", "ok")].iter().chain(labels).copied().collect();
        metrics.sum("llm_requests_total", &all)
    };
    assert_eq!(requests(&[]), 8.0);
    for (tenant, count) in [("acme", 2.0), ("globex", 1.0), ("_other", 2.0), ("initech", 0.0)] {
        assert_eq!(requests(&[("tenant", tenant), ("x_team", "ops")]), count, "{tenant}");
    }
    let without = |label: &str| {
        let samples = metrics.select("llm_requests_total", &[("server_port", &port)]);
        let without = samples.iter().filter(|sample| sample.labels.iter().all(|(name, _)| name != label));
        without.map(|sample| sample.value).sum::<f64>()
    };
    assert_eq!((without("tenant"), without("x_team"), without("x_tier")), (3.0, 1.0, 8.0));
    for (family, count) in [
        ("gen_ai_server_time_to_first_token_seconds_count", 2.0),
        ("gen_ai_server_request_duration_seconds_count", 2.0),
        ("llm_output_chunks_total", 6.0),
    ] {
        assert_eq!(metrics.sum(family, &[("server_port", &port), ("tenant", "acme")]), count, "{family}");
    }
    assert_eq!(metrics.sum("observer_series_dropped_total", &[("label", "tenant")]), 2.0);
    assert_eq!(metrics.sum("observer_series_dropped_total", &[("label", "x_team")]), 0.0);
    // The log has no cap.
    for (id, tenant) in
        [("curl", Some("acme")), ("hooli", Some("hooli")), ("long", None), ("odd", None), ("none", None)]
    {
        assert_eq!(logged(&observer, id, "tenant").as_deref(), tenant, "{id}");
    }
    assert_eq!(logged(&observer, "acme", "x_team").as_deref(), Some("ops"));
    let log = std::fs::read_to_string(&observer.log().0).expect("it is there");
    let said = log + &http::get(observer.address(), "/metrics").expect("it answers").text();
    assert!(!said.contains("not-for-logs"), "secrets went where they must not go");
}

#[test]
fn hashes_are_the_same_after_a_restart_and_others_with_a_key() {
    require!(kernel, sample);
    let server = Server::sample(&[]);
    let scratch = Scratch::new();
    let key = scratch.write("key", "0123456789abcdef\n");
    let key = key.to_str().expect("UTF-8");
    let labels = (VARIABLE, "x-tenant:tenant:8:true");
    let keyed = [labels, ("OBSERVER_METRICS_HASH_KEY_FILE", key)];
    for (settings, expected) in
        [(&keyed[..1], HASH_OF_BLUE), (&keyed[..1], HASH_OF_BLUE), (&keyed[..], KEYED_HASH_OF_BLUE)]
    {
        let observer = observe(&server, settings);
        ask(&server, "hashed", "x-tenant: blue\r\n");
        assert_eq!(logged(&observer, "hashed", "tenant").as_deref(), Some(expected));
        assert_eq!(observer.metrics().sum("llm_requests_total", &[("tenant", expected)]), 1.0);
        let log = std::fs::read_to_string(&observer.log().0).expect("it is there");
        assert!(!log.contains("blue"), "{log}");
    }
}

#[test]
fn secrets_never_become_labels() {
    require!(observer);
    let port = free_address().port().to_string();
    let scratch = Scratch::new();
    let refused = |arguments: &[&str], settings: &[(&str, &str)], words: &[&str]| {
        let mut command = observer::command();
        command.args(["run", "--for", "1s", "--ports", &port, "--listen", &free_address().to_string()]);
        command.args(arguments).envs(settings.iter().copied());
        let (status, said) = observer::run(command);
        assert_eq!(status.code(), Some(2), "{settings:?}: {said:#?}");
        assert_eq!(said.len(), 1, "{settings:?}: one clear line: {said:#?}");
        assert!(words.iter().all(|word| said[0].contains(word)), "{settings:?}: {said:#?}");
    };
    for (labels, header) in [
        ("authorization", "`authorization`"),
        ("Authorization:tenant:8:true", "`Authorization`"),
        ("x-tenant,Cookie:user", "`Cookie`"),
        ("x-api-key:caller:8:true", "`x-api-key`"),
    ] {
        refused(&[], &[(VARIABLE, labels)], &[VARIABLE, "metrics.header_labels", header, "may carry a secret"]);
    }
    refused(&[], &[(VARIABLE, "a,b,c,d")], &["at most 3"]);
    refused(&[], &[(VARIABLE, "x-model:gen_ai_request_model")], &["`gen_ai_request_model`", "taken"]);
    let file =
        scratch.write("observer.toml", "[[metrics.header_labels]]\nheader = \"proxy-authorization\"\nhash = true\n");
    let file = file.to_str().expect("UTF-8");
    refused(&["--config", file, "--check-config"], &[], &[file, "`proxy-authorization`", "may carry a secret"]);
}

#[test]
fn exemplars_are_in_openmetrics_and_not_in_the_text_format() {
    require!(kernel, sample);
    let server = Server::sample(&[]);
    let observer = observe(&server, &[]);
    let get = |accept: &str| {
        let response = http::get_with(observer.address(), "/metrics", &format!("accept: {accept}\r\n"));
        let response = response.expect("it answers");
        (header(&response.head, "content-type").unwrap_or_default().to_owned(), response.text())
    };
    let open = "application/openmetrics-text;version=1.0.0";
    // Far enough apart for buckets of their own.
    ask_slowly(&server, "traced", &format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n"), 120);
    ask(&server, "untraced", "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\n");
    let (kind, text) = wait::until("both requests", wait::SOON, || {
        let (kind, text) = get(open);
        let count = Metrics::parse(&text).sum("gen_ai_server_time_to_first_token_seconds_count", &[]);
        (count == 2.0).then_some((kind, text))
    });
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#') && line.contains(" # {")).collect();
    assert!(lines.iter().all(|line| line.contains("_seconds_bucket{")), "{lines:#?}");
    for family in ["gen_ai_server_time_to_first_token_seconds", "gen_ai_server_request_duration_seconds"] {
        let bucket = format!("{family}_bucket{{");
        let mut of_family: Vec<_> = lines.iter().filter(|line| line.starts_with(&bucket)).collect();
        of_family.sort_by_key(|line| line.contains(TRACE));
        let [untraced, traced] = of_family[..] else { panic!("{family}: {lines:#?}") };
        assert!(untraced.contains(" # {request_id=\"untraced\"} 0.0"), "{untraced}");
        assert!(traced.contains(&format!(" # {{trace_id=\"{TRACE}\",request_id=\"traced\"}} 0.1")), "{traced}");
    }
    assert!(!lines.iter().any(|line| line.contains("00000000000000000000000000000000")), "no trace at all");
    let (kind, text) = get("text/plain");
    assert!(kind.starts_with("text/plain"), "{kind}");
    assert!(!text.lines().any(|line| !line.starts_with('#') && line.contains(" # ")) && !text.contains(TRACE));
}

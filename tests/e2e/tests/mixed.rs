//! Every API and every ending at once: what the observer says of each request equals what its client saw, field by field.

use std::{collections::HashMap, fs, path::Path, process::Command};

use observer_e2e::{
    observer::Observer, process::Process, request_log::RequestLine, require, scratch::Scratch, servers::Server,
    wait::SOON,
};
use sample_llm::{
    api::Api,
    load::{Line, Outcome},
};

/// The model that answers, which is not the one asked for.
const SERVED: &str = "served-model";
/// A client's time and the kernel's differ by this much at most where they must not: stamps of writes are up to 20 us
/// early or late, and the client may be served on another processor meanwhile.
const SLACK_NS: u64 = 500_000;

fn load(server: &Server, scratch: &Scratch, arguments: &[&str]) -> Vec<Line> {
    let log = scratch.file("client.jsonl");
    let mut command = Command::new(require::sample());
    command.args(["load", "--url", &format!("http://{}", server.address), "--log"]).arg(&log);
    command.args(["--route", "all", "--stream", "mixed"]).args(arguments);
    let mut client = Process::spawn("sample-llm load", command);
    let status = client.wait(12 * SOON);
    assert!(status.success(), "{:#?}", client.output());
    lines(&log)
}

fn lines(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).expect("the client's log");
    text.lines().map(|line| serde_json::from_str(line).expect("the client's own format")).collect()
}

fn operation(api: Api) -> &'static str {
    match api {
        Api::Chat | Api::Responses | Api::Messages | Api::OllamaChat => "chat",
        Api::Completions | Api::OllamaGenerate | Api::Tgi | Api::Sglang | Api::LlamaCpp | Api::Triton => {
            "text_completion"
        }
        Api::Embeddings => "embeddings",
        Api::Rerank => "rerank",
    }
}

/// How the observer must name what the client saw. A client that leaves while the last bytes are on their way sees less
/// than the server did.
fn outcome(client: &Line, observed: &RequestLine) -> &'static str {
    let left_ns = client.start_ns + client.total_ns;
    let complete = observed.outcome != "cancelled" && observed.t_end_ns.is_some_and(|end| end <= left_ns + SLACK_NS);
    match client.outcome {
        Outcome::Ok => "ok",
        Outcome::HttpError => "http_error",
        Outcome::ErrorInStream => "error_in_stream",
        Outcome::Truncated => "truncated",
        Outcome::Cancelled if complete && observed.status == Some(200) => "ok",
        Outcome::Cancelled if complete => "http_error",
        Outcome::Cancelled => "cancelled",
        Outcome::Failed => panic!("no connection: {client:#?}"),
    }
}

fn compare(client: &Line, observed: &RequestLine) {
    let both = format!("{client:#?}\n{observed:#?}");
    let cancelled = client.outcome == Outcome::Cancelled;
    let answered = client.status == Some(200);
    assert_eq!(observed.outcome, outcome(client, observed), "{both}");
    assert_eq!(observed.incomplete_reason, None, "{both}");
    assert_eq!(observed.operation, operation(client.api), "{both}");
    // What stands behind a prompt that is captured in part is not read: it might be text that looks like a key.
    let hidden = client.request_bytes > 4096 && observed.request_model.is_none();
    assert!(hidden || observed.request_model == client.model, "{both}");
    assert_eq!(observed.request_bytes, Some(client.request_bytes), "{both}");
    assert!(observed.client.as_deref().is_some_and(|end| end.ends_with(&format!(":{}", client.port))), "{both}");
    assert!(observed.t_arrive_ns.is_some_and(|arrive| arrive + SLACK_NS >= client.start_ns), "{both}");
    if cancelled {
        // The server may have written more than its client stayed for.
        assert!(client.status.is_none() || observed.status == client.status, "{both}");
        assert!(client.token_events == 0 || observed.token_events >= Some(client.token_events), "{both}");
        return;
    }
    assert_eq!(observed.status, client.status, "{both}");
    assert!(observed.t_end_ns.is_some_and(|end| end <= client.start_ns + client.total_ns + SLACK_NS), "{both}");
    if client.status.is_some() {
        assert_eq!(observed.stream, Some(client.stream && answered), "{both}");
    }
    if client.stream && answered {
        assert_eq!(observed.token_events, Some(client.token_events), "{both}");
        assert_eq!(observed.chunk_times_ns.len() as u64, client.token_events, "{both}");
        assert_eq!(observed.t_first_ns.is_some(), client.ttft_ns.is_some(), "{both}");
        let seen = client.ttft_ns.map(|ttft| client.start_ns + ttft + SLACK_NS);
        assert!(observed.t_first_ns <= seen, "handed over after it was received: {both}");
    }
    if client.outcome == Outcome::Truncated {
        return;
    }
    observed.expect_order(client.stream && client.token_events > 0);
    assert_eq!(observed.response_bytes, Some(client.response_bytes), "{both}");
    assert_eq!(observed.response_model, client.response_model, "{both}");
    assert_eq!(observed.input_tokens, client.input_tokens, "{both}");
    assert_eq!(observed.output_tokens, client.output_tokens, "{both}");
    assert_eq!(observed.cached_input_tokens, client.cached_input_tokens, "{both}");
    assert_eq!(observed.reasoning_output_tokens, client.reasoning_output_tokens, "{both}");
    // Responses have a status and no reason.
    if client.api != Api::Responses {
        assert_eq!(observed.finish_reasons, Vec::from_iter(client.finish_reason.clone()), "{both}");
    }
}

type Field = fn(&RequestLine) -> Option<u64>;

/// The sums of the metrics are those of the two logs.
fn sums(observer: &Observer, observed: &HashMap<&str, &RequestLine>) {
    let metrics = observer.metrics();
    let all = || observed.values();
    for outcome in ["ok", "http_error", "error_in_stream", "cancelled", "truncated", "incomplete"] {
        let count = all().filter(|line| line.outcome == outcome).count();
        assert_eq!(metrics.sum("llm_requests_total", &[("outcome", outcome)]), count as f64, "{outcome}");
    }
    let timed = all().filter(|line| matches!(line.outcome.as_str(), "ok" | "cancelled"));
    let first = timed.filter(|line| line.stream == Some(true) && line.t_first_ns.is_some()).count();
    assert_eq!(metrics.sum("gen_ai_server_time_to_first_token_seconds_count", &[]), first as f64);
    assert_eq!(metrics.sum("gen_ai_server_request_duration_seconds_count", &[]), observed.len() as f64);
    let sum = |of: fn(&RequestLine) -> Option<u64>| all().filter_map(|line| of(line)).sum::<u64>() as f64;
    let tokens: [(&str, Field); 4] = [
        ("input", |line| line.input_tokens),
        ("output", |line| line.output_tokens),
        ("cached_input", |line| line.cached_input_tokens),
        ("reasoning_output", |line| line.reasoning_output_tokens),
    ];
    for (kind, of) in tokens {
        assert_eq!(metrics.sum("llm_tokens_total", &[("gen_ai_token_type", kind)]), sum(of), "{kind}");
    }
    assert_eq!(metrics.sum("llm_requests_in_flight", &[]), 0.0);
    for nothing in ["observer_events_lost_total", "observer_opaque_connections_total", "observer_unparsed_bytes_total"]
    {
        assert_eq!(metrics.sum(nothing, &[]), 0.0, "{nothing}");
    }
    assert_eq!(metrics.sum("observer_stream_gap_bytes_total", &[]), 0.0);
}

fn observe(rates: &[&str], arguments: &[&str]) -> Vec<Line> {
    let server = Server::sample(&[&["--ttft", "30ms", "--ttft-jitter", "20ms"], rates].concat());
    let scratch = Scratch::new();
    let mut observer = Observer::start(&[server.port()]);
    let clients = load(&server, &scratch, arguments);
    let lines = observer.lines_when(clients.len(), SOON);
    assert_eq!(lines.len(), clients.len(), "each request once");
    let observed: HashMap<&str, &RequestLine> =
        lines.iter().filter_map(|line| Some((line.request_id.as_deref()?, line))).collect();
    for client in &clients {
        let line = observed.get(client.request_id.as_str());
        compare(client, line.unwrap_or_else(|| panic!("the observer did not see {client:#?}")));
    }
    sums(&observer, &observed);
    let text = fs::read_to_string(&observer.log().0).expect("the request log");
    assert!(!text.contains("Tell me") && !text.contains(" kernel"), "text left the parser");
    observer.stop(libc::SIGTERM);
    clients
}

/// Kept-alive connections, every API streamed and not, and every ending.
#[test]
fn every_api_and_every_ending_at_concurrency_64() {
    require!(kernel, sample);
    let sample = format!("{{\"model\":\"{SERVED}\",\"reasoning\":3}}");
    let rates = ["--token-interval", "6ms", "--interval-jitter", "4ms", "--tokens", "24"];
    let failures = ["--error-rate", "0.06", "--stream-error-rate", "0.15", "--cut-rate", "0.12"];
    let clients = observe(
        &[&rates[..], &failures[..]].concat(),
        &["--requests", "1500", "--concurrency", "64", "--cancel-rate", "0.08", "--sample", &sample],
    );
    for outcome in [Outcome::Ok, Outcome::HttpError, Outcome::ErrorInStream, Outcome::Cancelled, Outcome::Truncated] {
        let count = clients.iter().filter(|line| line.outcome == outcome).count();
        println!("{outcome:?}: {count}");
        assert!(count >= 20, "{outcome:?}: only {count}");
    }
    for api in Api::ALL {
        let count = clients.iter().filter(|line| line.api == api).count();
        assert!(count >= 60, "{api:?}: only {count}");
    }
}

/// Prompts that arrive in many reads and are captured in part, a connection for each.
#[test]
fn long_prompts_on_connections_of_their_own() {
    require!(kernel, sample);
    let sample = format!("{{\"model\":\"{SERVED}\"}}");
    observe(
        &["--token-interval", "2ms", "--tokens", "16"],
        &[
            "--requests",
            "150",
            "--concurrency",
            "16",
            "--keep-alive",
            "false",
            "--prompt-bytes",
            "300000",
            "--sample",
            &sample,
        ],
    );
}

//! What those who wait see: LLM latency.

use super::model::{
    Dashboard, HOPS, INSTANCES, JOB, LOKI, MODELS, PROMETHEUS, REQUESTS, Row, Variable, View, WORKLOADS, by, heatmap,
    lines, logs, row, stacked, stat,
};

const TTFT: &str = "gen_ai_server_time_to_first_token_seconds";
const TPOT: &str = "gen_ai_server_time_per_output_token_seconds";
const DURATION: &str = "gen_ai_server_request_duration_seconds";
const GAP: &str = "llm_inter_chunk_latency_seconds";
const PHASE: &str = "llm_request_phase_seconds";

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "observer-llm-latency",
        title: "Observer: LLM latency",
        description: "How long requests to language models take, where the time goes, and how they end, measured in the kernel of the serving host.",
        variables: vec![
            PROMETHEUS,
            LOKI,
            JOB,
            INSTANCES,
            WORKLOADS,
            MODELS,
            HOPS,
            Variable::Choice(
                "objective",
                "Objective",
                &[("0.99", "99 %"), ("0.9", "90 %"), ("0.95", "95 %"), ("0.999", "99.9 %")],
            ),
            Variable::Text("request", "Request or trace id"),
        ],
        rows: vec![now(), first_token(), tokens(), requests(), phases(), clients(), objectives(), log()],
    }
}

fn now() -> Row {
    row(
        "Now",
        vec![
            stat("Requests", "reqps", "Requests that ended, each second, whatever their outcome.")
                .query("requests", "sum(rate(llm_requests_total{@requests}[$__rate_interval]))"),
            stat("Not ok", "percentunit", "Share of requests that ended otherwise than ok: errors, cancelled, truncated, and incomplete ones, of which the observer missed something.")
                .query("not ok", "sum(rate(llm_requests_total{@requests, outcome!=\"ok\"}[$__rate_interval])) / sum(rate(llm_requests_total{@requests}[$__rate_interval]))\nor 0 * sum(rate(llm_requests_total{@requests}[$__rate_interval]))")
                .thresholds(&[(0.01, "orange"), (0.05, "red")]),
            stat("Time to first token, p95", "s", "95 of 100 streamed requests had their first token within this time after their first byte arrived.")
                .query("p95", &by(0.95, TTFT, REQUESTS, "")),
            stat("Between chunks, p95", "s", "95 of 100 gaps between successive token events of a stream are at most this long.")
                .query("p95", &by(0.95, GAP, REQUESTS, "")),
            stat("In flight", "short", "Requests that arrived and have not ended. The model of these is not known yet, and a proxy's and its backend's each count.")
                .query("in flight", "sum(llm_requests_in_flight{@workload})"),
            stat("Output tokens", "suffix: tokens/s", "Output tokens each second, as servers reported them: those without usage add nothing.")
                .query("tokens", "sum(rate(llm_tokens_total{@requests, gen_ai_token_type=\"output\"}[$__rate_interval]))"),
        ],
    )
}

fn first_token() -> Row {
    row(
        "Time to first token",
        vec![
            heatmap("Time to first token", "s", TTFT, REQUESTS, "Requests by time to first token; the colour says how many each second. Two bands are two kinds of requests (short and long prompts, hits and misses of a cache); a band that rises is a queue. Dots are single requests: follow their ids.")
                .exemplars(),
            lines("Time to first token, quantiles", "s", "Of streamed requests that got a token. p99 far above p95 is a few that wait; all rising together is load.")
                .quantiles(TTFT, REQUESTS)
                .exemplars(),
            lines("Time to first token, p95 by model", "s", "Compare models at the same load; one without a name is one that requests did not name.")
                .query("{{gen_ai_request_model}}", &by(0.95, TTFT, REQUESTS, "gen_ai_request_model")),
            lines("Time to first token, p95 by workload", "s", "One replica above the others has a problem of its own: look at its host and its GPUs.")
                .query("{{workload}}", &by(0.95, TTFT, REQUESTS, "workload")),
            lines("Time to first byte, quantiles", "s", "To the first byte of any response, errors and whole answers among them. Far below the time to first token: the server answers its head at once and its tokens later.")
                .quantiles("llm_time_to_first_byte_seconds", REQUESTS)
                .exemplars(),
            lines("Time to first content, quantiles", "s", "To the first token that is not reasoning, where reasoning came first: what people wait for before they can read. Empty without models that reason.")
                .quantiles("llm_time_to_first_content_seconds", REQUESTS)
                .exemplars(),
        ],
    )
}

fn tokens() -> Row {
    row(
        "Tokens",
        vec![
            heatmap("Between chunks", "s", GAP, REQUESTS, "Gaps between successive token events of one stream. The main band is the decode step; a second band far above it is stalls that readers notice, often prefills of other requests in the batch."),
            lines("Between chunks, quantiles", "s", "p50 is the pace of decoding, p99 the stalls.").quantiles(GAP, REQUESTS),
            heatmap("Per output token", "s", TPOT, REQUESTS, "First to last token event divided by output tokens less one, a value for each request. Lower than the gaps where an event carries several tokens.")
                .exemplars(),
            lines("Per output token, quantiles", "s", "Only of requests whose server reported more than one output token.")
                .quantiles(TPOT, REQUESTS)
                .exemplars(),
            lines("Tokens by type", "suffix: tokens/s", "As servers reported them. cached_input is a part of input, reasoning_output of output: do not add them.")
                .query("{{gen_ai_token_type}}", "sum by (gen_ai_token_type) (rate(llm_tokens_total{@requests}[$__rate_interval]))"),
            stacked("Output tokens by model", "suffix: tokens/s", "Throughput. Falling while requests in flight rise: the server is beyond what it can do.")
                .query("{{gen_ai_request_model}}", "sum by (gen_ai_request_model) (rate(llm_tokens_total{@requests, gen_ai_token_type=\"output\"}[$__rate_interval]))"),
            lines("Token events that shared a write", "percentunit", "Share of token events that left in the same write as an earlier one. It rises when the server's event loop lags: tokens wait for it together.")
                .query("{{workload}}", "sum by (workload) (rate(llm_coalesced_chunks_total{@requests}[$__rate_interval])) / sum by (workload) (rate(llm_output_chunks_total{@requests}[$__rate_interval]))")
                .thresholds(&[(0.1, "orange")])
                .max(1.0),
            lines("Tokens of a request, medians", "short", "Input and output tokens of the median request. When latency changes, first see whether requests did.")
                .query("input", &by(0.5, "llm_prompt_tokens", REQUESTS, ""))
                .query("output", &by(0.5, "llm_completion_tokens", REQUESTS, "")),
        ],
    )
}

fn requests() -> Row {
    row(
        "Requests",
        vec![
            heatmap("Duration", "s", DURATION, REQUESTS, "From a request's first byte to the last byte of its response. Follows the number of tokens: compare with the tokens of a request.")
                .exemplars(),
            lines("Duration, quantiles", "s", "Of all requests that are not incomplete, failed ones among them.").quantiles(DURATION, REQUESTS).exemplars(),
            stacked("Outcomes", "reqps", "How requests ended. cancelled: the client left; truncated: the server did; error_in_stream: an error inside a 200; incomplete: the observer missed something, see its own dashboard.")
                .query("{{outcome}}", "sum by (outcome) (rate(llm_requests_total{@requests}[$__rate_interval]))"),
            stacked("HTTP status", "reqps", "Of responses that had one. Errors inside a stream are 200 here.")
                .query("{{http_response_status_code}}", "sum by (http_response_status_code) (rate(llm_requests_total{@requests}[$__rate_interval]))"),
            lines("In flight", "short", "Requests that arrived and have not ended. A plateau is the server's limit: what comes beyond it waits, and the time to first token rises.")
                .query("{{workload}}", "sum by (workload) (llm_requests_in_flight{@workload})"),
            stacked("Requests by model", "reqps", "What is asked for.")
                .query("{{gen_ai_request_model}}", "sum by (gen_ai_request_model) (rate(llm_requests_total{@requests}[$__rate_interval]))"),
            stacked("Requests by operation", "reqps", "Chats, completions, embeddings and the like.")
                .query("{{gen_ai_operation_name}}", "sum by (gen_ai_operation_name) (rate(llm_requests_total{@requests}[$__rate_interval]))"),
            stacked("Reasons to finish", "suffix: /s", "As servers said, one for each choice. length: the answer was cut at the limit of tokens.")
                .query("{{finish_reason}}", "sum by (finish_reason) (rate(llm_finish_reasons_total{@requests}[$__rate_interval]))"),
        ],
    )
}

fn phases() -> Row {
    row(
        "Where the time goes",
        vec![
            stacked("Phases of a request", "s", "Mean time of a request in each phase; their sum is its duration. socket_wait: nobody read it yet; queue_and_prefill: read, and no token; decode: tokens flow.")
                .query("{{phase}}", "sum by (phase) (rate(llm_request_phase_seconds_sum{@requests}[$__rate_interval]))\n/ ignoring (phase) group_left ()\nmax(sum by (phase) (rate(llm_request_phase_seconds_count{@requests}[$__rate_interval])))"),
            lines("Phases, p95", "s", "The phase whose tail grows is where to look: socket_wait at the server's process, queue_and_prefill at its scheduler, decode at its GPUs, finish at slow clients.")
                .query("{{phase}}", &by(0.95, PHASE, REQUESTS, "phase"))
                .exemplars(),
            heatmap("Socket wait", "s", PHASE, &format!("{REQUESTS}, phase=\"socket_wait\""), "From a request's arrival in the kernel to the server's first read of it: accept queue and event loop. Its own metrics cannot show it. Sound servers stay below a few milliseconds.")
                .exemplars(),
            lines("Socket wait, p99 by workload", "s", "Above 100 ms the server's process is too busy to read: more frontend processes, or less work in them.")
                .query("{{workload}}", &by(0.99, PHASE, &format!("{REQUESTS}, phase=\"socket_wait\""), "workload"))
                .thresholds(&[(0.1, "red")]),
            heatmap("Queue and prefill", "s", PHASE, &format!("{REQUESTS}, phase=\"queue_and_prefill\""), "From the request being read to its first token: the server's own queue, and the prefill.")
                .exemplars(),
            heatmap("Decode", "s", PHASE, &format!("{REQUESTS}, phase=\"decode\""), "From the first to the last token event.").exemplars(),
        ],
    )
}

fn clients() -> Row {
    row(
        "Clients",
        vec![
            lines("Clients that left", "percentunit", "Share of requests whose client left before the response was complete. It follows the time to first token: people give up.")
                .query("{{workload}}", "sum by (workload) (rate(llm_requests_total{@requests, outcome=\"cancelled\"}[$__rate_interval])) / sum by (workload) (rate(llm_requests_total{@requests}[$__rate_interval]))")
                .thresholds(&[(0.2, "orange")])
                .max(1.0),
            lines("Work for clients that had left", "s", "Seconds of work each second after the client was gone: requests that the server went on with. 1 is one stream all the time for nobody.")
                .query("{{workload}}", "sum by (workload) (rate(llm_cancelled_work_seconds_total{@requests}[$__rate_interval]))"),
            lines("Blocked by slow readers", "s", "Seconds each second in which a response was ready and the client's window closed. The server is not at fault.")
                .query("{{workload}}", "sum by (workload) (rate(llm_write_blocked_seconds_total{@requests}[$__rate_interval]))"),
            heatmap("Tokens of prompts", "short", "llm_prompt_tokens", REQUESTS, "Input tokens of requests, where servers report them. Longer prompts take longer to prefill."),
        ],
    )
}

/// Share of requests that missed each objective. There is no series of bad ones before the first.
fn bad(function: &str, range: &str) -> String {
    let all = format!("sum by (slo) ({function}(llm_slo_requests_total{{{REQUESTS}}}[{range}]))");
    let bad = format!("sum by (slo) ({function}(llm_slo_requests_total{{{REQUESTS}, result=\"bad\"}}[{range}]))");
    format!("({bad} or 0 * {all})\n/ {all}")
}

fn objectives() -> Row {
    let missed = bad("increase", "$__range");
    row(
        "Objectives",
        vec![
            stat("Good", "percentunit", "Share of requests within each objective (`slo.objectives` of the observer), over the dashboard's time. Empty where none is set.")
                .query("{{slo}}", &format!("1 - {missed}"))
                .thresholds(&[(f64::NEG_INFINITY, "red"), (0.9, "orange"), (0.99, "green")])
                .width(6),
            stat("Budget left", "percentunit", "Of the share of requests that may be bad ($objective must be good), what is left over the dashboard's time. Below 0 the objective was missed.")
                .query("{{slo}}", &format!("1 - {missed} / (1 - $objective)"))
                .thresholds(&[(f64::NEG_INFINITY, "red"), (0.0, "orange"), (0.5, "green")])
                .width(6),
            lines("Burn rate", "suffix: x", "How fast the budget is spent: at 1 it lasts exactly as long as its period. The alerts page above 14.4 over 1 h and 5 min, or 6 over 6 h and 30 min; here over 5 min and 1 h.")
                .query("{{slo}} 5m", &format!("{} / (1 - $objective)", bad("rate", "5m")))
                .query("{{slo}} 1h", &format!("{} / (1 - $objective)", bad("rate", "1h")))
                .thresholds(&[(1.0, "orange"), (14.4, "red")]),
        ],
    )
}

fn log() -> Row {
    let query = "{log=\"requests\"} |= \"$request\" | json | workload=~\"$workload\"";
    row(
        "Single requests",
        vec![
            logs(View::LogTable, "Requests", "The observer's request log (`--request-log`), the newest 200 of the dashboard's time. A click on an id shows only the lines that have it.")
                .query("", query),
            logs(View::Logs, "Request log", "The same lines with all that they say: open one for its times, tokens and GPUs. Text of prompts and answers is never in them.")
                .query("", query),
        ],
    )
}

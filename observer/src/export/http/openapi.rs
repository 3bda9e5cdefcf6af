//! The OpenAPI document of the HTTP server.

use serde_json::{Value, json};

/// A `200` answer of this media type.
fn ok(description: &str, media: &str, schema: &Value) -> Value {
    json!({ "200": { "description": description, "content": { media: { "schema": schema } } } })
}

/// An object all of whose properties are there.
fn object(description: &str, properties: &Value) -> Value {
    let required: Vec<_> = properties.as_object().into_iter().flat_map(|map| map.keys()).collect();
    json!({ "type": "object", "description": description, "properties": properties, "required": required })
}

fn number(description: &str) -> Value {
    json!({ "type": "number", "description": description })
}

fn count(description: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": description })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn optional(description: &str) -> Value {
    json!({ "type": ["number", "null"], "description": description })
}

fn counts(description: &str) -> Value {
    json!({ "type": "object", "additionalProperties": { "type": "integer" }, "description": description })
}

fn list(items: &Value, description: &str) -> Value {
    json!({ "type": "array", "items": items, "description": description })
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The document.
pub(super) fn document() -> Value {
    let mut document = routes();
    // Who may ask what: `access`.
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        if matches!(path.as_str(), "/healthz" | "/readyz") {
            continue;
        }
        let is_api = path.starts_with("/api/");
        for operation in item.as_object_mut().into_iter().flat_map(|item| item.values_mut()) {
            operation["security"] =
                if is_api { json!([{}, { "token": [] }, { "user": [] }]) } else { json!([{}, { "user": [] }]) };
            operation["responses"]["401"] =
                json!({ "description": "Credentials are missing or wrong, where they are configured." });
            if is_api && operation["responses"].get("403").is_none() {
                operation["responses"]["403"] =
                    json!({ "description": "It does not come from this host, and no token is configured." });
            }
        }
    }
    document
}

fn routes() -> Value {
    let plain = json!({ "type": "string" });
    let mut ready = ok("It observes.", "text/plain", &plain);
    ready["503"] = json!({ "description": "It does not; the text says why.",
        "content": { "text/plain": { "schema": plain } } });
    let mut metrics = ok("All metrics.", "text/plain", &plain);
    metrics["200"]["content"]["application/openmetrics-text"] = json!({ "schema": plain });
    let route = |id: &str, summary: &str, responses: &Value| json!({ "get": { "operationId": id, "summary": summary, "responses": responses } });
    let command = |id: &str, summary: &str| {
        let mut responses = ok("What came of it.", "application/json", &schema("GpuStatus"));
        responses["403"] = json!({ "description": "It does not come from this host, or not from a program." });
        responses["404"] = json!({ "description": "GPUs are not asked." });
        responses["504"] = json!({ "description": "The driver does not answer." });
        let header = json!({ "name": "X-Observer-Command", "in": "header", "required": true,
            "schema": plain, "description": "Any value: web pages cannot send it." });
        json!({ "post": { "operationId": id, "summary": summary, "parameters": [header], "responses": responses } })
    };
    let mut gpu = ok("Its state.", "application/json", &schema("GpuStatus"));
    gpu["404"] = json!({ "description": "GPUs are not asked." });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "observer",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Measures every request to the LLM servers of a host from the kernel. All routes only read, but for those that let go of the GPU driver and take it back.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": {
            "/": route("index", "A page for people.", &ok("The page.", "text/html", &plain)),
            "/metrics": route("metrics", "Metrics in the text format that Accept prefers.", &metrics),
            "/healthz": route("healthz", "Whether the process lives.", &ok("It does.", "text/plain", &plain)),
            "/readyz": route("readyz", "Whether probes are attached and events are drained.", &ready),
            "/api/v1/summary": route("summary", "The last minute in numbers.",
                &ok("The summary.", "application/json", &schema("Summary"))),
            "/api/v1/gpu": route("gpu", "Whether the GPU driver is open.", &gpu),
            "/api/v1/gpu/release": command("gpuRelease", "Lets go of the GPU driver. Only from this host."),
            "/api/v1/gpu/acquire": command("gpuAcquire", "Takes the GPU driver back. Only from this host."),
            "/openapi.json": route("openapi", "This document.",
                &ok("The document.", "application/json", &json!({ "type": "object" }))),
        },
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "Of web.token_file." },
                "user": { "type": "http", "scheme": "basic", "description": "Of basic_auth_users in web.config_file." },
            },
        },
    })
}

fn schemas() -> Value {
    json!({
        "Summary": object("Latencies are seconds; quantiles and rates are of the last window_seconds.", &json!({
            "version": text("Of the observer."),
            "uptime_seconds": number("How long it has been observing."),
            "window_seconds": number("What quantiles and rates look back on."),
            "servers": list(&schema("ServerSummary"), "One for each workload, port and model, busiest first."),
            "ttft_heatmap": schema("Heatmap"),
            "observer": schema("ObserverSummary"),
        })),
        "GpuStatus": object("The GPU driver.", &json!({
            "state": text("starting, up, absent, failed or released."),
            "reason": text("Why, in words; empty: there is nothing to say."),
            "unresponsive": json!({ "type": "boolean", "description": "Whether a call into it has not returned for too long." }),
            "driver": json!({ "type": ["string", "null"], "description": "Its version, while it is open." }),
            "gpus": count("GPUs that answer, MIG devices not counted."),
        })),
        "ServerSummary": object("One workload, port and model.", &json!({
            "workload": text("As in the metrics' label."),
            "server_port": text("As in the metrics' label."),
            "model": text("Response model, else request model, else empty."),
            "requests_per_second": number("Finished requests."),
            "in_flight": count("Requests begun and not ended, of this workload and port."),
            "ttft": schema("Quantiles"),
            "inter_chunk": schema("Quantiles"),
            "output_tokens_per_second": optional("Reported output tokens; null where servers report none."),
            "token_events_per_second": number("Token events."),
            "outcomes": counts("Requests since start, by outcome."),
        })),
        "Quantiles": object("Estimated from histogram buckets, as histogram_quantile does; null: no sample.", &json!({
            "p50": optional("Median."),
            "p95": optional("95th percentile."),
            "p99": optional("99th percentile."),
            "count": count("Samples in the window."),
        })),
        "Heatmap": object("Time to first token over all servers, counts by bucket over time.", &json!({
            "bounds": list(&json!({ "type": "number" }), "Upper bounds in seconds; a last, unbounded one is implied."),
            "column_seconds": number("Width of one column."),
            "columns": list(&list(&json!({ "type": "integer" }), "Counts by bucket."), "Oldest first."),
        })),
        "ObserverSummary": object("The observer's own state.", &json!({
            "events_per_second": number("Events from the kernel."),
            "events": count("Events since start."),
            "lost": counts("Events lost since start, by reason."),
            "incomplete": counts("Requests that could not be timed, by reason."),
            "opaque": counts("Connections that cannot be read, by reason."),
            "connections": count("Connections known now."),
            "cpu_ratio": number("Share of one core that the observer used."),
            "resident_bytes": count("Resident memory."),
            "probes": list(&json!({ "type": "string" }), "Probes attached."),
            "scope": text("What is observed, in words."),
        })),
    })
}

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
    let plain = json!({ "type": "string" });
    let mut ready = ok("It observes.", "text/plain", &plain);
    ready["503"] = json!({ "description": "It does not; the text says why.",
        "content": { "text/plain": { "schema": plain } } });
    let mut metrics = ok("All metrics.", "text/plain", &plain);
    metrics["200"]["content"]["application/openmetrics-text"] = json!({ "schema": plain });
    let route = |id: &str, summary: &str, responses: &Value| json!({ "get": { "operationId": id, "summary": summary, "responses": responses } });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "observer",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Measures every request to the LLM servers of a host from the kernel. All routes only read.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": {
            "/": route("index", "A page for people.", &ok("The page.", "text/html", &plain)),
            "/metrics": route("metrics", "Metrics in the text format that Accept prefers.", &metrics),
            "/healthz": route("healthz", "Whether the process lives.", &ok("It does.", "text/plain", &plain)),
            "/readyz": route("readyz", "Whether probes are attached and events are drained.", &ready),
            "/api/v1/summary": route("summary", "The last minute in numbers.",
                &ok("The summary.", "application/json", &schema("Summary"))),
            "/openapi.json": route("openapi", "This document.",
                &ok("The document.", "application/json", &json!({ "type": "object" }))),
        },
        "components": { "schemas": schemas() },
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

//! Whether the observer itself can be believed, and what it takes.

use super::model::{Dashboard, INSTANCES, JOB, PROMETHEUS, Row, lines, row, stacked, stat, states, table};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "observer-health",
        title: "Observer: its own health",
        description: "What the observer missed and why, what it does not look at, and what it takes of the host.",
        variables: vec![PROMETHEUS, JOB, INSTANCES],
        rows: vec![now(), losses(), seen(), cost(), capacity(), probes()],
    }
}

fn now() -> Row {
    row(
        "Now",
        vec![
            stat("Observers up", "short", "Of those selected; other targets of the same job do not count.")
                .query("up", "sum(up{@instance} and on (job, instance) last_over_time(observer_build_info{@instance}[$__range]))"),
            stat("Events", "suffix: /s", "Reads, writes and ends of connections that the kernel told of.")
                .query("events", "sum(rate(observer_events_total{@instance}[$__rate_interval]))"),
            stat("Lost events", "short", "Over the dashboard's time. Each may have made a request incomplete. 0 is right. Those of threads and block devices, which do not, are below.")
                .query("lost", "sum(increase(observer_events_lost_total{@instance, source!~\"block_.*|thread\"}[$__range]))")
                .thresholds(&[(1.0, "red")]),
            stat("Incomplete requests", "percentunit", "Share of requests whose timeline has a gap: counted, and in no histogram of times.")
                .query("incomplete", "sum(increase(llm_requests_total{@instance, outcome=\"incomplete\"}[$__range])) / sum(increase(llm_requests_total{@instance}[$__range]))\nor 0 * sum(increase(llm_requests_total{@instance}[$__range]))")
                .thresholds(&[(0.001, "orange"), (0.01, "red")]),
            stat("CPU", "percentunit", "Share of one core that the largest of them takes.")
                .query("CPU", "max(rate(observer_cpu_seconds_total{@instance}[$__rate_interval]))")
                .thresholds(&[(0.05, "orange"), (0.25, "red")]),
            stat("Memory", "bytes", "Resident memory of the largest of them.").query("memory", "max(observer_resident_memory_bytes{@instance})"),
        ],
    )
}

fn losses() -> Row {
    row(
        "Losses",
        vec![
            lines("Lost events", "suffix: /s", "Events that should have reached the observer, by source and reason. A full ring: the observer gets too little CPU, or the ring is too small.")
                .query("{{source}} {{reason}}", "sum by (source, reason) (rate(observer_events_lost_total{@instance}[$__rate_interval]))")
                .thresholds(&[(0.001, "red")]),
            lines("Incomplete requests by reason", "reqps", "Requests whose timeline has a gap. They count in llm_requests_total, and in no histogram.")
                .query("{{reason}}", "sum by (reason) (rate(observer_incomplete_requests_total{@instance}[$__rate_interval]))"),
            lines("Bytes without an event", "Bps", "Bytes of tracked connections that nothing told of: the size of what was lost.")
                .query("{{direction}}", "sum by (direction) (rate(observer_stream_gap_bytes_total{@instance}[$__rate_interval]))"),
            lines("Bytes that were not captured or understood", "Bps", "not captured: beyond 4 KiB of one write, or not readable, normal for long prompts; not understood: no HTTP of an API that is known.")
                .query("{{direction}} not captured", "sum by (direction) (rate(observer_uncaptured_bytes_total{@instance}[$__rate_interval]))")
                .query("{{direction}} not understood", "sum by (direction) (rate(observer_unparsed_bytes_total{@instance}[$__rate_interval]))"),
            lines("Lines missing from the request log", "suffix: /s", "The queue was full, or a write failed: a slow or full disk.")
                .query("{{reason}}", "sum by (reason) (rate(observer_request_log_dropped_total{@instance}[$__rate_interval]))")
                .thresholds(&[(0.001, "red")]),
            lines("Values that became _other", "suffix: /s", "A label had as many distinct values as it may have: raise metrics.max_models, or find who sends so many names.")
                .query("{{label}}", "sum by (label) (rate(observer_series_dropped_total{@instance}[$__rate_interval]))"),
        ],
    )
}

fn seen() -> Row {
    row(
        "What is not measured",
        vec![
            lines("Opaque connections", "suffix: /s", "Connections whose bytes say nothing, by reason: TLS, HTTP/2, Multipath TCP. Observe in front of what encrypts, or behind it.")
                .query("{{reason}}", "sum by (reason) (rate(observer_opaque_connections_total{@instance}[$__rate_interval]))"),
            stacked("Bytes by what they are", "Bps", "On candidate ports. plain is read; tls to compressed cannot be; not_http is left alone; undecided: connections older than the observer.")
                .query("{{content}}", "sum by (content) (rate(observer_traffic_bytes_total{@instance}[$__rate_interval]))"),
            lines("Left alone", "suffix: /s", "other requests: HTTP, not for a language model; joined: under way when first seen; other protocols: not HTTP; ignored calls: ports that serve much and no language model.")
                .query("other requests", "sum(rate(observer_other_requests_total{@instance}[$__rate_interval]))")
                .query("joined", "sum(rate(observer_joined_mid_request_total{@instance}[$__rate_interval]))")
                .query("other protocols", "sum(rate(observer_left_alone_connections_total{@instance}[$__rate_interval]))")
                .query("ignored calls", "sum(rate(observer_ignored_calls_total{@instance}[$__rate_interval]))"),
            lines("Times with less certainty", "suffix: /s", "unsent: a write was stamped before its last byte left (Nagle, a full window); unstamped: an arrival without a time of its own, where the read counts.")
                .query("unsent", "sum(rate(observer_unsent_at_stamp_total{@instance}[$__rate_interval]))")
                .query("unstamped", "sum(rate(observer_unstamped_arrivals_total{@instance}[$__rate_interval]))"),
            stacked("Connections", "short", "Known now, by instance.").query("{{instance}}", "sum by (instance) (observer_connections{@instance})"),
        ],
    )
}

fn cost() -> Row {
    row(
        "Cost",
        vec![
            lines("CPU", "percentunit", "Share of one core, by instance. The kernel side's cost is the servers': see time in probes.")
                .query("{{instance}}", "sum by (instance) (rate(observer_cpu_seconds_total{@instance}[$__rate_interval]))")
                .thresholds(&[(0.25, "red")]),
            lines("Resident memory", "bytes", "Follows connections and streams; 31 MiB with 1,000 streams at once.")
                .query("{{instance}}", "max by (instance) (observer_resident_memory_bytes{@instance})"),
            lines("Time in probes", "percentunit", "Share of one core spent in each probe, on the CPUs of whoever made the call. Only while kernel.bpf_stats_enabled is set.")
                .query("{{probe}}", "sum by (probe) (rate(observer_probe_run_seconds_total{@instance}[$__rate_interval]))"),
            lines("Time of one run", "s", "Mean of each probe. Only while kernel.bpf_stats_enabled is set.")
                .query("{{probe}}", "sum by (probe) (rate(observer_probe_run_seconds_total{@instance}[$__rate_interval])) / sum by (probe) (rate(observer_probe_runs_total{@instance}[$__rate_interval]))"),
            stacked("Optional probes", "percentunit", "Share of one core that the probes of each signal took in the governor's last sample, and how much all of them may take. A signal that is shed has none.")
                .query("{{instance}} {{signal}}", "sum by (instance, signal) (observer_governor_cost_ratio{@instance})")
                .query("{{instance}} budget", "max by (instance) (observer_governor_budget_ratio{@instance})"),
            stacked("Events by source", "suffix: /s", "What the kernel tells of. Grows with tokens, and not with other traffic of the host.")
                .query("{{source}}", "sum by (source) (rate(observer_events_total{@instance}[$__rate_interval]))"),
            lines("Time of a scrape", "s", "Of the previous one. Above a second: too many series for one host, see values that became _other.")
                .query("{{instance}}", "max by (instance) (observer_scrape_duration_seconds{@instance})")
                .thresholds(&[(1.0, "red")]),
        ],
    )
}

fn capacity() -> Row {
    row(
        "Room",
        vec![
            lines("Maps in use", "percentunit", "Entries of bounded maps as a share of what fits. At 1, what comes is not observed, and counted beside.")
                .query("{{instance}} {{map}}", "max by (instance, map) (observer_map_entries{@instance} / observer_map_capacity{@instance})")
                .thresholds(&[(0.8, "orange"), (0.95, "red")])
                .max(1.0),
            lines("Refused by maps", "suffix: /s", "Entries that found no room, or took another's.")
                .query("{{map}}", "sum by (map) (rate(observer_map_insert_failures_total{@instance}[$__rate_interval]))")
                .thresholds(&[(0.001, "red")]),
            lines("Ring in use", "percentunit", "Most of the ring of events in use at one drain. Near 1 events get lost.")
                .query("{{instance}}", "max by (instance) (observer_ring_used_ratio{@instance})")
                .thresholds(&[(0.5, "orange"), (0.9, "red")])
                .max(1.0),
            lines("Early wake-ups", "suffix: /s", "The ring filled to a quarter before its next drain. Many: the ring is small for these bursts.")
                .query("{{instance}}", "sum by (instance) (rate(observer_ring_wakeups_total{@instance}[$__rate_interval]))"),
        ],
    )
}

fn probes() -> Row {
    row(
        "Probes",
        vec![
            states("Attached", "Whether each probe is attached, by its mechanism. One that is not costs what it measures; observer doctor says why.")
                .query("{{instance}} {{probe}} {{mechanism}}", "min by (instance, probe, mechanism) (observer_probe_attached{@instance})"),
            states("Shed", "1: the probes of this signal are taken away, since optional probes took more than governor.budget; its panels are empty meanwhile.")
                .query("{{instance}} {{signal}}", "max by (instance, signal) (observer_signal_shed{@instance})"),
            lines("Decisions of the governor", "suffix: /s", "How often each signal is shed and restored. Again and again: the budget is close to what this host takes; raise governor.budget, or switch the signal off.")
                .query("{{instance}} {{action}} {{signal}}", "sum by (instance, action, signal) (rate(observer_governor_decisions_total{@instance}[$__rate_interval]))"),
            states("Available", "arrival: requests are timed from their arrival, not from the server's first read; GPU join: workloads are joined with GPUs.")
                .query("{{instance}} arrival", "min by (instance) (observer_arrival_time_available{@instance})")
                .query("{{instance}} GPU join", "min by (instance) (observer_gpu_join_available{@instance})"),
            table("Versions", "Which release each instance runs.").query("", "max by (instance, version) (observer_build_info{@instance})"),
        ],
    )
}

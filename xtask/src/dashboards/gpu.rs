//! What GPUs did, and what it took.

use super::model::{
    COMPUTED, Dashboard, GPU, GPUS, INSTANCES, JOB, MODELS, PROMETHEUS, Row, WORKLOADS, by, lines, row, stacked, stat,
    states, table,
};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "observer-gpu",
        title: "Observer: GPU and energy",
        description: "NVIDIA GPUs as their driver tells, joined with the requests that they work for.",
        variables: vec![PROMETHEUS, JOB, INSTANCES, WORKLOADS, MODELS, GPUS],
        rows: vec![now(), work(), power(), energy(), requests(), errors(), traffic(), inventory()],
    }
}

/// One line for each GPU of each host.
fn each(family: &str) -> String {
    format!("max by (instance, gpu) ({family}{{{GPU}}})")
}

const EACH: &str = "{{instance}} {{gpu}}";

const OUTPUT_TOKENS: &str = r#"llm_tokens_total{@workload, role!="proxy", gen_ai_token_type="output"}"#;

/// Energy of workloads divided by what those of them that have an energy did.
fn energy_per(sum: &str, what: &str) -> String {
    let energy = "rate(llm_workload_energy_joules_total{@workload}[5m])";
    format!("{sum} ({energy})\n/ {sum} (rate({what}[5m]) and on (job, instance, workload) {energy})")
}

fn now() -> Row {
    row(
        "Now",
        vec![
            stat("GPUs that answer", "short", "GPUs that answered at the last poll.").query("GPUs", "sum(gpu_up{@gpu})"),
            stat("GPUs lost", "short", "Seen before, and not answering. 0 is right.")
                .query("lost", "count(gpu_up{@gpu} == 0) or 0 * count(gpu_up{@gpu})")
                .thresholds(&[(1.0, "red")]),
            stat("Power", "watt", "Of all boards together.").query("power", "sum(gpu_power_watts{@gpu})"),
            stat("Energy per output token", "joule", "Energy of the workloads' GPUs divided by their output tokens, over 5 minutes. Idle GPUs count: it falls as the load rises. All models of a workload count, whichever are chosen: energy has none.")
                .query("energy", &energy_per("sum", OUTPUT_TOKENS)),
            stat("Hottest", "celsius", "Highest core temperature.")
                .query("hottest", "max(gpu_temperature_celsius{@gpu})")
                .thresholds(&[(80.0, "orange"), (90.0, "red")]),
            stat("XID errors", "short", "Errors that the driver told of, over the dashboard's time, whatever their number.")
                .query("XID", "sum(increase(gpu_xid_errors_total{@gpu}[$__range]))")
                .thresholds(&[(1.0, "red")]),
        ],
    )
}

fn work() -> Row {
    row(
        "Work",
        vec![
            lines("Utilization", "percentunit", "Share of time in which any kernel ran, not how much of the GPU it used. Some boards always say 0: compare with power.")
                .query(EACH, &each("gpu_utilization_ratio"))
                .max(1.0),
            lines("Memory in use", "percentunit", "Servers reserve most of it at their start for the cache of keys and values; full is normal for them, and for nothing else.")
                .query(EACH, &format!("{} / {}", each("gpu_memory_used_bytes"), each("gpu_memory_total_bytes")))
                .max(1.0),
            lines("SM active and occupancy", "percentunit", "Share of time in which SMs had work, and how full they were of it. Hopper and later. Active and barely occupied: many small kernels, small batches.")
                .query("{{instance}} {{gpu}} active", &each("gpu_sm_active_ratio"))
                .query("{{instance}} {{gpu}} occupancy", &each("gpu_sm_occupancy_ratio"))
                .max(1.0),
            lines("Tensor cores and memory bandwidth", "percentunit", "Prefill is bound by tensor cores, decode by bandwidth of memory: which one is near its end says what the next faster card must have. Hopper and later.")
                .query("{{instance}} {{gpu}} tensor", &each("gpu_tensor_active_ratio"))
                .query("{{instance}} {{gpu}} DRAM", &each("gpu_dram_active_ratio"))
                .max(1.0),
            lines("Memory busy", "percentunit", "Share of time in which memory was read or written; not a share of the possible bytes.")
                .query(EACH, &each("gpu_memory_bandwidth_utilization_ratio"))
                .max(1.0),
            lines("Clocks", "hertz", "A falling SM clock under load is throttling: see Power.")
                .query("{{instance}} {{gpu}} {{clock}}", "max by (instance, gpu, clock) (gpu_clock_hertz{@gpu})"),
            stacked("Memory by workload", "bytes", "Device memory of the workloads' processes. What is left without a name belongs to processes that serve nothing.")
                .query("{{workload}}", "sum by (workload) (gpu_process_memory_bytes{@gpu})"),
            lines("SM time by workload", "percentunit", "Share of time in which a workload's kernels ran, summed over its processes and GPUs: 2 is two GPUs all the time.")
                .query("{{workload}}", "sum by (workload) (gpu_process_sm_utilization_ratio{@gpu})"),
        ],
    )
}

fn power() -> Row {
    row(
        "Power",
        vec![
            lines("Power", "watt", "Of each board. Near its limit the driver lowers clocks.").query(EACH, &each("gpu_power_watts")),
            lines("Power as a share of the limit", "percentunit", "At 1 the board is held by its power limit; see throttling for how long.")
                .query(EACH, &format!("{} / {}", each("gpu_power_watts"), each("gpu_power_limit_watts")))
                .thresholds(&[(0.95, "orange")]),
            lines("Temperature", "celsius", "Of the core. Boards begin to throttle at 85 to 90.")
                .query(EACH, &each("gpu_temperature_celsius"))
                .thresholds(&[(80.0, "orange"), (90.0, "red")]),
            lines("Throttling by reason", "percentunit", "Share of time in which clocks were held down; reasons overlap. power is normal under full load; thermal, hw_thermal and hw_power_brake are cooling or supply; low_utilization is idling.")
                .query("{{instance}} {{gpu}} {{reason}}", "sum by (instance, gpu, reason) (rate(gpu_throttle_seconds_total{@gpu}[$__rate_interval]))"),
        ],
    )
}

fn energy() -> Row {
    row(
        "Energy",
        vec![
            lines("Energy per output token", "joule", "Over windows of 5 minutes: under continuous batching no single request has an energy of its own. Falls with larger batches, rises with idling. All models of a workload count, whichever are chosen: energy has none.")
                .query("{{workload}}", &energy_per("sum by (workload)", OUTPUT_TOKENS)),
            lines("Energy per request", "joule", "The same, divided by requests that ended.")
                .query("{{workload}}", &energy_per("sum by (workload)", "llm_requests_total{@workload, role!=\"proxy\"}")),
            stacked("Power by workload", "watt", "Power of the GPUs that a workload uses; where several share one, its share by SM time.")
                .query("{{workload}}", "sum by (workload) (rate(llm_workload_energy_joules_total{@workload}[$__rate_interval]))"),
            lines("Estimated share", "percentunit", "Share of that energy that was split among workloads on one GPU, rather than measured. 0 where each GPU has one user.")
                .query("{{workload}}", "sum by (workload) (rate(llm_workload_energy_joules_total{@workload, estimated=\"true\"}[$__rate_interval])) / sum by (workload) (rate(llm_workload_energy_joules_total{@workload}[$__rate_interval]))\nor 0 * sum by (workload) (rate(llm_workload_energy_joules_total{@workload}[$__rate_interval]))")
                .max(1.0),
            stacked("Energy by GPU", "watt", "From the boards' own energy counters: what they took, whoever used them.")
                .query(EACH, "sum by (instance, gpu) (rate(gpu_energy_joules_total{@gpu}[$__rate_interval]))"),
        ],
    )
}

fn requests() -> Row {
    row(
        "GPUs and requests",
        vec![
            lines("GPU idle while requests are in flight", "percentunit", "Share of time in which a workload had requests and all its GPUs were idle: it waits for something else (its own process, tokenizing, the network, a hang). The worst instance.")
                .query("{{workload}}", "max by (workload) (rate(llm_gpu_idle_in_flight_seconds_total{@workload}[$__rate_interval]))")
                .thresholds(&[(0.5, "red")])
                .max(1.0),
            lines("Requests in flight", "short", "For comparison with the panel beside it.")
                .query("{{workload}}", "sum by (workload) (llm_requests_in_flight{@workload})"),
            lines("Time to first token, p99", "s", "Rising together with throttling: the GPUs are the reason.")
                .query("{{workload}}", &by(0.99, "gen_ai_server_time_to_first_token_seconds", COMPUTED, "workload"))
                .exemplars(),
            lines("Throttling of a workload's GPUs", "percentunit", "Share of time in which the clocks of a workload's GPUs were held down, the worst reason of the worst GPU; idling left out.")
                .query("{{workload}}", "max by (workload) (\n  llm_workload_gpu_info{@workload}\n  * on (job, instance, uuid) group_left ()\n  max by (job, instance, uuid) (rate(gpu_throttle_seconds_total{@gpu, reason!=\"low_utilization\"}[$__rate_interval]))\n)")
                .max(1.0),
        ],
    )
}

fn errors() -> Row {
    row(
        "Errors",
        vec![
            states("GPUs that answer", "When each GPU answered. A gap is one that was not looked at: the observer was down, or the driver released.")
                .query(EACH, "min by (instance, gpu) (gpu_up{@gpu})"),
            states("Driver", "available: a driver answers for at least one GPU. responsive: calls into it return; while one does not, GPUs have no values.")
                .query("{{instance}} available", "min by (instance) (gpu_available{@instance})")
                .query("{{instance}} responsive", "1 - max by (instance) (gpu_driver_unresponsive{@instance})"),
            stacked("XID errors by number", "short", "48, 62, 64, 74, 79, 95, 119 and 120 are the GPU's; 13, 31, 43, 45, 68 and 109 are the program's.")
                .query("{{instance}} {{gpu}} XID {{xid}}", "sum by (instance, gpu, xid) (increase(gpu_xid_errors_total{@gpu}[$__rate_interval]))"),
            lines("ECC errors", "short", "Over the life of the board. Corrected ones do no harm; uncorrected ones end the process that met them.")
                .query("{{instance}} {{gpu}} {{type}}", "max by (instance, gpu, type) (gpu_ecc_errors_total{@gpu})"),
            lines("Replaced rows of memory", "short", "Over the life of the board. Each uncorrectable one is a row that failed.")
                .query("{{instance}} {{gpu}} {{type}}", "max by (instance, gpu, type) (gpu_row_remaps_total{@gpu})"),
            lines("Rows that wait, or cannot be replaced", "short", "pending 1: reset the GPU when it is free. failed 1: have the board replaced.")
                .query("{{instance}} {{gpu}} pending", &each("gpu_row_remap_pending"))
                .query("{{instance}} {{gpu}} failed", &each("gpu_row_remap_failed"))
                .thresholds(&[(1.0, "red")]),
        ],
    )
}

fn traffic() -> Row {
    row(
        "Traffic",
        vec![
            lines(
                "PCIe",
                "Bps",
                "To and from the host. Steady traffic while decoding: weights or cache are offloaded.",
            )
            .query(
                "{{instance}} {{gpu}} {{direction}}",
                "sum by (instance, gpu, direction) (rate(gpu_pcie_bytes_total{@gpu}[$__rate_interval]))",
            ),
            lines("NVLink", "Bps", "Between GPUs: tensor parallelism. Absent on boards without it.").query(
                "{{instance}} {{gpu}} {{direction}}",
                "sum by (instance, gpu, direction) (rate(gpu_nvlink_bytes_total{@gpu}[$__rate_interval]))",
            ),
        ],
    )
}

fn inventory() -> Row {
    row(
        "Inventory",
        vec![
            table("GPUs", "What each GPU is, and its driver.")
                .query("", "max by (instance, gpu, uuid, name, driver, cuda) (gpu_info{@gpu})")
                .width(14),
            table("Workloads on GPUs", "Which workloads have a process on which GPU now.")
                .query("", "max by (instance, workload, gpu, uuid) (llm_workload_gpu_info{@workload})")
                .width(10),
        ],
    )
}

//! What the host did to the servers: CPU, I/O, network.

use super::model::{
    Dashboard, INSTANCES, JOB, PROMETHEUS, Row, WORKLOAD, WORKLOADS, by, heatmap, lines, row, stacked, stat, table,
};

const RUN_QUEUE: &str = "workload_run_queue_latency_seconds";
const IO: &str = "workload_io_latency_seconds";
const BLOCK: &str = "workload_block_io_latency_seconds";
const BLOCK_QUEUE: &str = "workload_block_io_queue_seconds";
const RTT: &str = "workload_tcp_rtt_seconds";
const FIRST_READ: &str = "workload_tcp_time_to_first_read_seconds";

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        uid: "observer-host",
        title: "Observer: host and I/O",
        description: "What the host did for the servers of language models, by workload: CPU, files and disks, TCP.",
        variables: vec![PROMETHEUS, JOB, INSTANCES, WORKLOADS],
        rows: vec![now(), cpu(), process_io(), block_io(), tcp(), inventory()],
    }
}

fn now() -> Row {
    row(
        "Now",
        vec![
            stat("CPU", "suffix: cores", "CPU time that the workloads' threads used, each second.")
                .query("CPU", "sum(rate(workload_cpu_seconds_total{@workload}[$__rate_interval]))"),
            stat("Run queue, p99", "s", "99 of 100 times a thread that could run had a CPU within this time.")
                .query("p99", &by(0.99, RUN_QUEUE, WORKLOAD, ""))
                .thresholds(&[(0.01, "orange"), (0.05, "red")]),
            stat("Major faults", "suffix: /s", "Page faults that waited for a disk: mapped weights being paged in. 0 once a server is warm.")
                .query("major", "sum(rate(workload_page_faults_total{@workload, kind=\"major\"}[$__rate_interval]))")
                .thresholds(&[(100.0, "orange")]),
            stat("Retransmits", "suffix: /s", "Segments that TCP sent again.")
                .query("retransmits", "sum(rate(workload_tcp_retransmits_total{@workload}[$__rate_interval]))")
                .thresholds(&[(10.0, "orange")]),
            stat("Unsent", "bytes", "Written by servers and not sent even once: clients that read slowly, or a congested path.")
                .query("unsent", "sum(workload_tcp_unsent_bytes{@workload})"),
            stat("Refused in the listen queue", "short", "Connections that were dropped since the server did not accept in time, over the dashboard's time. 0 is right.")
                .query("dropped", "sum(increase(workload_listen_overflows_total{@workload}[$__range]))")
                .thresholds(&[(1.0, "red")]),
        ],
    )
}

fn cpu() -> Row {
    row(
        "CPU and memory",
        vec![
            heatmap("Run queue", "s", RUN_QUEUE, WORKLOAD, "How long threads that could run had to wait for a CPU. A band of milliseconds is a host with too few CPUs, or a limit of the container's CPU time."),
            lines("Run queue, quantiles", "s", "p99 of some milliseconds delays every token of a server whose event loop is one thread.").quantiles(RUN_QUEUE, WORKLOAD),
            stacked("CPU by workload", "suffix: cores", "User and system. A server near one core has an event loop or an interpreter's lock as its limit.")
                .query("{{workload}}", "sum by (workload) (rate(workload_cpu_seconds_total{@workload}[$__rate_interval]))"),
            lines("Off the CPU", "suffix: threads", "Mean number of threads that slept or waited for I/O or locks, counted when the wait is over. High is normal for idle workers.")
                .query("{{workload}}", "sum by (workload) (rate(workload_off_cpu_seconds_total{@workload}[$__rate_interval]))"),
            lines("Page faults", "suffix: /s", "major: waited for a disk (weights paged in, or memory too small to keep them); minor: did not.")
                .query("{{workload}} {{kind}}", "sum by (workload, kind) (rate(workload_page_faults_total{@workload}[$__rate_interval]))"),
            lines("Run queue, p99 by workload", "s", "Which server waits for CPUs.").query("{{workload}}", &by(0.99, RUN_QUEUE, WORKLOAD, "workload")),
        ],
    )
}

fn process_io() -> Row {
    row(
        "Reads and writes of processes",
        vec![
            heatmap("Latency of calls", "s", IO, WORKLOAD, "How long reads and writes took, waits for data included: a pipe that blocks waits for the other side. Microseconds are the page cache, milliseconds a disk."),
            lines("Latency of calls, p99", "s", "By what was read or written. Files far above the others: the disk, or a page cache too small for the weights.")
                .query("{{kind}} {{direction}}", &by(0.99, IO, WORKLOAD, "kind, direction")),
            lines("Bytes", "Bps", "Read and written by calls, cached or not. Mapped memory is not in it.")
                .query("{{kind}} {{direction}}", "sum by (kind, direction) (rate(workload_io_bytes_total{@workload}[$__rate_interval]))"),
            lines("Calls", "iops", "Many with few bytes each: small reads or writes are a cost of their own.")
                .query("{{kind}} {{direction}}", "sum by (kind, direction) (rate(workload_io_operations_total{@workload}[$__rate_interval]))"),
            stacked("Files read", "Bps", "weights: files of models; other: the rest. Weights after the start: a model is loaded, or one that does not fit is read again and again.")
                .query("{{workload}} {{kind}}", "sum by (workload, kind) (rate(workload_file_read_bytes_total{@workload}[$__rate_interval]))"),
            stacked("Page cache filled", "Bps", "What had to come from a disk because the workload read it or touched mapped memory. Beside reads of files: what was cached already.")
                .query("{{workload}} {{kind}}", "sum by (workload, kind) (rate(workload_page_cache_fill_bytes_total{@workload}[$__rate_interval]))"),
        ],
    )
}

fn block_io() -> Row {
    row(
        "Block devices",
        vec![
            heatmap(
                "Latency of requests",
                "s",
                BLOCK,
                WORKLOAD,
                "Time at the device, of requests that the workloads' threads made. Below 1 ms is flash; a second band far above it is a device that is saturated, or remote.",
            ),
            lines(
                "Latency of requests, p99",
                "s",
                "By device and operation: writes of a journal and reads of weights seldom share a reason.",
            )
            .query("{{device}} {{operation}}", &by(0.99, BLOCK, WORKLOAD, "device, operation")),
            lines(
                "Wait before the device, p99",
                "s",
                "In the kernel's queue. Above the latency of requests itself: more is asked than the device does.",
            )
            .query("{{device}}", &by(0.99, BLOCK_QUEUE, WORKLOAD, "device")),
            stacked("Bytes", "Bps", "Of those requests.").query(
                "{{device}} {{operation}}",
                "sum by (device, operation) (rate(workload_block_io_bytes_total{@workload}[$__rate_interval]))",
            ),
        ],
    )
}

fn tcp() -> Row {
    row(
        "TCP",
        vec![
            heatmap(
                "Round trips",
                "s",
                RTT,
                WORKLOAD,
                "Smoothed round-trip time of clients' connections. It is a part of what clients wait for, and none of what the observer measures of a request.",
            ),
            lines("Round trips, quantiles", "s", "Of samples each 100 ms at most, while the server writes.")
                .quantiles(RTT, WORKLOAD),
            lines(
                "Retransmits",
                "suffix: /s",
                "Segments sent again: loss on the path. Each delays a token by at least a round trip.",
            )
            .query(
                "{{workload}}",
                "sum by (workload) (rate(workload_tcp_retransmits_total{@workload}[$__rate_interval]))",
            ),
            lines(
                "Closed windows",
                "suffix: /s",
                "Times that a client's window was found closed: the client does not read.",
            )
            .query(
                "{{workload}}",
                "sum by (workload) (rate(workload_tcp_zero_window_total{@workload}[$__rate_interval]))",
            ),
            lines(
                "Unsent bytes",
                "bytes",
                "Written and not sent even once. It rises with slow clients and congestion, and costs the host memory.",
            )
            .query("{{workload}}", "sum by (workload) (workload_tcp_unsent_bytes{@workload})"),
            lines(
                "Dropped in the listen queue",
                "suffix: /s",
                "The accept queue was full: the server did not accept in time. Clients try again after a second.",
            )
            .query(
                "{{workload}}",
                "sum by (workload) (rate(workload_listen_overflows_total{@workload}[$__rate_interval]))",
            ),
            heatmap(
                "From connection to first read",
                "s",
                FIRST_READ,
                WORKLOAD,
                "Accept queue, event loop, and the client's own delay before its request. Clients that connect ahead of time are slow here without harm.",
            ),
            lines(
                "From connection to first read, quantiles",
                "s",
                "Compare with socket wait of the latency dashboard, which leaves the client's own delay out.",
            )
            .quantiles(FIRST_READ, WORKLOAD),
        ],
    )
}

fn inventory() -> Row {
    row(
        "Inventory",
        vec![table("Workloads", "What each name stands for: container, service, command.").query(
            "",
            "max by (instance, workload, command, unit, container_id, pod_uid, cgroup) (workload_info{@workload})",
        )],
    )
}

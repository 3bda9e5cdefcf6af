//! Every family, declared once: the registry, the exposition and `docs/metrics.md` are made from this table.

use crate::config::Buckets;

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows.
    Counter,
    /// Only grows; kept in nanoseconds, exposed in seconds.
    SecondsCounter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket.
    Histogram(BucketSet),
    /// Counts by bucket, with powers of two of a nanosecond as bounds: added up in the kernel.
    KernelHistogram,
}

/// Which configured bucket bounds a histogram has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketSet {
    /// `metrics.buckets.ttft`.
    Ttft,
    /// `metrics.buckets.gap`.
    Gap,
    /// `metrics.buckets.duration`.
    Duration,
    /// `metrics.buckets.tokens`.
    Tokens,
}

impl BucketSet {
    /// Its bounds.
    #[must_use]
    pub fn bounds(self, buckets: &Buckets) -> &[f64] {
        match self {
            Self::Ttft => &buckets.ttft,
            Self::Gap => &buckets.gap,
            Self::Duration => &buckets.duration,
            Self::Tokens => &buckets.tokens,
        }
    }

    /// The setting that holds them.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Ttft => "metrics.buckets.ttft",
            Self::Gap => "metrics.buckets.gap",
            Self::Duration => "metrics.buckets.duration",
            Self::Tokens => "metrics.buckets.tokens",
        }
    }
}

/// One family.
#[derive(Debug)]
pub struct Family {
    /// Its name, with `_total` where it counts.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Its exact definition.
    pub help: &'static str,
    /// Whether it is of requests: [`COMMON`] precedes its own labels, and labels from request headers follow them.
    pub of_requests: bool,
    /// Names of its own labels.
    pub own: &'static [&'static str],
}

/// Labels that all families of requests share.
pub const COMMON: [&str; 6] =
    ["workload", "server_port", "gen_ai_operation_name", "gen_ai_request_model", "gen_ai_response_model", "role"];

impl Family {
    /// Names of its labels, but for those from request headers. A label whose value is empty is left out.
    pub fn labels(&self) -> impl Iterator<Item = &'static str> {
        let common: &[&str] = if self.of_requests { &COMMON } else { &[] };
        common.iter().chain(self.own).copied()
    }
}

macro_rules! families {
    ($of_requests:literal: $($name:ident: $kind:expr, $text:literal, [$($label:literal),*], $help:literal;)+) => {
        $(#[doc = concat!("`", $text, "`: ", $help)]
        pub static $name: Family = Family {
            name: $text,
            kind: $kind,
            help: $help,
            of_requests: $of_requests,
            own: &[$($label),*],
        };)+
        const TABLE: &[&Family] = &[$(&$name),+];
    };
}

/// Of requests.
pub mod requests {
    use super::{BucketSet, Family, Type};

    /// All of this group.
    pub static ALL: &[&Family] = TABLE;

    families! { true:
        DURATION: Type::Histogram(BucketSet::Duration), "gen_ai_server_request_duration_seconds", ["error_type"],
            "Time from the arrival of a request's first byte (t0) to the last byte of its response handed to the socket, or to its cancellation. error_type is the status code of an HTTP error, error_in_stream, cancelled or truncated; absent on success. Incomplete requests are left out.";
        TTFT: Type::Histogram(BucketSet::Ttft), "gen_ai_server_time_to_first_token_seconds", [],
            "Time from t0 to the first token event handed to the socket, of streamed requests that succeeded, or were cancelled after it.";
        TPOT: Type::Histogram(BucketSet::Gap), "gen_ai_server_time_per_output_token_seconds", [],
            "Time from the first to the last token event, divided by the output tokens less one, of streamed requests that succeeded, or were cancelled after the first token; only where the server reported more than one output token.";
        TTFB: Type::Histogram(BucketSet::Ttft), "llm_time_to_first_byte_seconds", [],
            "Time from t0 to the first byte of the response handed to the socket, of all requests that had a response and are not incomplete, errors among them.";
        FIRST_CONTENT: Type::Histogram(BucketSet::Ttft), "llm_time_to_first_content_seconds", [],
            "Time from t0 to the first token event that is not reasoning, where reasoning came first, of streamed requests that succeeded, or were cancelled after it.";
        GAP: Type::Histogram(BucketSet::Gap), "llm_inter_chunk_latency_seconds", [],
            "Time between successive token events of one stream. Events that shared a write are no gap: see llm_coalesced_chunks_total. Incomplete requests are left out, and so is what a server wrote after its client had left.";
        COALESCED: Type::Counter, "llm_coalesced_chunks_total", [],
            "Token events that shared a write with an earlier one: the server's event loop lagged.";
        PHASE: Type::Histogram(BucketSet::Duration), "llm_request_phase_seconds", ["phase"],
            "Time in each phase of a request: head_of_line (t0 to the end of the previous response on the connection; no other phase counts that time), socket_wait (t0 to the server's first read), receive (to its last read), queue_and_prefill (to the first token event), decode (to the last one), finish (to the end). Only phases whose two ends are known; none of requests that are incomplete, answered before they were read whole, or behind a response whose end was lost.";
        WRITE_BLOCKED: Type::SecondsCounter, "llm_write_blocked_seconds_total", [],
            "Time in which a response could not be handed over because the client read slowly: from a failed or short write to the next successful one.";
        REQUESTS: Type::Counter, "llm_requests_total", ["outcome", "http_response_status_code"],
            "Requests that ended, by outcome: ok, http_error, error_in_stream, cancelled (the client left before the response was complete), truncated (the server did), incomplete (the timeline has a gap; see observer_incomplete_requests_total).";
        TOKENS: Type::Counter, "llm_tokens_total", ["gen_ai_token_type"],
            "Tokens as reported by the server, never counted here; cached_input is a part of input, reasoning_output of output.";
        FINISH_REASONS: Type::Counter, "llm_finish_reasons_total", ["finish_reason"],
            "Reasons to finish as the server said, one per choice.";
        CANCELLED_WORK: Type::SecondsCounter, "llm_cancelled_work_seconds_total", [],
            "Time from the client's leaving (FIN or reset) to the server's last write of that request.";
        CHUNKS: Type::Counter, "llm_output_chunks_total", [],
            "Token events seen (events, not tokens: one may carry several).";
        PROMPT_TOKENS: Type::Histogram(BucketSet::Tokens), "llm_prompt_tokens", [],
            "Input tokens of a request, where the server reported them.";
        COMPLETION_TOKENS: Type::Histogram(BucketSet::Tokens), "llm_completion_tokens", [],
            "Output tokens of a request, where the server reported them.";
        SLO: Type::Counter, "llm_slo_requests_total", ["slo", "result"],
            "Requests judged by each configured objective: good if what it measures was at most its limit, else bad. ttft and tpot judge what enters those histograms, duration judges successful requests.";
    }
}

/// Of requests that have not ended.
pub mod live {
    use super::{Family, Type};

    /// All of this group.
    pub static ALL: &[&Family] = TABLE;

    families! { false:
        IN_FLIGHT: Type::Gauge, "llm_requests_in_flight", ["workload", "server_port"],
            "Requests whose first byte arrived and that have not ended, counted at the scrape. The model is not known yet.";
    }
}

/// Of the host, by workload.
pub mod host {
    use super::{BucketSet, Family, Type};

    /// All of this group.
    pub static ALL: &[&Family] = TABLE;

    families! { false:
        INFO: Type::Gauge, "workload_info", ["workload", "container_id", "cgroup", "unit", "command", "pod_uid"],
            "1 for each workload that served a request to a language model: what its name stands for. One name may have several, as replicas do, or a container and its successor for a while.";
        RUN_QUEUE: Type::KernelHistogram, "workload_run_queue_latency_seconds", ["workload"],
            "Time that the workload's threads were runnable (woken, or preempted) and did not run, one sample each time that a thread leaves a CPU. Its sum is the run delay of /proc/PID/schedstat.";
        CPU: Type::SecondsCounter, "workload_cpu_seconds_total", ["workload"],
            "Time that the workload's threads ran, user and system; of a thread that runs on and on, as of when it last left its CPU.";
        OFF_CPU: Type::SecondsCounter, "workload_off_cpu_seconds_total", ["workload"],
            "Time that the workload's threads neither ran nor were runnable: they slept, or waited for I/O or locks. Summed over threads, and counted when the wait is over.";
        PAGE_FAULTS: Type::Counter, "workload_page_faults_total", ["workload", "kind"],
            "Page faults of the workload's threads: major ones waited for I/O (mapped files being paged in, weights among them), minor ones did not.";
        IO_BYTES: Type::Counter, "workload_io_bytes_total", ["workload", "kind", "direction"],
            "Bytes that the workload's processes read and wrote: `file` (regular files and block devices, cached or not), `pipe` (FIFOs, too), `socket` (any family). Files and pipes by `read`, `pread`, `readv`, `write` and their like; sockets by any call, io_uring and `sendfile` included. What the caller does not get to see (`sendfile` and `splice` out of a file), io_uring on files, and mapped memory are not in it; devices, eventfd and the like neither. Without a hook for files (`observer doctor` tells why) there are no samples of these.";
        IO_OPERATIONS: Type::Counter, "workload_io_operations_total", ["workload", "kind", "direction"],
            "Such calls that did not fail: they moved something, or came to the end.";
        IO_LATENCY: Type::KernelHistogram, "workload_io_latency_seconds", ["workload", "kind", "direction"],
            "How long such calls took, waits for data included: of a pipe or socket that blocks, until the other side wrote. Where the kernel's own functions are hooked, sockets have no samples.";
        FILE_READS: Type::Counter, "workload_file_read_bytes_total", ["workload", "kind"],
            "Of what was read from files: `weights` are files whose names end in .safetensors, .gguf, .bin or .pt, and blobs of model stores (named by a SHA-256 in a folder called blobs, as those of Hugging Face and Ollama); the rest is `other`.";
        PAGE_CACHE_FILLS: Type::Counter, "workload_page_cache_fill_bytes_total", ["workload", "kind"],
            "Bytes of files that came into the page cache because the workload's processes read them or touched mapped memory, readahead included; kinds as above. What was cached already costs no fill; what `write` and its like put there is none, but what is written to a file by `sendfile`, `splice`, `copy_file_range`, io_uring or 32-bit programs is; direct I/O passes by.";
        BLOCK_LATENCY: Type::KernelHistogram, "workload_block_io_latency_seconds", ["workload", "device", "operation"],
            "Time that requests of the workload's threads were at a block device, from being given to its driver (the last time, where it had to be given again) to their completion, failed ones included; of a flush the whole time, since the device does it as part of a request of the kernel's own. With the time in the queue it is the time of /proc/diskstats. operation is read, write, discard or flush; there, a flush is a write of nothing besides. A request belongs to the thread that made it: file systems' kernel threads (journal, writeback of buffered writes) are nobody's, but what fsync, O_SYNC, direct I/O, readahead and page faults make is the workload's. device is the whole one's name in /sys/block. Devices that hand on what they are given (device mapper, MD, zram) have no requests; those of the devices below them are here, where no kernel thread is in between.";
        BLOCK_QUEUE: Type::KernelHistogram, "workload_block_io_queue_seconds", ["workload", "device"],
            "Time that those requests waited in the kernel, from being made to being given to the device's driver (the last time): for the scheduler's turn, for others to merge with, for room at the device. Flushes do not wait there.";
        BLOCK_BYTES: Type::Counter, "workload_block_io_bytes_total", ["workload", "device", "operation"],
            "Bytes of those requests that were read, written or discarded without an error, counted when they complete. What was merged into a request counts with it.";
        TCP_RETRANSMITS: Type::Counter, "workload_tcp_retransmits_total", ["workload"],
            "Segments that TCP sent again on the workload's connections, as the kernel counts them (total_retrans; `retrans` of `ss -ti`): attempts, tail loss probes, and the SYN-ACK of a connection whose establishment was seen. The workload's connections are those to ports on which it served a request to a language model, and on which it has answered over HTTP/1.";
        TCP_RTT: Type::KernelHistogram, "workload_tcp_rtt_seconds", ["workload"],
            "Smoothed round-trip time of the workload's connections as TCP keeps it (srtt; `rtt` of `ss -ti`), looked at when the server writes, at most every 100 ms on each connection.";
        TCP_UNSENT: Type::Gauge, "workload_tcp_unsent_bytes", ["workload"],
            "Bytes that servers wrote and TCP has not sent even once (`notsent` of `ss -ti`), summed over the workload's open connections, as of the last look at all sockets: the scrape's, or an earlier one where there are so many that a look with each scrape would take 1 % of a core. Clients that read slowly, or a congested path.";
        TCP_ZERO_WINDOW: Type::Counter, "workload_tcp_zero_window_total", ["workload"],
            "Times that a client's receive window was found closed (no room for a single byte) on the workload's connections, having been open at the last look: the client does not read. TCP is looked at when the server writes and at each scrape; a window that closes and opens between two looks is not seen. The server's own window does not count.";
        LISTEN_OVERFLOWS: Type::Counter, "workload_listen_overflows_total", ["workload"],
            "Connections that the listening sockets of the workload's ports dropped since it first served (sk_drops; ListenDrops of `nstat`, by socket): nearly always since the accept queue was full, that is, the server did not accept in time. A client's repeated attempts count each.";
        TCP_FIRST_READ: Type::Histogram(BucketSet::Duration), "workload_tcp_time_to_first_read_seconds", ["workload"],
            "Time from a connection's establishment to the server's first read of it, once for each connection whose establishment was seen and that carried a request to a language model: the accept queue, the event loop's lag, and the client's own delay before it sent its request.";
    }
}

/// Of GPUs. `gpu` is the driver's index (a MIG device's is the GPU's and its own, as 0:1), `uuid` never changes.
pub mod gpu {
    use super::{Family, Type};

    /// All of this group.
    pub static ALL: &[&Family] = TABLE;

    families! { false:
        AVAILABLE: Type::Gauge, "gpu_available", [],
            "1 if a driver is open and answers for at least one GPU, else 0.";
        UNRESPONSIVE: Type::Gauge, "gpu_driver_unresponsive", [],
            "1 while a call into the driver has not returned for more than 10 s, or a poll is late by as much: then no family of GPUs has samples, but for gpu_up, gpu_xid_errors_total and gpu_available.";
        UP: Type::Gauge, "gpu_up", ["gpu", "uuid"],
            "1 if the GPU answered at the last poll, 0 if it was seen before and does not (NVML: lost, reset required, or not counted any more): then it has no other samples but gpu_xid_errors_total. Absent while the driver is let go of (observer gpu release).";
        INFO: Type::Gauge, "gpu_info", ["gpu", "uuid", "name", "driver", "cuda"],
            "1; the labels say what it is: nvmlDeviceGetName, nvmlSystemGetDriverVersion, and the newest CUDA that the driver supports (nvmlSystemGetCudaDriverVersion).";
        UTILIZATION: Type::Gauge, "gpu_utilization_ratio", ["gpu", "uuid"],
            "Share of time in which at least one kernel ran, 0 to 1, over the driver's last sample period (1/6 s to 1 s, by product): nvmlDeviceGetUtilizationRates, gpu. It says nothing of how much of the GPU that kernel used, and some boards always say 0.";
        MEMORY_UTILIZATION: Type::Gauge, "gpu_memory_bandwidth_utilization_ratio", ["gpu", "uuid"],
            "Share of time in which device memory was being read or written, 0 to 1, over the same period: nvmlDeviceGetUtilizationRates, memory. It is time, not a share of the possible bytes: gpu_dram_active_ratio is that.";
        MEMORY_USED: Type::Gauge, "gpu_memory_used_bytes", ["gpu", "uuid"],
            "Device memory in use now, in bytes: nvmlDeviceGetMemoryInfo_v2, used; with drivers before 510 nvmlDeviceGetMemoryInfo, which also counts what the driver keeps for itself.";
        MEMORY_TOTAL: Type::Gauge, "gpu_memory_total_bytes", ["gpu", "uuid"],
            "Device memory, in bytes: total of the same call.";
        POWER: Type::Gauge, "gpu_power_watts", ["gpu", "uuid"],
            "Power of the board, in watts: nvmlDeviceGetPowerUsage, the mean of the last second on Ampere (but GA100) and later, the present value on others.";
        POWER_LIMIT: Type::Gauge, "gpu_power_limit_watts", ["gpu", "uuid"],
            "Power that the board may take now, in watts: nvmlDeviceGetEnforcedPowerLimit. Read at gpu.slow_interval.";
        ENERGY: Type::Counter, "gpu_energy_joules_total", ["gpu", "uuid"],
            "Energy of the board, in joules: nvmlDeviceGetTotalEnergyConsumption, which counts from the load of the driver; when that begins again, this goes on.";
        TEMPERATURE: Type::Gauge, "gpu_temperature_celsius", ["gpu", "uuid"],
            "Temperature of the GPU's core now, in degrees Celsius: nvmlDeviceGetTemperature.";
        CLOCK: Type::Gauge, "gpu_clock_hertz", ["gpu", "uuid", "clock"],
            "Clock now, in hertz: nvmlDeviceGetClockInfo; clock is sm or memory.";
        THROTTLE: Type::SecondsCounter, "gpu_throttle_seconds_total", ["gpu", "uuid", "reason"],
            "Time in which clocks were held down, in seconds, by reason; reasons overlap. nvmlDeviceGetViolationStatus: power, thermal, sync_boost, board_limit, low_utilization, reliability; nvmlDeviceGetFieldValues, clocks event reasons: sw_thermal, hw_thermal, hw_power_brake. Read at gpu.slow_interval.";
        PCIE: Type::Counter, "gpu_pcie_bytes_total", ["gpu", "uuid", "direction"],
            "Bytes over PCIe, transmit (from the GPU) and receive: nvmlDeviceGetFieldValues, fields 197 and 198. The driver's counters may wrap; what came between the last poll and a wrap is left out.";
        NVLINK: Type::Counter, "gpu_nvlink_bytes_total", ["gpu", "uuid", "direction"],
            "Bytes of data over all NVLinks, transmit (from the GPU) and receive: nvmlDeviceGetFieldValues, fields 138 and 139, over all links, else their sum; counted by the driver in KiB.";
        XID: Type::Counter, "gpu_xid_errors_total", ["gpu", "uuid", "xid"],
            "XID errors since the observer's start, by number: nvmlEventSetWait_v2. Those that alerts ask for are there at 0 from the start. Of several between two waits the driver tells the last number for all. They stay when the GPU is lost.";
        ECC: Type::Counter, "gpu_ecc_errors_total", ["gpu", "uuid", "type"],
            "ECC errors over the life of the board: nvmlDeviceGetTotalEccErrors, aggregate; type is corrected or uncorrected. Read at gpu.slow_interval.";
        ROW_REMAPS: Type::Counter, "gpu_row_remaps_total", ["gpu", "uuid", "type"],
            "Rows of device memory that were replaced by spare ones over the life of the board: nvmlDeviceGetRemappedRows; type is correctable or uncorrectable, the error that caused it. Read at gpu.slow_interval.";
        ROW_REMAP_PENDING: Type::Gauge, "gpu_row_remap_pending", ["gpu", "uuid"],
            "1 if a row waits to be replaced at the next reset of the GPU: nvmlDeviceGetRemappedRows, pending. Read at gpu.slow_interval.";
        ROW_REMAP_FAILED: Type::Gauge, "gpu_row_remap_failed", ["gpu", "uuid"],
            "1 if a row could not be replaced: nvmlDeviceGetRemappedRows, failure. Read at gpu.slow_interval.";
        SM_ACTIVE: Type::Gauge, "gpu_sm_active_ratio", ["gpu", "uuid"],
            "Share of time in which an SM had at least one warp, 0 to 1, mean over all SMs, between the last two polls: nvmlGpmMetricsGet, SM_UTIL. Hopper and later, while gpu.gpm is on.";
        SM_OCCUPANCY: Type::Gauge, "gpu_sm_occupancy_ratio", ["gpu", "uuid"],
            "Warps resident on the SMs as a share of those that would fit, 0 to 1, between the last two polls: nvmlGpmMetricsGet, SM_OCCUPANCY. Hopper and later, while gpu.gpm is on.";
        TENSOR_ACTIVE: Type::Gauge, "gpu_tensor_active_ratio", ["gpu", "uuid"],
            "Share of time in which tensor cores worked, 0 to 1, between the last two polls: nvmlGpmMetricsGet, ANY_TENSOR_UTIL. Hopper and later, while gpu.gpm is on.";
        DRAM_ACTIVE: Type::Gauge, "gpu_dram_active_ratio", ["gpu", "uuid"],
            "Share of the possible bandwidth of device memory that was used, 0 to 1, between the last two polls: nvmlGpmMetricsGet, DRAM_BW_UTIL. Hopper and later, while gpu.gpm is on.";
        PROCESS_MEMORY: Type::Gauge, "gpu_process_memory_bytes", ["gpu", "uuid", "pid", "workload"],
            "Device memory that a process with a compute context has now, in bytes: nvmlDeviceGetComputeRunningProcesses. pid is the host's. While gpu.processes is on.";
        PROCESS_SM: Type::Gauge, "gpu_process_sm_utilization_ratio", ["gpu", "uuid", "pid", "workload"],
            "Share of time in which kernels of this process ran, 0 to 1, over the driver's last sample period (1/6 s to 1 s, by product): nvmlDeviceGetProcessUtilization, smUtil. The driver tells of processes that ran some; the others have 0. Not on MIG devices. While gpu.processes is on.";
    }
}

/// Of workloads and the GPUs that their processes use.
pub mod join {
    use super::{Family, Type};

    /// All of this group.
    pub static ALL: &[&Family] = TABLE;

    families! { false:
        GPU_INFO: Type::Gauge, "llm_workload_gpu_info", ["workload", "gpu", "uuid"],
            "1 for each GPU, or MIG device, on which a process of the workload has a compute context now.";
        ENERGY: Type::Counter, "llm_workload_energy_joules_total", ["workload", "estimated"],
            "Energy of the workload's GPUs since it is known, from their own energy counters. While no other process is on a GPU it is all of it, and exact. While others are, it is the workload's share of SM time (equal shares while nobody computes), in a series of its own with estimated=\"true\"; a GPU whose processes' SM time is not known adds nothing then, and neither does one that is split into MIG devices. Divide over windows of 10 s or more: under continuous batching no single request has an energy of its own.";
        IDLE: Type::SecondsCounter, "llm_gpu_idle_in_flight_seconds_total", ["workload"],
            "Time in which the workload had requests in flight and all its GPUs were idle: utilization below 5 %, and less than 40 % of the power limit drawn, where both are known (some boards always say 0). As of each poll of the GPUs. Absent where a GPU does not tell its utilization.";
    }
}

/// Of the observer itself.
pub mod own {
    use super::{Family, Type};

    /// All of this group.
    pub static ALL: &[&Family] = TABLE;

    families! { false:
        EVENTS: Type::Counter, "observer_events_total", ["source"], "Events of the kernel side, by source.";
        EVENTS_LOST: Type::Counter, "observer_events_lost_total", ["source", "reason"],
            "Events that should have reached the observer and did not, by source and reason.";
        INCOMPLETE: Type::Counter, "observer_incomplete_requests_total", ["reason"],
            "Requests whose timeline has a gap: they are in no latency histogram.";
        JOINED_MID_REQUEST: Type::Counter, "observer_joined_mid_request_total", [],
            "Requests that were under way when their connection became known: they are in no other family.";
        OTHER_REQUESTS: Type::Counter, "observer_other_requests_total", [],
            "HTTP requests to observed servers that are not for a language model: health checks, lists of models and the like.";
        OPAQUE: Type::Counter, "observer_opaque_connections_total", ["reason"],
            "Connections to observed servers whose bytes say nothing to the observer.";
        TRAFFIC: Type::Counter, "observer_traffic_bytes_total", ["content", "direction"],
            "Bytes that servers on candidate ports read and wrote, by what they are, each byte once: plain (HTTP/1 that is read, and its framing), tls, ktls (TLS by the kernel), http2, mptcp, unreadable (io_uring, splice), upgrade, connect, compressed (bodies of LLM requests and responses in a content coding), not_http (something else, which is left alone), undecided (connections older than the observer, until it can be told). On Unix sockets only what is plain or opaque.";
        CONNECTIONS: Type::Gauge, "observer_connections", [], "Connections known now.";
        STREAM_GAP: Type::Counter, "observer_stream_gap_bytes_total", ["direction"],
            "Bytes of tracked connections that no event accounted for: lost events.";
        UNCAPTURED: Type::Counter, "observer_uncaptured_bytes_total", ["direction"],
            "Bytes of tracked connections that events accounted for without their content: beyond the captured length, or not readable.";
        UNPARSED: Type::Counter, "observer_unparsed_bytes_total", ["direction"],
            "Bytes of tracked connections that could not be understood.";
        UNSENT: Type::Counter, "observer_unsent_at_stamp_total", [],
            "Measured writes whose bytes had not all left for the network when the time was taken (Nagle, a full window): packets left later.";
        SERIES_DROPPED: Type::Counter, "observer_series_dropped_total", ["label"],
            "Values of this label that became _other, because it has as many distinct values as it may have.";
        REQUEST_LOG_DROPPED: Type::Counter, "observer_request_log_dropped_total", ["reason"],
            "Requests that are missing from the request log: the queue was full, or a write failed.";
        MAP_ENTRIES: Type::Gauge, "observer_map_entries", ["map"], "Entries of a bounded map: of the kernel side, or clients (connections whose client is a process of this host).";
        MAP_CAPACITY: Type::Gauge, "observer_map_capacity", ["map"], "Most entries that the map can hold.";
        MAP_INSERT_FAILURES: Type::Counter, "observer_map_insert_failures_total", ["map"],
            "Entries that the map refused, or gave up for others.";
        PROBE_ATTACHED: Type::Gauge, "observer_probe_attached", ["probe", "mechanism"],
            "1 if the probe is attached by this mechanism, 0 if it should be and is not.";
        PROBE_RUNS: Type::Counter, "observer_probe_runs_total", ["probe"],
            "Runs of the probe, while kernel.bpf_stats_enabled is set.";
        PROBE_RUN_TIME: Type::SecondsCounter, "observer_probe_run_seconds_total", ["probe"],
            "Time spent in the probe, while kernel.bpf_stats_enabled is set.";
        SIGNAL_SHED: Type::Gauge, "observer_signal_shed", ["signal"],
            "1 while the probes of this signal are taken away, because optional probes took more than governor.budget: its families have no samples then (of tcp, unsent bytes and overflows have none). Signals that are off have no sample here.";
        GOVERNOR_DECISIONS: Type::Counter, "observer_governor_decisions_total", ["action", "signal"],
            "Times that the governor shed or restored a signal.";
        GOVERNOR_COST: Type::Gauge, "observer_governor_cost_ratio", ["signal"],
            "Share of one core that the probes of this signal took in the governor's last sample, the constants of their hooks included; of tcp, looks at all sockets since the sample before. None while it is shed, or not in place.";
        GOVERNOR_BUDGET: Type::Gauge, "observer_governor_budget_ratio", [],
            "Share of one core that the optional probes may take together (governor.budget).";
        RING_USED: Type::Gauge, "observer_ring_used_ratio", [],
            "Most of the ring of events found in use by one drain, 0 to 1, within the last 15 to 30 seconds.";
        RING_WAKEUPS: Type::Counter, "observer_ring_wakeups_total", [],
            "Times that the filling ring woke the observer ahead of its next drain.";
        IGNORED_CALLS: Type::Counter, "observer_ignored_calls_total", [],
            "Reads and writes on discovered ports that are left alone for a minute, because they served much and no LLM request.";
        UNSTAMPED: Type::Counter, "observer_unstamped_arrivals_total", [],
            "Stretches of received bytes without an arrival stamp, because too many came before a read: a request that begins in one has the read as its t0.";
        LEFT_ALONE: Type::Counter, "observer_left_alone_connections_total", [],
            "Connections to ports in scope that speak something other than HTTP, and are not looked at any further.";
        ARRIVAL_TIME: Type::Gauge, "observer_arrival_time_available", [],
            "1 if t0 is the arrival of the request in the kernel, 0 if it is the server's first read; which it always is on Unix sockets, and for what had arrived before a connection became known.";
        GPU_JOIN: Type::Gauge, "observer_gpu_join_available", [],
            "1 if workloads can be joined with the GPUs they use: GPUs answer, gpu.processes is on, and process ids are the host's.";
        CPU: Type::SecondsCounter, "observer_cpu_seconds_total", [], "CPU time of the observer, user and system.";
        MEMORY: Type::Gauge, "observer_resident_memory_bytes", [], "Resident memory of the observer.";
        SCRAPE: Type::Gauge, "observer_scrape_duration_seconds", [], "How long the previous scrape took to answer.";
        BUILD: Type::Gauge, "observer_build_info", ["version"], "1; the labels say what was built.";
    }
}

/// Groups as `docs/metrics.md` shows them: title, introduction, families.
pub static GROUPS: &[(&str, &[&Family])] = &[
    ("Requests", requests::ALL),
    ("Requests in flight", live::ALL),
    ("Workloads", host::ALL),
    ("GPUs", gpu::ALL),
    ("Workloads and their GPUs", join::ALL),
    ("The observer itself", own::ALL),
];

/// All families.
pub fn all() -> impl Iterator<Item = &'static Family> {
    GROUPS.iter().flat_map(|(_, families)| families.iter().copied())
}

//! End-to-end tests: the real observer on the real kernel, against real servers and clients.
//!
//! - [`require`]: what a test needs, and what happens where it is missing.
//! - [`wait`], [`process`], [`scratch`], [`net`], [`netns`], [`clock`]: bounded waits, children ended by pid, files, ports,
//!   networks of their own, clocks.
//! - [`observer`], [`request_log`], [`metrics`]: the observer under test and what it says.
//! - [`expected`]: what it shall say of one request.
//! - [`podman`], [`deploy`]: containers, with storage of their own; the files in `deploy/`.
//! - [`servers`], [`clients`], [`http`], [`traffic`]: who talks, and what is said.
//! - [`raw`]: both sides of a connection by raw system calls, for traffic that no library makes.
//! - [`capture`], [`pcap`], [`truth`]: what the network saw, read by code that shares nothing with the observer.
//! - [`worker`], [`disk`], [`disk_workload`], [`signals`]: a server whose work the kernel accounts for, a disk of its own;
//!   what measuring that costs.
//! - [`prometheus`], [`fleet`]: a real Prometheus; one observer's output as that of many nodes.
//! - [`stats`], [`bpf`], [`cgroup`]: small helpers of tests and benchmarks.
//!
//! Whatever is observed was started by the test itself and is named to the observer by port, pid or cgroup.

pub mod bpf;
pub mod capture;
pub mod cgroup;
pub mod clients;
pub mod clock;
pub mod deploy;
pub mod disk;
pub mod disk_workload;
pub mod expected;
pub mod fleet;
pub mod hooks;
pub mod http;
pub mod metrics;
pub mod net;
pub mod netns;
pub mod noise;
pub mod observer;
pub mod pcap;
pub mod podman;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod request_log;
pub mod require;
pub mod scratch;
pub mod servers;
pub mod signals;
pub mod stats;
pub mod traffic;
pub mod truth;
pub mod wait;
pub mod worker;

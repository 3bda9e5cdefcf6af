//! Constants of a load: offsets of this kernel, by its own type information, and options.

use observer_common::{config::KernelConfig, host::HostConfig};

use super::{btf::Btf, error::KernelError, loader::Options, signal::Signal};
use crate::config::{IoMode, Signals, SocketHook};

/// The fill mark in bytes. Below the ring's size, or it would never be passed.
fn wakeup_bytes(options: Options) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the ring's size")]
    let bytes = (f64::from(options.ring_bytes) * options.wakeup_ratio.clamp(0.0, 1.0)) as u32;
    bytes.min(options.ring_bytes.saturating_sub(options.ring_bytes / 8))
}

/// What the socket probes need: offsets of this kernel, and the load's options.
pub(super) fn of_sockets(btf: &Btf, options: Options, hook: SocketHook) -> Result<KernelConfig, KernelError> {
    Ok(KernelConfig {
        own_tgid: std::process::id(),
        wakeup_bytes: wakeup_bytes(options),
        sock_family: btf.offset("sock", "__sk_common.skc_family")?,
        sock_local_port: btf.offset("sock", "__sk_common.skc_num")?,
        sock_remote_port: btf.offset("sock", "__sk_common.skc_dport")?,
        sock_local_v4: btf.offset("sock", "__sk_common.skc_rcv_saddr")?,
        sock_remote_v4: btf.offset("sock", "__sk_common.skc_daddr")?,
        sock_local_v6: btf.offset("sock", "__sk_common.skc_v6_rcv_saddr")?,
        sock_remote_v6: btf.offset("sock", "__sk_common.skc_v6_daddr")?,
        sock_protocol: btf.offset("sock", "sk_protocol")?,
        sock_type: btf.offset("sock", "sk_type")?,
        sock_error: btf.offset("sock", "sk_err")?,
        sock_socket: btf.offset("sock", "sk_socket")?,
        socket_file: btf.offset("socket", "file")?,
        tcp_write_seq: btf.offset("tcp_sock", "write_seq")?,
        tcp_snd_nxt: btf.offset("tcp_sock", "snd_nxt")?,
        tcp_copied_seq: btf.offset("tcp_sock", "copied_seq")?,
        tcp_rcv_nxt: btf.offset("tcp_sock", "rcv_nxt")?,
        tcp_clock: btf.offset("tcp_sock", "tcp_clock_cache").unwrap_or(0),
        tcp_ulp: btf.offset("tcp_sock", "inet_conn.icsk_ulp_ops").unwrap_or(0),
        task_tgid: btf.offset("task_struct", "tgid")?,
        task_pid: btf.offset("task_struct", "pid")?,
        task_signal: btf.offset("task_struct", "signal")?,
        signal_live: btf.offset("signal_struct", "live")?,
        log: u32::from(options.log),
        sockets_by_cookie: u32::from(hook == SocketHook::SysExit),
        sock_cookie: btf.offset("sock", "__sk_common.skc_cookie")?,
        socket_sock: btf.offset("socket", "sk")?,
        file_private: btf.offset("file", "private_data")?,
        inode_number: btf.offset("inode", "i_ino")?,
        tcp_recvmsg_arguments: btf.arguments("tcp_recvmsg").unwrap_or(0),
    })
}

/// What the signals of workloads need. A member that this kernel lacks is 0, and its signal is off.
pub(super) fn of_host(btf: &Btf, signals: Signals) -> HostConfig {
    let task = |path| btf.offset("task_struct", path).unwrap_or(0);
    let sock = |path| btf.offset("sock", path).unwrap_or(0);
    let tcp = |path| btf.offset("tcp_sock", path).unwrap_or(0);
    HostConfig {
        scheduler: u32::from(signals.scheduler),
        task_state: task("__state"),
        task_start_time: task("start_time"),
        task_execution: task("se.sum_exec_runtime"),
        task_run_delay: task("sched_info.run_delay"),
        task_minor_faults: task("min_flt"),
        task_major_faults: task("maj_flt"),
        // A part of it has no probe of its own that could be left out.
        tcp: u32::from(signals.tcp && missing_for(btf, Signal::Tcp.needs()).is_none()),
        sock_state: sock("__sk_common.skc_state"),
        sock_drops: sock("sk_drops"),
        tcp_srtt: tcp("srtt_us"),
        tcp_send_window: tcp("snd_wnd"),
        tcp_retransmits: tcp("total_retrans"),
        io: u32::from(signals.io != IoMode::Off),
        io_latency: u32::from(signals.io_latency),
        task_files: task("files"),
        files_table: btf.offset("files_struct", "fdt").unwrap_or(0),
        table_size: btf.offset("fdtable", "max_fds").unwrap_or(0),
        table_files: btf.offset("fdtable", "fd").unwrap_or(0),
        file_inode: btf.offset("file", "f_inode").unwrap_or(0),
        file_dentry: btf.offset("file", "f_path.dentry").unwrap_or(0),
        inode_mode: btf.offset("inode", "i_mode").unwrap_or(0),
        inode_dentries: btf.offset("inode", "i_dentry").unwrap_or(0),
        dentry_name: btf.offset("dentry", "d_name.hash_len").unwrap_or(0),
        dentry_parent: btf.offset("dentry", "d_parent").unwrap_or(0),
        dentry_alias: btf.offset("dentry", "d_u.d_alias").unwrap_or(0),
        folio_mapping: btf.offset("folio", "mapping").unwrap_or(0),
        folio_flags: btf.offset("folio", "flags").unwrap_or(0),
        folio_order: folio_order(btf).unwrap_or(0),
        page_head: page_head(btf).unwrap_or(0),
        mapping_host: btf.offset("address_space", "host").unwrap_or(0),
    }
}

/// Where the lowest byte of a large folio's order is: in a member of its own, later beside other things.
fn folio_order(btf: &Btf) -> Option<u32> {
    btf.offset("folio", "_folio_order").or_else(|_| btf.offset("folio", "_flags_1")).ok()
}

/// Bit of a large folio's flags.
fn page_head(btf: &Btf) -> Option<u32> {
    btf.enumerator("pageflags", "PG_head")
}

/// What this kernel lacks without which a signal has nothing to read.
pub(super) fn missing(btf: &Btf, signal: Signal) -> Option<String> {
    missing_for(btf, signal.needs()).or_else(|| {
        if signal == Signal::Block {
            return super::block::missing_hook(|name| btf.has_tracepoint(name));
        }
        let folios = signal == Signal::PageCache && (folio_order(btf).is_none() || page_head(btf).is_none());
        folios.then(|| "this kernel does not say how large its folios are".to_owned())
    })
}

/// The first of some members of kernel structures that there is not.
fn missing_for(btf: &Btf, needs: &[(&'static str, &'static str)]) -> Option<String> {
    let missing = |(structure, path): &&(&'static str, &'static str)| btf.offset(structure, path).is_err();
    needs.iter().find(missing).map(|(structure, path)| format!("this kernel has no {structure}.{path}"))
}

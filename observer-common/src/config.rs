//! What the loader writes into the kernel side.

use core::mem::size_of;

/// Constants of one load, in `.rodata`: the verifier folds them. Offsets are bytes into the named
/// structure, taken from the running kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelConfig {
    /// The observer's own thread group id: never observed.
    pub own_tgid: u32,
    /// Fill of the ring, in bytes, above which an event wakes user space at once.
    pub wakeup_bytes: u32,
    /// `struct sock`: `__sk_common.skc_family`.
    pub sock_family: u32,
    /// `struct sock`: `__sk_common.skc_num`, host order.
    pub sock_local_port: u32,
    /// `struct sock`: `__sk_common.skc_dport`, network order.
    pub sock_remote_port: u32,
    /// `struct sock`: `__sk_common.skc_rcv_saddr`.
    pub sock_local_v4: u32,
    /// `struct sock`: `__sk_common.skc_daddr`.
    pub sock_remote_v4: u32,
    /// `struct sock`: `__sk_common.skc_v6_rcv_saddr`.
    pub sock_local_v6: u32,
    /// `struct sock`: `__sk_common.skc_v6_daddr`.
    pub sock_remote_v6: u32,
    /// `struct sock`: `sk_protocol`.
    pub sock_protocol: u32,
    /// `struct sock`: `sk_type`.
    pub sock_type: u32,
    /// `struct sock`: `sk_err`.
    pub sock_error: u32,
    /// `struct sock`: `sk_socket`.
    pub sock_socket: u32,
    /// `struct socket`: `file`; null for sockets of the kernel's own.
    pub socket_file: u32,
    /// `struct tcp_sock`: `write_seq`.
    pub tcp_write_seq: u32,
    /// `struct tcp_sock`: `snd_nxt`.
    pub tcp_snd_nxt: u32,
    /// `struct tcp_sock`: `copied_seq`.
    pub tcp_copied_seq: u32,
    /// `struct tcp_sock`: `rcv_nxt`.
    pub tcp_rcv_nxt: u32,
    /// `struct tcp_sock`: `tcp_clock_cache`; 0: this kernel has none.
    pub tcp_clock: u32,
    /// `struct tcp_sock`: `inet_conn.icsk_ulp_ops`, not null while the kernel makes TLS records; 0: this kernel has none.
    pub tcp_ulp: u32,
    /// `struct task_struct`: `tgid`.
    pub task_tgid: u32,
    /// `struct task_struct`: `pid`.
    pub task_pid: u32,
    /// `struct task_struct`: `signal`.
    pub task_signal: u32,
    /// `struct signal_struct`: `live`, the threads that have not begun to exit.
    pub signal_live: u32,
    /// 1: send rare diagnostics to the log (`--log-kernel`).
    pub log: u32,
    /// 1: reads and writes are seen at the end of system calls, where sockets are known by address only: their state is
    /// kept by cookie.
    pub sockets_by_cookie: u32,
    /// `struct sock`: `__sk_common.skc_cookie`.
    pub sock_cookie: u32,
    /// `struct socket`: `sk`.
    pub socket_sock: u32,
    /// `struct file`: `private_data`, of a socket's file its `struct socket`.
    pub file_private: u32,
    /// `struct inode`: `i_ino`.
    pub inode_number: u32,
    /// Arguments of `tcp_recvmsg`, which have been 6, 5 and 4.
    pub tcp_recvmsg_arguments: u32,
}
const _: () = assert!(size_of::<KernelConfig>() == 124);

impl KernelConfig {
    /// The same, as the words that lie in memory.
    #[must_use]
    pub const fn words(&self) -> [u32; 31] {
        [
            self.own_tgid,
            self.wakeup_bytes,
            self.sock_family,
            self.sock_local_port,
            self.sock_remote_port,
            self.sock_local_v4,
            self.sock_remote_v4,
            self.sock_local_v6,
            self.sock_remote_v6,
            self.sock_protocol,
            self.sock_type,
            self.sock_error,
            self.sock_socket,
            self.socket_file,
            self.tcp_write_seq,
            self.tcp_snd_nxt,
            self.tcp_copied_seq,
            self.tcp_rcv_nxt,
            self.tcp_clock,
            self.tcp_ulp,
            self.task_tgid,
            self.task_pid,
            self.task_signal,
            self.signal_live,
            self.log,
            self.sockets_by_cookie,
            self.sock_cookie,
            self.socket_sock,
            self.file_private,
            self.inode_number,
            self.tcp_recvmsg_arguments,
        ]
    }
}

/// [`Scope::flags`]: only ports that user space named are candidates; none is learnt at LISTEN.
pub const SCOPE_PORTS: u32 = 1;
/// [`Scope::flags`]: only processes of the pid list and their descendants.
pub const SCOPE_PIDS: u32 = 2;
/// [`Scope::flags`]: only processes below the cgroups of the list.
pub const SCOPE_CGROUPS: u32 = 4;

/// What is ours to observe: changed at run time by writing a new value with another generation.
/// A connection is in scope if it satisfies every list that is in force.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// Changes with each change of any list: verdicts kept with sockets are renewed then. Never 0.
    pub generation: u32,
    /// `SCOPE_*` bits: which lists are in force.
    pub flags: u32,
    /// Bit n: a listed cgroup lies at level n of the hierarchy.
    pub cgroup_levels: u32,
    /// Zero.
    pub padding: u32,
}
const _: () = assert!(size_of::<Scope>() == 16);

/// Value of the port map: not a candidate.
pub const PORT_NONE: u32 = 0;
/// Named by the user, or learnt at LISTEN: connections to it are looked at.
pub const PORT_CANDIDATE: u32 = 1;
/// A candidate that serves something else: left alone until user space says otherwise.
pub const PORT_IGNORED: u32 = 2;

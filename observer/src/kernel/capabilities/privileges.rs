//! What this process may: capabilities, filters of system calls, memory.

use std::io;

use super::{Finding, Level, finding, read};

pub(super) const CAP_DAC_OVERRIDE: u32 = 1;
pub(super) const CAP_DAC_READ_SEARCH: u32 = 2;
pub(super) const CAP_SYS_PTRACE: u32 = 19;
pub(super) const CAP_SYS_ADMIN: u32 = 21;
pub(super) const CAP_PERFMON: u32 = 38;
pub(super) const CAP_BPF: u32 = 39;

/// Those of use here, each with what it is for.
const CAPABILITIES: [(&str, u32, &str); 5] = [
    ("CAP_BPF", CAP_BPF, "programs and maps in the kernel"),
    ("CAP_PERFMON", CAP_PERFMON, "hooks, and what they read"),
    ("CAP_SYS_ADMIN", CAP_SYS_ADMIN, "network namespaces of containers, a list of others' BPF programs"),
    ("CAP_SYS_PTRACE", CAP_SYS_PTRACE, "sockets, namespaces and files of other processes"),
    ("CAP_DAC_READ_SEARCH", CAP_DAC_READ_SEARCH, "the same of other users' processes"),
];

/// Numbers of `enum bpf_cmd`.
const BPF_MAP_CREATE: libc::c_long = 0;
/// No command has this number: the kernel says `EINVAL` to whoever may ask it at all.
const BPF_NO_COMMAND: libc::c_long = 9999;

/// The effective capabilities of this process, a bit each.
pub(super) fn effective() -> u64 {
    status("CapEff:").and_then(|bits| u64::from_str_radix(&bits, 16).ok()).unwrap_or(0)
}

/// Whether a capability is in `effective`.
pub(super) const fn has(effective: u64, capability: u32) -> bool {
    effective & (1 << capability) != 0
}

/// Whether they are enough to load programs and to hook them in.
const fn are_enough(effective: u64) -> bool {
    has(effective, CAP_SYS_ADMIN) || (has(effective, CAP_BPF) && has(effective, CAP_PERFMON))
}

/// A line of `/proc/self/status`.
fn status(key: &str) -> Option<String> {
    let status = read("/proc/self/status")?;
    status.lines().find_map(|line| line.strip_prefix(key).map(|value| value.trim().to_owned()))
}

pub(super) fn capabilities() -> Finding {
    let effective = effective();
    let (mut held, mut missing) = (Vec::new(), Vec::new());
    for (name, capability, purpose) in CAPABILITIES {
        if has(effective, capability) {
            held.push(name);
        } else {
            missing.push(format!("{name} ({purpose})"));
        }
    }
    let mut found = if held.is_empty() { "no capability for BPF".to_owned() } else { held.join(", ") };
    if !missing.is_empty() {
        found.push_str("; missing: ");
        found.push_str(&missing.join(", "));
    }
    if are_enough(effective) {
        finding("privileges", Level::Ok, found, "")
    } else {
        finding(
            "privileges",
            Level::Error,
            found,
            "run as root (sudo observer doctor), or with CAP_BPF and CAP_PERFMON; in a container --privileged, or \
             --cap-add for each of them",
        )
    }
}

/// How one system call was received: whether it got past what filters system calls.
fn passes(answer: &io::Error, expected: i32) -> bool {
    answer.raw_os_error() == Some(expected)
}

fn ask_bpf() -> io::Error {
    let mut attributes = [0_u32; 32];
    // SAFETY: the attributes are valid and writable for the size given; no command has this number.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_NO_COMMAND, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    debug_assert!(result < 0, "there is no such command");
    io::Error::last_os_error()
}

fn ask_perf() -> io::Error {
    // SAFETY: the kernel refuses attributes at no address, before it does anything.
    let result =
        unsafe { libc::syscall(libc::SYS_perf_event_open, std::ptr::null::<u8>(), 0_i32, -1_i32, -1_i32, 0_u64) };
    debug_assert!(result < 0, "there are no attributes");
    io::Error::last_os_error()
}

/// Whether system calls are filtered, and those needed pass.
pub(super) fn seccomp() -> Finding {
    const SUBJECT: &str = "seccomp";
    let mode = match status("Seccomp:").as_deref() {
        Some("0") => "no filter",
        Some("1") => "strict mode",
        Some("2") => "a filter is in force",
        _ => "this kernel does not tell",
    };
    if !are_enough(effective()) {
        // The kernel itself may refuse then, and says the same.
        return finding(SUBJECT, Level::Ok, format!("{mode}; what passes is not tried without capabilities"), "");
    }
    let (bpf, perf) = (ask_bpf(), ask_perf());
    let perf = if passes(&perf, libc::EFAULT) {
        "perf_event_open() passes"
    } else {
        "perf_event_open() is refused, which the hooks below do without"
    };
    if passes(&bpf, libc::EINVAL) {
        return finding(SUBJECT, Level::Ok, format!("{mode}; bpf() passes, {perf}"), "");
    }
    let who = if mode == "no filter" { "a security module (see the kernel's log)" } else { "the filter" };
    finding(
        SUBJECT,
        Level::Error,
        format!("{mode}; bpf() is refused although this process has the capabilities ({bpf}): by {who}; {perf}"),
        "let bpf() pass: docker run --security-opt seccomp=PROFILE with bpf and perf_event_open in it, or \
         seccomp=unconfined; Kubernetes: seccompProfile",
    )
}

/// Makes the smallest of maps, and closes it.
fn make_map() -> io::Result<()> {
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    // `union bpf_attr` of this command: map_type, key_size, value_size, max_entries; the rest zero.
    let mut attributes = [0_u32; 32];
    attributes[..4].copy_from_slice(&[BPF_MAP_TYPE_ARRAY, 4, 4, 1]);
    // SAFETY: the attributes are valid for the size given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    let Ok(fd) = i32::try_from(fd) else { return Err(io::Error::last_os_error()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and ours alone.
    unsafe { libc::close(fd) };
    Ok(())
}

/// Whether BPF memory counts against the limit of locked memory: `None`, if no map can be made at all.
fn limit_counts(limit: libc::rlimit) -> Option<bool> {
    make_map().ok()?;
    let none = libc::rlimit { rlim_cur: 0, ..limit };
    // SAFETY: valid limits; the soft one is this process's to move, and is put back.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) != 0 {
            return None;
        }
        let made = make_map();
        libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit);
        Some(made.is_err())
    }
}

/// The limit of locked memory, and whether this kernel holds BPF's memory against it: tried with a map under a limit of 0.
pub(super) fn memory_lock() -> Finding {
    const SUBJECT: &str = "locked memory";
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid place for the answer.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    let unlimited = limit.rlim_cur == libc::RLIM_INFINITY;
    let shown = if unlimited { "no limit".to_owned() } else { format!("at most {} bytes", limit.rlim_cur) };
    match limit_counts(limit) {
        None => finding(SUBJECT, Level::Ok, format!("{shown}; whether it matters here cannot be tried"), ""),
        Some(false) => {
            let found = format!("{shown}, which does not matter: this kernel counts BPF's memory by cgroup");
            finding(SUBJECT, Level::Ok, found, "")
        }
        Some(true) if unlimited => finding(SUBJECT, Level::Ok, shown, ""),
        Some(true) => finding(
            SUBJECT,
            Level::Warning,
            format!("{shown}, and this kernel counts BPF's memory against it"),
            "raise it: ulimit -l unlimited, LimitMEMLOCK=infinity in a systemd unit, docker run --ulimit memlock=-1",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_admin_or_both_of_the_narrow_ones_are_enough() {
        let bits = |list: &[u32]| list.iter().fold(0, |bits, capability| bits | 1 << capability);
        assert!(are_enough(bits(&[CAP_SYS_ADMIN])) && are_enough(bits(&[CAP_BPF, CAP_PERFMON])));
        for few in [&[][..], &[CAP_BPF], &[CAP_PERFMON, CAP_SYS_PTRACE]] {
            assert!(!are_enough(bits(few)), "{few:?}");
        }
    }

    #[test]
    fn the_limit_is_left_as_it_was() {
        let limit = || {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: a valid place for the answer.
            unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
            (limit.rlim_cur, limit.rlim_max)
        };
        let before = limit();
        assert!(!memory_lock().found.is_empty());
        assert_eq!(limit(), before);
    }
}

//! System calls that are refused with EPERM: what the observer never does, so that whoever takes it over cannot either.
//! It is a list of refusals, not of permissions: what a GPU driver's library calls is not ours to know.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// What a thread may do that others may not.
pub(super) struct Allowed {
    /// Enter namespaces.
    pub(super) namespaces: bool,
    /// Turn BPF run statistics on.
    pub(super) statistics: bool,
    /// Open files to write to them.
    pub(super) writing: bool,
}

/// `fchmodat2`, since Linux 6.6: the same number everywhere.
const FCHMODAT2: i64 = 452;

/// Other processes, other programs, the system as a whole, and files' names and owners.
const REFUSED: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    // It opens files by what no folder's rights cover.
    libc::SYS_open_by_handle_at,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // It opens and writes files where no filter sees that.
    libc::SYS_io_uring_setup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_mknodat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
];

/// The same by calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const REFUSED_OLD: &[i64] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_mknod,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OLD: &[i64] = &[];

/// Commands of `bpf` that go on: reading and writing maps, attaching what is loaded, iterators. No program is loaded and
/// no map made any more. Numbers of `enum bpf_cmd`, which never change.
const BPF: &[u64] = &[
    1, 2, 3, 4,  // look up, update, delete, next key
    15, // information on what is open
    17, // attach to a raw or BTF tracepoint
    21, // look up and delete
    24, 25, 26, 27, // the same for many keys
    28, 29, 33, 34, // links: create, update, iterator, detach
];

/// `BPF_ENABLE_STATS`.
const STATISTICS: u64 = 32;

/// Calls that open a file, and which of their arguments has the flags. `openat2` has them in memory, where a filter cannot
/// look.
#[cfg(target_arch = "x86_64")]
const OPENING: &[(i64, u8)] = &[(libc::SYS_open, 1), (libc::SYS_openat, 2)];
#[cfg(not(target_arch = "x86_64"))]
const OPENING: &[(i64, u8)] = &[(libc::SYS_openat, 2)];

fn rules(allowed: &Allowed) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().chain(REFUSED_OLD).map(|call| (*call, Vec::new())).collect();
    let other = |command: &u64| SeccompCondition::new(0, Length::Dword, Compare::Ne, *command);
    let also = allowed.statistics.then_some(STATISTICS);
    let others = BPF.iter().chain(also.as_ref()).map(other).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_bpf, vec![SeccompRule::new(others)?]);
    if !allowed.namespaces {
        rules.insert(libc::SYS_setns, Vec::new());
    }
    if !allowed.writing {
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_creat, Vec::new());
        for (call, flags) in OPENING {
            let has = |(mask, value): (i32, i32)| {
                let (mask, value) = (u64::from(mask.unsigned_abs()), u64::from(value.unsigned_abs()));
                let condition = SeccompCondition::new(*flags, Length::Dword, Compare::MaskedEq(mask), value)?;
                SeccompRule::new(vec![condition])
            };
            let writes = [
                (libc::O_ACCMODE, libc::O_WRONLY),
                (libc::O_ACCMODE, libc::O_RDWR),
                (libc::O_CREAT, libc::O_CREAT),
                (libc::O_TRUNC, libc::O_TRUNC),
            ];
            rules.insert(*call, writes.into_iter().map(has).collect::<Result<_, _>>()?);
        }
    }
    Ok(rules)
}

fn program(allowed: &Allowed) -> Result<BpfProgram, BackendError> {
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules(allowed)?, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Refuses them to this thread and to those that it will start. The error says why there is no filter.
pub(super) fn apply(allowed: &Allowed) -> Result<(), String> {
    let program = program(allowed).map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}

//! The kernel's list of BPF programs, by the `bpf` system call.

use std::{collections::BTreeSet, io};

const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;

fn next(after: u32) -> io::Result<u32> {
    // `union bpf_attr` of this command: start_id, next_id, open_flags; the kernel takes any longer zeroed size.
    let mut attributes = [0_u32; 32];
    attributes[0] = after;
    // SAFETY: the attributes are valid and writable for the size given.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_GET_NEXT_ID, attributes.as_mut_ptr(), size_of_val(&attributes))
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(attributes[1]) }
}

/// Whether this process may use BPF at all.
///
/// # Errors
/// What the kernel said.
pub fn permitted() -> io::Result<()> {
    match next(0) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Ids of all programs loaded now; ids are not reused soon, so a difference of two sets tells what was added.
///
/// # Panics
/// If the kernel refuses.
#[must_use]
pub fn programs() -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut id = 0;
    loop {
        match next(id) {
            Ok(found) => id = found,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return ids,
            Err(error) => panic!("listing BPF programs: {error}"),
        }
        ids.insert(id);
    }
}

/// Ids of the programs that a process holds, from its file descriptors and its links.
#[must_use]
pub fn held_by(pid: u32) -> BTreeSet<u32> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return BTreeSet::new() };
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .flat_map(|text| {
            let ids = text.lines().filter_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
            ids.collect::<Vec<u32>>()
        })
        .collect()
}

//! The kernel's lists of BPF objects, by the `bpf` system call.

use std::{collections::BTreeSet, io};

const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
const BPF_MAP_GET_NEXT_ID: libc::c_long = 12;
const BPF_LINK_GET_NEXT_ID: libc::c_long = 31;

fn next(command: libc::c_long, after: u32) -> io::Result<u32> {
    // `union bpf_attr` of these commands: start_id, next_id, open_flags; the kernel takes any longer zeroed size.
    let mut attributes = [0_u32; 32];
    attributes[0] = after;
    // SAFETY: the attributes are valid and writable for the size given.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(&attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(attributes[1]) }
}

/// Whether this process may use BPF at all.
///
/// # Errors
/// What the kernel said.
pub fn permitted() -> io::Result<()> {
    match next(BPF_PROG_GET_NEXT_ID, 0) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

fn listed(command: libc::c_long) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let mut id = 0;
    loop {
        match next(command, id) {
            Ok(found) => id = found,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return ids,
            Err(error) => panic!("listing BPF objects: {error}"),
        }
        ids.insert(id);
    }
}

/// Ids of all programs loaded now; ids are not reused soon, so a difference of two sets tells what was added.
///
/// # Panics
/// If the kernel refuses.
#[must_use]
pub fn programs() -> BTreeSet<u32> {
    listed(BPF_PROG_GET_NEXT_ID)
}

/// Ids of the programs that a process holds, from its file descriptors and its links.
#[must_use]
pub fn held_by(pid: u32) -> BTreeSet<u32> {
    Objects::held_by(pid).programs
}

/// Ids of programs, links and maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// What attaches programs.
    pub links: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
}

impl Objects {
    /// All that there are now.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn all() -> Self {
        Self { programs: programs(), links: listed(BPF_LINK_GET_NEXT_ID), maps: listed(BPF_MAP_GET_NEXT_ID) }
    }

    /// Those that a process holds by its file descriptors, and programs by its links.
    #[must_use]
    pub fn held_by(pid: u32) -> Self {
        let mut held = Self::default();
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return held };
        for text in entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok()) {
            for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
                let ids = match key {
                    "prog_id" => &mut held.programs,
                    "link_id" => &mut held.links,
                    "map_id" => &mut held.maps,
                    _ => continue,
                };
                ids.extend(value.trim().parse::<u32>());
            }
        }
        held
    }

    /// Those of them that are there still.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn left(&self) -> Self {
        let all = Self::all();
        let both = |one: &BTreeSet<u32>, other| one.intersection(other).copied().collect();
        Self {
            programs: both(&self.programs, &all.programs),
            links: both(&self.links, &all.links),
            maps: both(&self.maps, &all.maps),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.links.is_empty() && self.maps.is_empty()
    }
}

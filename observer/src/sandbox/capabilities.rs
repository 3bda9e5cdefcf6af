//! Capabilities of threads.

use std::{fmt, thread};

use caps::CapSet;
pub use caps::Capability;

/// Some capabilities, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(Vec<Capability>);

impl Held {
    fn of(set: impl IntoIterator<Item = Capability>) -> Self {
        let mut all: Vec<_> = set.into_iter().collect();
        all.sort_by_key(Capability::index);
        Self(all)
    }

    /// Whether it is among them.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let names: Vec<_> = self.0.iter().map(|one| one.to_string().trim_start_matches("CAP_").to_owned()).collect();
        f.write_str(&names.join(" "))
    }
}

/// What this thread may use.
#[must_use]
pub fn held() -> Held {
    Held::of(caps::read(None, CapSet::Permitted).unwrap_or_default())
}

/// From here on no program that is started has more privileges than this thread.
pub(super) fn no_new_privileges() -> Result<(), String> {
    // SAFETY: no pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().to_string()) }
}

/// Lets this thread keep these, of those that it has, and nothing else. What it kept, and what not.
pub(super) fn keep(wanted: &[Capability]) -> Result<(Held, Held), String> {
    let before = caps::read(None, CapSet::Permitted).map_err(|error| error.to_string())?;
    let kept: caps::CapsHashSet = before.iter().copied().filter(|one| wanted.contains(one)).collect();
    let dropped = Held::of(before.difference(&kept).copied());
    // What could be had back by starting a program; only with SETPCAP this can be given up, and without new privileges it
    // is of no use in any case.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        for capability in caps::all() {
            if !kept.contains(&capability) {
                // This kernel may not know it.
                let _unknown = caps::drop(None, CapSet::Bounding, capability);
            }
        }
    }
    // Older kernels than any that the observer runs on have no ambient ones.
    let _none = caps::clear(None, CapSet::Ambient);
    let empty = caps::CapsHashSet::new();
    for (set, value) in [(CapSet::Inheritable, &empty), (CapSet::Effective, &kept), (CapSet::Permitted, &kept)] {
        caps::set(None, set, value).map_err(|error| error.to_string())?;
    }
    Ok((Held::of(kept), dropped))
}

/// The first of `candidates` with which, and with `always`, `trial` succeeds; each is tried in a thread that has nothing
/// more. `None`: with none of them.
///
/// A version says little about what a kernel asks for: it may be set up, patched or confined to ask for more.
pub fn least<'a>(
    always: &[Capability],
    candidates: &[&'a [Capability]],
    mut trial: impl FnMut() -> bool + Send,
) -> Option<&'a [Capability]> {
    candidates.iter().copied().find(|candidate| {
        let keep_these: Vec<_> = always.iter().chain(*candidate).copied().collect();
        let trial = &mut trial;
        thread::scope(|scope| scope.spawn(move || keep(&keep_these).is_ok() && trial()).join().unwrap_or(false))
    })
}

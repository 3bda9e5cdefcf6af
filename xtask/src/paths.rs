//! Where things lie.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Root of the repository.
pub(crate) fn root() -> PathBuf {
    // cargo sets it for `cargo xtask`; the compiled-in one serves a binary that is run by hand.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = PathBuf::from(manifest);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_owned)
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |target| root().join(target))
}

/// The compiled kernel side.
pub(crate) fn bpf_object() -> PathBuf {
    target().join("bpf/observer.o")
}

/// The crate of the kernel side.
pub(crate) fn ebpf_crate() -> PathBuf {
    root().join("observer-ebpf")
}

/// A binary of the workspace, as built for release.
pub(crate) fn release(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// The tests' Python environment.
pub(crate) fn venv() -> PathBuf {
    target().join("venv")
}

/// Programs that `setup` unpacked rather than installed.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// Where a program lies in `PATH`, or where only root or cargo look.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let more = [cargo_home.map(|home| home.join("bin")), Some("/usr/sbin".into()), Some("/sbin".into())];
    env::split_paths(&path)
        .chain(more.into_iter().flatten())
        .chain([tools().join("bin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

//! Puts the BPF object where the loader embeds it from. `cargo xtask build-ebpf` makes the object; without it the
//! crate still builds, checks and runs its unit tests, and `observer run` says what is missing.

use std::{env, fs, path::PathBuf};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let object =
        env::var_os("OBSERVER_BPF_OBJECT").map_or_else(|| manifest.join("../target/bpf/observer.o"), PathBuf::from);
    let target = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("observer.o");
    println!("cargo::rerun-if-env-changed=OBSERVER_BPF_OBJECT");
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).unwrap_or_default();
    fs::write(&target, bytes).unwrap_or_else(|error| panic!("cannot write {}: {error}", target.display()));
}

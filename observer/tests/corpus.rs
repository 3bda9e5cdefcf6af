//! Replays the committed inputs of each fuzz target: seeds, and what fuzzing once found. `cargo xtask fuzz` looks for
//! more.

use std::{fs, path::Path};

// So that targets find here what they find in the fuzz crate.
extern crate self as observer_fuzz;
#[path = "../../tests/fuzz/src/memory.rs"]
pub mod memory;
#[path = "../../tests/fuzz/src/records.rs"]
pub mod records;
#[path = "../../tests/fuzz/src/stream.rs"]
pub mod stream;
#[path = "../../tests/fuzz/src/traffic.rs"]
pub mod traffic;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// A target, and the test that replays its inputs.
macro_rules! target {
    ($name:ident, $path:literal) => {
        #[path = $path]
        mod $name;
        #[test]
        fn $name() {
            replay(stringify!($name), $name::target);
        }
    };
}

target!(http1, "../../tests/fuzz/src/bin/http1.rs");
target!(json, "../../tests/fuzz/src/bin/json.rs");
target!(sse, "../../tests/fuzz/src/bin/sse.rs");
target!(tracker, "../../tests/fuzz/src/bin/tracker.rs");

fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).expect("a target has a folder of inputs");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("folder").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no inputs", folder.display());
    for file in files {
        let input = fs::read(&file).expect("an input can be read");
        // Shown where the target fails.
        println!("{}", file.display());
        target(&input);
        // What a mutation does first.
        for end in 0..input.len().min(1 << 10) {
            target(&input[..end]);
        }
    }
}

/// Each file of a target is replayed here.
#[test]
fn every_target_is_replayed() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
    let here = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus.rs")).unwrap();
    for entry in fs::read_dir(crate_folder.join("src/bin")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(here.contains(&format!("src/bin/{name}\");")), "{name} is not replayed in {}", file!());
    }
}

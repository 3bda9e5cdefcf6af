//! Replays the committed inputs of each fuzz target: seeds, and what fuzzing once found. `cargo xtask fuzz` looks for
//! more. The targets that check the tracker get random inputs here, too.

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*, sample::select};

// So that targets find here what they find in the fuzz crate.
extern crate self as observer_fuzz;
#[path = "../../tests/fuzz/src/api.rs"]
pub mod api;
#[path = "../../tests/fuzz/src/conversation.rs"]
pub mod conversation;
#[path = "../../tests/fuzz/src/events.rs"]
pub mod events;
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
target!(loss, "../../tests/fuzz/src/bin/loss.rs");
target!(ndjson, "../../tests/fuzz/src/bin/ndjson.rs");
target!(recording, "../../tests/fuzz/src/bin/recording.rs");
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// See [`loss::target`] for what that means, exactly.
    #[test]
    fn never_a_latency_from_an_incomplete_timeline(
        end in 0..6_u8, late in 0..8_u8, conversation in vec(any::<u8>(), 1..60),
        fates in vec((any::<u8>(), 0..8_u8, any::<u8>()), 1..8),
    ) {
        let fates = fates.into_iter().flat_map(|(call, fate, operand)| [call, fate, operand]);
        loss::target(&[end, late].into_iter().chain(conversation).chain(fates).collect::<Vec<_>>());
    }

    /// Any events in any order: nothing panics, memory is bounded, records are sound. See [`tracker::target`].
    #[test]
    fn any_events_are_survived(
        operations in vec((select(tracker::LETTERS), vec(b'0'..b'p', 0..4)), 1..150),
    ) {
        let bytes = operations.into_iter().flat_map(|(letter, operands)| std::iter::once(letter).chain(operands));
        tracker::target(&bytes.collect::<Vec<_>>());
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

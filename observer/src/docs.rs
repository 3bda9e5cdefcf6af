//! Generated documents are compared with what the code would generate.

/// Compares `docs/NAME` with `text`, or writes it if `UPDATE_DOCS` is set.
pub(crate) fn assert_current(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/{name} is out of date: run `UPDATE_DOCS=1 cargo test -p observer docs`");
}

//! What is told in the end: a line for each check.

/// Counts of what was told.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: usize,
    failed: usize,
    left_out: usize,
}

impl Report {
    pub(crate) fn check(&mut self, passes: bool, text: &str) {
        println!("{}  {text}", if passes { "pass" } else { "FAIL" });
        self.passed += usize::from(passes);
        self.failed += usize::from(!passes);
    }

    /// What cannot be checked here, and why.
    pub(crate) fn left_out(&mut self, text: &str) {
        println!("left out  {text}");
        self.left_out += 1;
    }

    /// More about the line before.
    pub(crate) fn note(&self, text: &str) {
        println!("      {text}");
    }

    /// Whether all passed, said in a last line.
    pub(crate) fn end(self) -> bool {
        let Self { passed, failed, left_out } = self;
        let word = if failed == 0 { "passed" } else { "FAILED" };
        println!("gpu-check {word}: {passed} passed, {failed} failed, {left_out} left out");
        failed == 0
    }
}

//! What one machine runs, as its first program reads it.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    VmArgs,
    checks::{Check, demanded},
    machine::Machine,
};
use crate::paths;

/// A test program that takes longer is killed: emulated, each takes some seconds.
const LIMIT_S: u64 = 240;

/// Programs, one after another.
#[derive(Debug)]
pub(super) struct Plan {
    environment: BTreeMap<String, String>,
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Plan {
    /// `programs`: the program of each file of tests.
    pub(super) fn new(
        machine: &Machine,
        checks: &[Check<'_>],
        programs: &[(String, PathBuf)],
        args: &VmArgs,
    ) -> Result<Self> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut environment = BTreeMap::from([("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())]);
        // To the observer itself these would be unknown settings.
        if args.observer.is_empty() {
            let settings = [
                // What is not there was left out of the machine by mistake.
                ("OBSERVER_REQUIRE", demanded(machine).join(",")),
                // Emulated processors are some ten times as slow.
                ("OBSERVER_PATIENCE", "12".to_owned()),
                // Nobody else has this clock.
                ("OBSERVER_OWN_CLOCK", "1".to_owned()),
                ("OBSERVER_BIN", text(paths::release("observer"))),
                ("SAMPLE_LLM_BIN", text(paths::release("sample-llm"))),
                ("OBSERVER_VENV", text(paths::venv())),
            ];
            environment.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        }
        for setting in &args.environment {
            let (name, value) = setting.split_once('=').with_context(|| format!("--env {setting}: NAME=VALUE"))?;
            environment.insert(name.to_owned(), value.to_owned());
        }
        let run = |check: &Check<'_>| {
            let program = programs.iter().find(|(file, _)| file == check.file);
            let (_, program) =
                program.with_context(|| format!("{machine}: there is no tests/e2e/tests/{}", check.file))?;
            let mut arguments = vec!["--test-threads=1".to_owned()];
            arguments.extend(args.show_output.then(|| "--show-output".to_owned()));
            arguments.extend(check.only.iter().map(|name| (*name).to_owned()).chain(args.filter.clone()));
            Ok(Run { name: check.file.to_owned(), program: program.clone(), arguments })
        };
        let mut runs = checks.iter().map(run).collect::<Result<Vec<_>>>()?;
        if !args.observer.is_empty() {
            let program = paths::release("observer");
            runs.push(Run { name: "observer".to_owned(), program, arguments: args.observer.clone() });
        }
        Ok(Self { environment, runs })
    }

    /// The programs to be in the machine.
    pub(super) fn programs(&self) -> impl Iterator<Item = &PathBuf> {
        self.runs.iter().map(|run| &run.program)
    }

    /// How many programs run.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn json(&self) -> Value {
        let runs = self.runs.iter().map(
            |run| json!({"name": run.name, "program": run.program, "arguments": run.arguments, "limit_s": LIMIT_S}),
        );
        json!({"environment": self.environment, "runs": runs.collect::<Vec<_>>()})
    }
}

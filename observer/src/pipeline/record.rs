//! `observer record`: what `run` does, with everything that the tracker is told written to a file.

use std::{
    cell::Cell,
    fs::{self, File},
    io,
    path::PathBuf,
    sync::mpsc::Receiver,
    time::{Duration, SystemTime},
};

use super::RunError;
use crate::{
    config::Config,
    export::jsonl::WallClock,
    kernel::clock,
    recording::{End, Header, RecordError, RecordOptions, Recorder, Summary},
};

/// What to record to.
#[derive(Clone, Debug)]
pub struct RecordingOptions {
    /// The file.
    pub path: PathBuf,
    /// Overwrite a file that exists.
    pub force: bool,
    /// Keep the captured bytes as they are.
    pub payload: bool,
    /// Largest size, bytes.
    pub max_bytes: u64,
}

/// A recording whose file is open.
pub(super) struct Recording {
    options: RecordOptions,
    path: PathBuf,
    file: File,
    /// The file holds nothing of ours, nor of anybody else's.
    empty: Cell<bool>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Observing did not begin: the next attempt finds no file in its way.
        if self.empty.get() {
            drop(fs::remove_file(&self.path));
        }
    }
}

impl Recording {
    pub(super) fn open(options: RecordingOptions, config: &Config) -> Result<Self, RecordError> {
        let RecordingOptions { path, force, payload, max_bytes } = options;
        let file = Recorder::create(&path, force)?;
        if payload {
            tracing::warn!(
                "{} will contain the text of prompts and answers, and whatever else is sent: mind who reads it",
                path.display()
            );
        }
        let kernel = clock::now();
        let wall = clock::wall_time(kernel).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let header = Header {
            payload,
            kernel,
            wall: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok(Self {
            options: RecordOptions { header, max_bytes, kept_fields: kept_fields(config) },
            path,
            file,
            empty: Cell::new(!force),
        })
    }

    /// The wall clock as whoever replays the recording will know it.
    pub(super) fn clock(&self) -> WallClock {
        wall_clock(self.options.header.clone())
    }

    pub(super) fn start(&self) -> Result<Recorder, RecordError> {
        let file = self.file.try_clone().map_err(RecordError::Write)?;
        self.empty.set(false);
        Recorder::start(file, self.options.clone())
    }

    /// Says in one line what became of it.
    pub(super) fn tell(self, became: &Receiver<Result<Summary, RecordError>>) -> Result<(), RunError> {
        let gone = || RecordError::Write(io::Error::other("the thread that feeds it ended"));
        let Summary { trailer, bytes } = became.try_recv().map_err(|_| gone())??;
        let path = self.path.display();
        let limit = if trailer.end == End::Limit { "; it reached its largest size (--max-bytes)" } else { "" };
        tracing::info!(
            "recorded {} events in {bytes} bytes to {path}; lost {}, blanked as a whole {} calls of {} bytes{limit}",
            trailer.events,
            trailer.lost,
            trailer.unplaced,
            trailer.unplaced_bytes,
        );
        Ok(())
    }
}

/// The wall clock by a recording's one mark.
pub(super) fn wall_clock(header: Header) -> WallClock {
    Box::new(move |time| SystemTime::UNIX_EPOCH + Duration::from_nanos(header.wall_time(time)))
}

/// Request fields that the settings make labels of: without their values a replay has other labels. Those that are to
/// be hashed are nobody's business, and are blanked like all others.
fn kept_fields(config: &Config) -> Vec<String> {
    config.metrics.header_labels.iter().filter(|label| !label.hash).map(|label| label.header.clone()).collect()
}

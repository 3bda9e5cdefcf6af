//! `observer replay`: the pipeline from a recording. No kernel, no privileges, no thread but this one.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use thiserror::Error;

use super::{
    drain::Given,
    output::{Output, tracker_config},
    record::wall_clock,
};
use crate::{
    config::{Config, ConfigError},
    event::{Direction, Event, OpaqueReason},
    export::{
        jsonl::{self, WallClock},
        openmetrics::{self, Format},
        report,
    },
    metrics::{
        Metrics,
        families::{Family, own},
    },
    recording::{End, Item, ReadError, Reader},
    request::{
        labels::HeaderLabels,
        record::{ConnectionInfo, RequestRecord},
        tracker::{EventNames, Sink, Tracker},
    },
    time::KernelTime,
};

/// How requests are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReportFormat {
    /// For people.
    #[default]
    Table,
    /// One object per line, as in the request log.
    Json,
    /// With a line of names.
    Csv,
}

/// What `observer replay` was told.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The recording; `-` is standard input.
    pub path: PathBuf,
    /// Settings in effect: those that results depend on.
    pub config: Config,
    /// How requests are printed.
    pub format: ReportFormat,
    /// Where the families go; `-` is standard output, in place of the requests.
    pub metrics: Option<PathBuf>,
}

/// Why a recording was not replayed, or not to its end.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// It cannot be opened.
    #[error("cannot open the recording {path}: {error}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A setting cannot be put in force.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It cannot be read, or not further.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: ReadError,
    },
    /// The metrics cannot be written.
    #[error("cannot write the metrics to {path}: {error}")]
    Metrics {
        /// Where to.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The requests cannot be printed.
    #[error("cannot print the requests: {0}")]
    Print(io::Error),
}

/// What is said of a replay once it is over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Requests printed.
    pub requests: u64,
    /// Events read.
    pub events: u64,
    /// Remarks for whoever asked.
    pub remarks: Vec<String>,
}

/// Families that only the running observer knows: they have no sample in a replay.
fn is_of_requests(name: &str) -> bool {
    static FED: [&Family; 9] = [
        &own::INCOMPLETE,
        &own::JOINED_MID_REQUEST,
        &own::OTHER_REQUESTS,
        &own::OPAQUE,
        &own::STREAM_GAP,
        &own::UNCAPTURED,
        &own::UNPARSED,
        &own::UNSENT,
        &own::SERIES_DROPPED,
    ];
    !name.starts_with("observer_") || FED.iter().any(|family| family.name == name)
}

/// Replays a recording: prints its requests to `out`, as they end, and writes its metrics. A damaged one is replayed
/// up to the damage, with all that follows from that.
///
/// # Errors
/// What is wrong with the recording, after all before it was printed; or that nothing can be written.
pub fn replay(options: &ReplayOptions, out: &mut dyn Write) -> Result<Replayed, ReplayError> {
    let path = || options.path.clone();
    let input: Box<dyn Read> = match is_standard(&options.path) {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(&options.path).map_err(|error| ReplayError::Open { path: path(), error })?),
    };
    let read = |error| ReplayError::Read { path: path(), error };
    let mut reader = Reader::new(BufReader::with_capacity(1 << 16, input)).map_err(read)?;

    let config = &options.config;
    let labels = HeaderLabels::new(&config.metrics.header_labels, config.metrics.hash_key()?.as_deref());
    let metrics = Metrics::new(&config.metrics, &config.slo.objectives);
    // The metrics take the place of the requests where both would go to one stream.
    let silent = options.metrics.as_deref().is_some_and(is_standard);
    let mut sink = Printing {
        output: Output::new(&metrics, None, KernelTime::default()),
        out: BufWriter::new(&mut *out),
        format: options.format,
        chunks: config.request_log.chunks,
        clock: wall_clock(reader.header().clone()),
        silent,
        requests: 0,
        failed: None,
    };
    sink.begin();
    let mut tracker = Tracker::new(tracker_config(config, labels, config.request_log.chunks));
    let (mut now, mut events, mut lost) = (KernelTime::default(), 0, 0);
    let damage = loop {
        let item = match reader.next() {
            Ok(Some(item)) => item,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        match item {
            Item::Event(event, names) => {
                events += 1;
                match names {
                    Some(names) => tracker.event(&event, &mut Given(names.into()), &mut sink),
                    None => tracker.event(&event, &mut EventNames, &mut sink),
                }
                if let Event::Data(data) = event {
                    now = now.max(data.time);
                }
            }
            Item::Tick(time) => {
                (now, sink.output.now) = (now.max(time), time);
                tracker.tick(time, &mut sink);
            }
            Item::Ended(cookie) => tracker.ended(cookie, &mut sink),
            Item::Lost(count) => lost += count,
            Item::Unknown(_) => {}
        }
        if sink.failed.is_some() {
            break None;
        }
    };
    tracker.finish(now, &mut sink);
    let requests = sink.requests;
    let flushed = sink.out.flush();
    match sink.failed.take().map_or(flushed, Err) {
        // Who reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(Replayed { requests, events, remarks: Vec::new() });
        }
        result => result.map_err(ReplayError::Print)?,
    }
    drop(sink);
    if let Some(path) = &options.metrics {
        let mut families = metrics.gather();
        families.retain(|family| is_of_requests(family.name()));
        let text = openmetrics::encode(&families, Format::Text);
        let written = match is_standard(path) {
            true => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
            false => std::fs::write(path, text),
        };
        written.map_err(|error| ReplayError::Metrics { path: path.clone(), error })?;
    }
    match damage {
        Some(error) => Err(read(error)),
        None => Ok(Replayed { requests, events, remarks: remarks(&reader, lost) }),
    }
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn remarks<R: Read>(reader: &Reader<R>, lost: u64) -> Vec<String> {
    let trailer = reader.trailer();
    let unplaced = trailer.map_or(0, |trailer| trailer.unplaced);
    let mut remarks = Vec::new();
    if lost > 0 {
        remarks.push(format!("{lost} events are missing: the recorder could not keep up"));
    }
    if unplaced > 0 {
        remarks.push(format!(
            "the payload of {unplaced} calls was blanked as a whole, because what it was could not be told: requests \
             on their connections may look different from what the recording observer saw"
        ));
    }
    if trailer.is_some_and(|trailer| trailer.end == End::Limit) {
        remarks.push("the recording ends where it reached its largest size".to_owned());
    }
    if reader.unknown() > 0 {
        remarks.push(format!(
            "{} items are of kinds that this observer does not know: observer {} recorded them",
            reader.unknown(),
            reader.header().version
        ));
    }
    remarks
}

/// Prints each request, and hands everything on.
struct Printing<W: Write> {
    output: Output,
    out: W,
    format: ReportFormat,
    chunks: bool,
    clock: WallClock,
    silent: bool,
    requests: u64,
    failed: Option<io::Error>,
}

impl<W: Write> Printing<W> {
    fn begin(&mut self) {
        match self.format {
            ReportFormat::Table => self.print(report::table_head()),
            ReportFormat::Json => {}
            ReportFormat::Csv => self.print(report::csv_head()),
        }
    }

    fn print(&mut self, line: &str) {
        if self.silent || self.failed.is_some() {
            return;
        }
        if let Err(error) = self.out.write_all(line.as_bytes()).and_then(|()| self.out.write_all(b"\n")) {
            self.failed = Some(error);
        }
    }
}

impl<W: Write> Sink for Printing<W> {
    fn request(&mut self, record: RequestRecord) {
        self.requests += 1;
        let clock: &dyn Fn(KernelTime) -> SystemTime = &*self.clock;
        let line = match self.format {
            ReportFormat::Table => report::table_line(&record, clock),
            ReportFormat::Json => jsonl::line(&record, self.chunks, clock),
            ReportFormat::Csv => report::csv_line(&record, clock),
        };
        self.print(&line);
        self.output.request(record);
    }

    fn other_request(&mut self, connection: &ConnectionInfo) {
        self.output.other_request(connection);
    }

    fn opaque(&mut self, connection: &ConnectionInfo, reason: OpaqueReason) {
        self.output.opaque(connection, reason);
    }

    fn joined_mid_request(&mut self, connection: &ConnectionInfo) {
        self.output.joined_mid_request(connection);
    }

    fn gap(&mut self, direction: Direction, bytes: u64) {
        self.output.gap(direction, bytes);
    }

    fn uncaptured(&mut self, direction: Direction, bytes: u64) {
        self.output.uncaptured(direction, bytes);
    }

    fn unparsed(&mut self, direction: Direction, bytes: u64) {
        self.output.unparsed(direction, bytes);
    }
}

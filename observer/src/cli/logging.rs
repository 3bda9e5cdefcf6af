//! The observer's own log: standard error, so that standard output stays free for the request log.

use std::io::{IsTerminal as _, stderr};

use thiserror::Error;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, fmt, fmt::MakeWriter, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};

use crate::config::{LogConfig, LogFormat};

/// Why the log could not be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// The level is neither a level nor directives.
    #[error("cannot use log level `{level}`: {error}; use error, warn, info, debug or trace")]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        error: String,
    },
    /// Something in this process already set a log up.
    #[error("cannot set up the log: {0}")]
    Installed(String),
}

/// Sets this process's log up.
///
/// # Errors
/// If the level cannot be used, or a log is set up already.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    // https://no-color.org: any value that is not empty.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    subscriber(config, stderr().is_terminal() && !plain, stderr)?
        .try_init()
        .map_err(|error| LogError::Installed(error.to_string()))
}

fn subscriber<W>(config: &LogConfig, colours: bool, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&config.level)
        .map_err(|error| LogError::Level { level: config.level.clone(), error: error.to_string() })?;
    Ok(match config.format {
        LogFormat::Text => Box::new(
            registry().with(filter).with(fmt::layer().with_ansi(colours).with_target(false).with_writer(writer)),
        ),
        LogFormat::Json => {
            Box::new(registry().with(filter).with(fmt::layer().json().flatten_event(true).with_writer(writer)))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(config: &LogConfig, colours: bool) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(config, colours, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(port = 8000, "hello");
            tracing::debug!("hidden");
        });
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_has_colours_only_where_asked() {
        let config = LogConfig::default();
        let plain = lines(&config, false);
        assert!(plain.contains("INFO hello port=8000") && !plain.contains("hidden"), "{plain}");
        assert!(!plain.contains('\u{1b}') && lines(&config, true).contains('\u{1b}'));
    }

    #[test]
    fn json_is_one_object_per_line() {
        let text = lines(&LogConfig { format: LogFormat::Json, ..LogConfig::default() }, true);
        let value: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((value["message"].as_str(), value["port"].as_u64()), (Some("hello"), Some(8000)));
    }

    #[test]
    fn a_bad_level_is_named() {
        let config = LogConfig { level: "a=b=c".to_owned(), ..LogConfig::default() };
        let error = subscriber(&config, false, stderr).err().unwrap().to_string();
        assert!(error.contains("`a=b=c`"), "{error}");
    }
}

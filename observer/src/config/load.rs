//! Reads and checks settings.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind as FigmentKind,
    providers::Serialized,
    value::{Dict, Map, Value},
};
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::{
    Config, header_labels,
    settings::{CONFIG_VARIABLE, IGNORED_VARIABLES, SETTINGS, Setting, is_service_link, nearest},
};

/// Why settings cannot be used. The message says where they stand and what to do.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {error}; check --config and {CONFIG_VARIABLE}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}:{line}: not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// There is no such key or variable.
    #[error("{place}: unknown {what} `{name}`{}", suggestion(.nearest.as_deref()))]
    Unknown {
        /// File and line, or the environment.
        place: String,
        /// Key or variable.
        what: &'static str,
        /// Its name.
        name: String,
        /// The known name most like it.
        nearest: Option<String>,
    },
    /// A value cannot be used.
    #[error("{place}: {key}: {message}")]
    Invalid {
        /// Where the value came from.
        place: String,
        /// TOML key of the setting.
        key: String,
        /// What is wrong and what is right.
        message: String,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => "; `observer run --print-config` shows all of them".to_owned(),
    }
}

/// A setting given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// TOML key of the setting.
    pub key: &'static str,
    /// Its value, as text.
    pub value: String,
}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The environment: all of it, other programs' variables are skipped.
    pub environment: Vec<(OsString, OsString)>,
    /// Other flags.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// This process's environment, and what the command line gave.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        Self { file, environment: std::env::vars_os().collect(), flags }
    }
}

/// Settings, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    figment: Figment,
}

impl Loaded {
    /// Where the value of `key` came from: `default`, a file, `environment NAME` or `flag --name`.
    #[must_use]
    pub fn origin(&self, key: &str) -> String {
        origin(&self.figment, key)
    }
}

/// One source of values, named for messages.
struct Layer {
    name: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }
    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

struct Defaults(Serialized<Config>);

impl Provider for Defaults {
    fn metadata(&self) -> Metadata {
        Metadata::named("default")
    }
    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        self.0.data()
    }
}

/// Reads all sources, later ones winning: defaults, file, environment, flags.
///
/// # Errors
/// The first thing that is wrong.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut file = sources.file.clone();
    let mut variables = Vec::new();
    for (name, value) in &sources.environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with("OBSERVER_")) else { continue };
        let value = value.to_str().ok_or_else(|| ConfigError::Invalid {
            place: "environment".to_owned(),
            key: name.to_owned(),
            message: "is not valid UTF-8".to_owned(),
        })?;
        if name == CONFIG_VARIABLE {
            // An empty variable is what `VAR= command` and compose files leave for "not set".
            file = file.or_else(|| (!value.is_empty()).then(|| PathBuf::from(value)));
        } else if let Some(setting) = SETTINGS.iter().find(|setting| setting.env == name) {
            variables.push((setting, value));
        } else if !IGNORED_VARIABLES.contains(&name) && !is_service_link(name, value) {
            return Err(unknown_variable(name));
        }
    }
    let mut figment = Figment::from(Defaults(Serialized::defaults(Config::default())));
    if let Some(path) = &file {
        figment = figment.merge(read_file(path)?);
        // A broken value is an error even where a variable or a flag hides it.
        figment.extract::<Config>().map_err(|error| explain(&error))?;
    }
    for (setting, text) in variables {
        figment = figment.merge(layer(setting, text, format!("environment {}", setting.env))?);
    }
    for flag in &sources.flags {
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == flag.key) {
            figment = figment.merge(layer(setting, &flag.value, format!("flag {}", setting.flag))?);
        }
    }
    let config: Config = figment.extract().map_err(|error| explain(&error))?;
    check(&config).map_err(|(key, message)| ConfigError::Invalid {
        place: origin(&figment, key),
        key: key.to_owned(),
        message,
    })?;
    Ok(Loaded { config, figment })
}

fn origin(figment: &Figment, key: &str) -> String {
    figment.find_metadata(key).map_or_else(|| "default".to_owned(), |metadata| metadata.name.to_string())
}

fn layer(setting: &Setting, text: &str, name: String) -> Result<Layer, ConfigError> {
    let value = setting.parse(text).map_err(|message| ConfigError::Invalid {
        place: name.clone(),
        key: setting.key.to_owned(),
        message,
    })?;
    let mut parts = setting.key.rsplit('.');
    let leaf = parts.next().unwrap_or(setting.key);
    let values = parts.fold(Dict::from([(leaf.to_owned(), value)]), |inner, part| {
        Dict::from([(part.to_owned(), Value::from(inner))])
    });
    Ok(Layer { name, values })
}

fn unknown_variable(name: &str) -> ConfigError {
    // People also derive the name from the key.
    let derived: Vec<_> =
        SETTINGS.iter().map(|s| (format!("OBSERVER_{}", s.key.replace('.', "_").to_uppercase()), s.env)).collect();
    let nearest = derived.iter().find(|(derived, _)| derived == name).map(|(_, env)| *env).or_else(|| {
        // The common prefix makes all names alike: compare what follows it.
        let strip = |name: &'static str| name.strip_prefix("OBSERVER_").unwrap_or(name);
        let names = SETTINGS.iter().map(|setting| setting.env).chain([CONFIG_VARIABLE]);
        let found = nearest(name.strip_prefix("OBSERVER_").unwrap_or(name), names.clone().map(strip))?;
        names.into_iter().find(|name| strip(name) == found)
    });
    ConfigError::Unknown {
        place: "environment".to_owned(),
        what: "variable",
        name: name.to_owned(),
        nearest: nearest.map(str::to_owned),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| line_of(&text, span.start)),
        message: error.message().to_owned(),
    };
    let table = DeTable::parse(&text).map_err(syntax)?;
    known_keys(path, &text, "", table.get_ref())?;
    let values: Dict = toml::from_str(&text).map_err(syntax)?;
    Ok(Layer { name: format!("file {}", path.display()), values })
}

fn known_keys(path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        if SETTINGS.iter().any(|setting| setting.key == key) {
            continue;
        }
        let inner = format!("{key}.");
        let is_section = SETTINGS.iter().any(|setting| setting.key.starts_with(&inner));
        let place = format!("{}:{}", path.display(), line_of(text, name.span().start));
        match value.get_ref() {
            DeValue::Table(table) if is_section => known_keys(path, text, &inner, table)?,
            _ if is_section => {
                let message = format!("is a section: write [{key}] and its keys below it");
                return Err(ConfigError::Invalid { place, key, message });
            }
            _ => {
                let nearest = nearest(&key, candidates(prefix, matches!(value.get_ref(), DeValue::Table(_))));
                return Err(ConfigError::Unknown {
                    place,
                    what: "key",
                    nearest: nearest.map(str::to_owned),
                    name: key,
                });
            }
        }
    }
    Ok(())
}

/// Names that an unknown key could have meant: keys of its own section first of all, else any; for a table, sections.
fn candidates(prefix: &str, table: bool) -> Vec<&'static str> {
    if table {
        return SETTINGS
            .iter()
            .filter_map(|setting| setting.key.rsplit_once('.').map(|(section, _)| section))
            .collect();
    }
    let own: Vec<_> = SETTINGS.iter().map(|setting| setting.key).filter(|key| key.starts_with(prefix)).collect();
    if own.is_empty() { SETTINGS.iter().map(|setting| setting.key).collect() } else { own }
}

fn explain(error: &figment::Error) -> ConfigError {
    let message = match &error.kind {
        FigmentKind::Message(message) => message.clone(),
        FigmentKind::UnknownVariant(found, known) => format!("`{found}` is not one of {}", known.join(", ")),
        FigmentKind::InvalidType(found, expected) | FigmentKind::InvalidValue(found, expected) => {
            format!("found {found}, expected {expected}")
        }
        other => other.to_string(),
    };
    ConfigError::Invalid {
        place: error.metadata.as_ref().map_or_else(|| "configuration".to_owned(), |data| data.name.to_string()),
        key: error.path.join("."),
        message,
    }
}

/// What types cannot say. The error is the key and what is wrong with its value.
fn check(config: &Config) -> Result<(), (&'static str, String)> {
    let refuse = |key, message: &str| Err((key, message.to_owned()));
    if config.scope.ports.contains(&0) {
        return refuse("scope.ports", "0 is no port; leave the list empty to observe every port");
    }
    if config.scope.pids.contains(&0) {
        return refuse("scope.pids", "0 is no process; leave the list empty to observe all of them");
    }
    if let Some(path) = config.scope.cgroups.iter().find(|path| !path.is_absolute()) {
        let path = path.display();
        return Err((
            "scope.cgroups",
            format!(
                "`{path}` is not an absolute path; give the directory, as /sys/fs/cgroup/system.slice/vllm.service"
            ),
        ));
    }
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&config.log.level) {
        return Err(("log.level", format!("`{}`: {error}; use error, warn, info, debug or trace", config.log.level)));
    }
    if !(1..=1_048_576).contains(&config.request_log.queue) {
        return refuse("request_log.queue", "must be from 1 to 1048576");
    }
    if !(1..=10_000).contains(&config.metrics.max_models) {
        return refuse("metrics.max_models", "must be from 1 to 10000");
    }
    if config.metrics.series_ttl.as_secs() < 10 {
        return refuse("metrics.series_ttl", "must be at least 10s, longer than the time between two scrapes");
    }
    header_labels::check(&config.metrics.header_labels).map_err(|message| ("metrics.header_labels", message))?;
    let buckets = &config.metrics.buckets;
    for (key, bounds) in [
        ("metrics.buckets.ttft", &buckets.ttft),
        ("metrics.buckets.gap", &buckets.gap),
        ("metrics.buckets.duration", &buckets.duration),
        ("metrics.buckets.tokens", &buckets.tokens),
    ] {
        let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        let positive = bounds.iter().all(|bound| bound.is_finite() && *bound > 0.0);
        if bounds.is_empty() || bounds.len() > 200 || !ascending || !positive {
            return refuse(key, "must be 1 to 200 positive numbers in ascending order");
        }
    }
    let ring = config.kernel.ring_bytes;
    if !ring.is_power_of_two() || !(65_536..=1 << 30).contains(&ring) {
        return refuse("kernel.ring_bytes", "must be a power of two from 65536 (64 KiB) to 1073741824 (1 GiB)");
    }
    if !(1..=1000).contains(&config.kernel.drain_interval_ms) {
        return refuse("kernel.drain_interval_ms", "must be from 1 to 1000");
    }
    if !(config.kernel.wakeup_ratio > 0.0 && config.kernel.wakeup_ratio <= 1.0) {
        return refuse("kernel.wakeup_ratio", "must be above 0 and at most 1");
    }
    let governor = &config.governor;
    if !(0.0..=1024.0).contains(&governor.budget) {
        return refuse("governor.budget", "must be from 0 (no governor) to 1024 cores, such as 0.02");
    }
    if !(2..=3600).contains(&governor.interval.as_secs()) {
        return refuse("governor.interval", "must be from 2s to 1h");
    }
    if !(1..=86_400).contains(&governor.restore_after.as_secs()) {
        return refuse("governor.restore_after", "must be from 1s to 24h");
    }
    let gpu = &config.gpu;
    if !(200..=60_000).contains(&gpu.interval.as_millis()) {
        return refuse("gpu.interval", "must be from 200ms to 60s");
    }
    if gpu.slow_interval < gpu.interval || gpu.slow_interval.as_secs() > 600 {
        return refuse("gpu.slow_interval", "must be from gpu.interval to 10m");
    }
    for (index, objective) in config.slo.objectives.iter().enumerate() {
        if objective.name.is_empty() || config.slo.objectives[..index].iter().any(|other| other.name == objective.name)
        {
            return refuse("slo.objectives", "each needs a name of its own");
        }
        if !(objective.seconds.is_finite() && objective.seconds > 0.0) {
            return Err(("slo.objectives", format!("`{}`: seconds must be a positive number", objective.name)));
        }
    }
    Ok(())
}

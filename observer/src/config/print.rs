//! `--print-config` and `docs/configuration.md`, both made from the table of settings.

use std::{fmt::Write as _, path::PathBuf};

use serde::{Deserialize, Deserializer};

use super::{
    Config, Loaded,
    settings::{CONFIG_VARIABLE, SETTINGS},
};

/// An empty path means none: so a variable or flag can take back what a file says.
pub(super) fn path_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(Option::<PathBuf>::deserialize(deserializer)?.filter(|path| !path.as_os_str().is_empty()))
}

/// The value of `key` as TOML; what is not set is empty text.
fn value(table: &toml::Table, key: &str) -> String {
    let mut parts = key.split('.');
    let first = parts.next().and_then(|part| table.get(part));
    let found = parts.fold(first, |value, part| value?.get(part));
    found.map_or_else(|| "\"\"".to_owned(), toml::Value::to_string)
}

fn table(config: &Config) -> toml::Table {
    toml::Table::try_from(config).unwrap_or_default()
}

impl Loaded {
    /// The settings as a file that says of each what it is and where its value came from. Reading it back gives
    /// the same settings.
    #[must_use]
    pub fn print(&self) -> String {
        let table = table(&self.config);
        let mut text = String::new();
        let mut section = "";
        for setting in SETTINGS {
            let (of, leaf) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
            if of != section {
                section = of;
                let _ = writeln!(text, "\n[{section}]");
            }
            let _ = writeln!(text, "# {}", setting.help);
            let _ = writeln!(text, "# From: {}", self.origin(setting.key));
            let _ = writeln!(text, "{leaf} = {}", value(&table, setting.key));
        }
        text
    }
}

/// `docs/configuration.md`.
#[must_use]
pub fn document() -> String {
    let defaults = table(&Config::default());
    let mut text = format!(
        "# Configuration\n\n\
         <!-- Generated from the table of settings; `UPDATE_DOCS=1 cargo test -p observer docs` writes it anew. -->\n\n\
         Each setting has a default, a key in a TOML file (`--config FILE` or `{CONFIG_VARIABLE}`), an environment\n\
         variable and, where people type it, a flag of `observer run`. Later ones win: default, file, environment,\n\
         flag. Lists in variables and flags are comma-separated. A key or an `OBSERVER_*` variable that is not\n\
         known is an error, except for those that Kubernetes sets for a service named `observer`.\n\n\
         `observer run --print-config` prints the settings in effect and where each came from;\n\
         `observer run --check-config` only checks them.\n"
    );
    for setting in SETTINGS {
        let _ = write!(text, "\n## `{}`\n\n{}\n\n", setting.key, setting.help);
        let _ = writeln!(text, "- Default: `{}`", value(&defaults, setting.key));
        let _ = writeln!(text, "- Variable: `{}`", setting.env);
        if !setting.flag.is_empty() {
            let _ = writeln!(text, "- Flag: `{}`", setting.flag);
        }
    }
    text.push_str(
        "\n## Example\n\n```toml\nlisten = \"127.0.0.1:9478\"\n\n[scope]\nports = [8000, 8001]\n\n[request_log]\n\
         path = \"/var/log/observer/requests.jsonl\"\n\n[[slo.objectives]]\nname = \"interactive\"\nkind = \"ttft\"\n\
         seconds = 0.5\n\n[[metrics.header_labels]]\nheader = \"x-tenant\"\nlabel = \"tenant\"\nmax_values = 16\nhash = \
         true\n```\n\nThe hash of `acme` without a key: `printf %s acme | sha256sum | cut -c 1-16`; with one: `printf %s acme |\n\
         openssl dgst -sha256 -hmac \"$(cat FILE)\" -r | cut -c 1-16`.\n",
    );
    text
}

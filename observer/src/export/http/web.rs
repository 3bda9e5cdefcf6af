//! TLS and users, from a file as Prometheus' exporters take it (`web.config.file` of the exporter toolkit), and the token
//! of `/api/…`, from another.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use serde::Deserialize;

use super::access::{Access, Token};
use crate::config::WebSettings;

/// Shortest token, bytes.
const TOKEN_MIN: usize = 16;
/// How often files are looked at for changes.
const LOOK: Duration = Duration::from_secs(2);

/// What the files say.
#[derive(Default)]
pub struct Web {
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// User to bcrypt hash.
    pub(super) users: BTreeMap<String, String>,
    pub(super) token: Option<Token>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// One cannot be read.
    #[error("cannot read {what} {path}: {error}; check the path and its permissions")]
    Read {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// One does not hold what it should.
    #[error("{path}: {reason}")]
    Invalid {
        /// Where.
        path: PathBuf,
        /// What is wrong, and what is right.
        reason: String,
    },
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    tls_server_config: Option<Tls>,
    basic_auth_users: BTreeMap<String, String>,
    http_server_config: Option<Http>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_ca_file: Option<PathBuf>,
    client_auth_type: Option<String>,
    min_version: Option<String>,
    max_version: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Http {
    /// Only HTTP/1.1 is spoken, whatever it says: other exporters read the same file.
    #[serde(rename = "http2")]
    _http2: Option<bool>,
}

fn invalid(path: &Path, reason: impl Into<String>) -> WebError {
    WebError::Invalid { path: path.to_owned(), reason: reason.into() }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, WebError> {
    fs::read(path).map_err(|error| WebError::Read { what, path: path.to_owned(), error })
}

impl Web {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// If a file is missing, or is not what it should be.
    pub fn load(settings: &WebSettings) -> Result<Self, WebError> {
        let mut web = Self::default();
        if let Some(path) = &settings.config_file {
            let file = parse(path)?;
            for (user, hash) in &file.basic_auth_users {
                if user.is_empty() || user.contains(':') {
                    return Err(invalid(
                        path,
                        format!("basic_auth_users: `{user}` can be no user: it is empty or has a colon"),
                    ));
                }
                if hash.parse::<bcrypt::HashParts>().is_err() {
                    let advice = "`htpasswd -nBC 10 USER` makes one";
                    return Err(invalid(
                        path,
                        format!("basic_auth_users: what {user} has is no bcrypt hash; {advice}"),
                    ));
                }
            }
            web.users = file.basic_auth_users;
            web.tls = file.tls_server_config.map(|tls| tls.load(path).map(Arc::new)).transpose()?;
        }
        if let Some(path) = &settings.token_file {
            let mut token = read("the token", path)?;
            token.truncate(token.trim_ascii_end().len());
            if token.len() < TOKEN_MIN || !token.iter().all(u8::is_ascii_graphic) {
                let advice = "`openssl rand -hex 32` makes one that does";
                return Err(invalid(
                    path,
                    format!("a token has {TOKEN_MIN} printable characters or more, and no space; {advice}"),
                ));
            }
            web.token = Some(Token::new(&token));
        }
        Ok(web)
    }

    /// The scheme of its URLs.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// The certificates that a server with these settings shows; none if it speaks no TLS.
///
/// # Errors
/// If a file cannot be used.
pub fn certificates(settings: &WebSettings) -> Result<Vec<CertificateDer<'static>>, WebError> {
    let Some(path) = &settings.config_file else { return Ok(Vec::new()) };
    match parse(path)?.tls_server_config {
        Some(Tls { cert_file: Some(file), .. }) => chain(&beside(path, &file)),
        _ => Ok(Vec::new()),
    }
}

fn parse(path: &Path) -> Result<File, WebError> {
    let text = read("the web configuration", path)?;
    let text = str::from_utf8(&text).map_err(|_| invalid(path, "is not text"))?;
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let known = "known are tls_server_config (cert_file, key_file, client_ca_file, client_auth_type, min_version, \
                     max_version), basic_auth_users and http_server_config (http2)";
        invalid(path, format!("{}; {known}", error.to_string().lines().next().unwrap_or_default()))
    })
}

/// A path in the file is relative to the folder of the file.
fn beside(config: &Path, path: &Path) -> PathBuf {
    config.parent().unwrap_or(Path::new("")).join(path)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, WebError> {
    let bytes = read("the certificate", path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| invalid(path, format!("is no certificate in PEM: {error}")))?;
    if chain.is_empty() { Err(invalid(path, "holds no certificate in PEM")) } else { Ok(chain) }
}

impl Tls {
    /// Files that it names, next to the file that it is in.
    fn files(&self, config: &Path) -> Vec<PathBuf> {
        [&self.cert_file, &self.key_file, &self.client_ca_file]
            .into_iter()
            .flatten()
            .map(|path| beside(config, path))
            .collect()
    }

    fn load(&self, config: &Path) -> Result<ServerConfig, WebError> {
        let (Some(certificate), Some(key)) = (&self.cert_file, &self.key_file) else {
            return Err(invalid(config, "tls_server_config needs cert_file and key_file"));
        };
        let (certificate, key_path) = (beside(config, certificate), beside(config, key));
        let chain = chain(&certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read("the key", &key_path)?)
            .map_err(|error| invalid(&key_path, format!("is no private key in PEM: {error}")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.versions(config)?)
            .map_err(|error| invalid(config, error.to_string()))?;
        let builder = match self.verifier(config, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder
            .with_single_cert(chain, key)
            .map_err(|error| invalid(&certificate, format!("does not go with {}: {error}", key_path.display())))?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(server)
    }

    fn versions(&self, config: &Path) -> Result<Vec<&'static SupportedProtocolVersion>, WebError> {
        let number = |text: &Option<String>, default| match text.as_deref() {
            None => Ok(default),
            Some("TLS12") => Ok(12),
            Some("TLS13") => Ok(13),
            Some(other) => Err(invalid(config, format!("{other}: only TLS12 and TLS13 are spoken"))),
        };
        let (least, most) = (number(&self.min_version, 12)?, number(&self.max_version, 13)?);
        let versions: Vec<_> = [(12, &TLS12), (13, &TLS13)]
            .into_iter()
            .filter(|(number, _)| (least..=most).contains(number))
            .map(|(_, version)| version)
            .collect();
        if versions.is_empty() { Err(invalid(config, "min_version is above max_version")) } else { Ok(versions) }
    }

    fn verifier(
        &self,
        config: &Path,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, WebError> {
        let required = match self.client_auth_type.as_deref() {
            None | Some("" | "NoClientCert") if self.client_ca_file.is_none() => return Ok(None),
            None | Some("" | "NoClientCert") => {
                return Err(invalid(config, "client_ca_file asks for client_auth_type: RequireAndVerifyClientCert"));
            }
            Some("RequireAndVerifyClientCert") => true,
            Some("VerifyClientCertIfGiven") => false,
            Some(other) => {
                let known = "NoClientCert, VerifyClientCertIfGiven and RequireAndVerifyClientCert are";
                return Err(invalid(config, format!("client_auth_type {other} is not supported; {known}")));
            }
        };
        let Some(authority) = &self.client_ca_file else {
            return Err(invalid(config, "client_auth_type asks for client_ca_file"));
        };
        let path = beside(config, authority);
        let mut roots = RootCertStore::empty();
        for certificate in chain(&path)? {
            roots.add(certificate).map_err(|error| invalid(&path, error.to_string()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        builder.build().map(Some).map_err(|error| invalid(&path, error.to_string()))
    }
}

/// When a file was changed, and which file it was: a link may lead elsewhere.
type State = Vec<Option<(SystemTime, u64)>>;

fn state(settings: &WebSettings) -> State {
    let config = settings.config_file.as_ref();
    let named = config.and_then(|path| Some(parse(path).ok()?.tls_server_config?.files(path))).unwrap_or_default();
    let files = config.into_iter().chain(&settings.token_file).cloned().chain(named);
    let of = |path: PathBuf| fs::metadata(path).ok().and_then(|data| Some((data.modified().ok()?, data.len())));
    files.map(of).collect()
}

/// Puts in force what changes in the files. What cannot be used is told, and what was in force stays.
pub async fn follow(settings: WebSettings, access: Arc<Access>) {
    if settings == WebSettings::default() {
        return;
    }
    let settings = Arc::new(settings);
    let mut before = None;
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        let (settings, known) = (settings.clone(), before.clone());
        let look = move || {
            let now = state(&settings);
            let changed = known.is_some_and(|known| known != now);
            (now, changed.then(|| Web::load(&settings)))
        };
        let Ok((now, loaded)) = tokio::task::spawn_blocking(look).await else { return };
        before = Some(now);
        match loaded {
            None => {}
            Some(Ok(web)) => {
                access.replace(web);
                tracing::info!("certificates, users and the token were read anew");
            }
            Some(Err(error)) => {
                tracing::error!("what was read before of certificates, users and the token stays in force: {error}");
            }
        }
    }
}

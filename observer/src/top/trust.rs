//! What a client shows of itself, and whom it believes.

use std::{
    fs, io,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

/// What was given for talking to an observer that wants TLS or credentials.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Certificates of authorities, in PEM; `None`: those that the system knows.
    pub ca_file: Option<PathBuf>,
    /// The one certificate to believe, in place of any authority: the observer's own.
    pub pinned: Vec<CertificateDer<'static>>,
    /// A file that holds `user:password`.
    pub user_file: Option<PathBuf>,
    /// A file that holds a token.
    pub token_file: Option<PathBuf>,
}

/// Why they are of no use.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// One cannot be read.
    #[error("cannot read {path}: {error}; check the path and its permissions")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// One does not hold what it should.
    #[error("{path}: {reason}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is nobody to believe.
    #[error("the system knows no certificate authority: name one by --ca-file")]
    NoAuthority,
}

/// The same, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// The field of the head.
    pub(super) authorization: Option<String>,
    tls: Option<Arc<ClientConfig>>,
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    fs::read(path).map_err(|error| CredentialsError::Read { path: path.to_owned(), error })
}

fn line(path: &Path) -> Result<String, CredentialsError> {
    let text = String::from_utf8(read(path)?).ok().map(|text| text.trim_end().to_owned());
    text.filter(|text| !text.is_empty() && !text.contains(['\r', '\n'])).ok_or_else(|| CredentialsError::Invalid {
        path: path.to_owned(),
        reason: "does not hold one line of text".to_owned(),
    })
}

impl Trust {
    /// Reads them; certificates only if it is TLS that is to be spoken.
    pub(crate) fn load(credentials: &Credentials, tls: bool) -> Result<Self, CredentialsError> {
        let authorization = match (&credentials.token_file, &credentials.user_file) {
            (_, Some(path)) => {
                let user = line(path)?;
                if !user.contains(':') {
                    let reason = "does not hold user:password".to_owned();
                    return Err(CredentialsError::Invalid { path: path.clone(), reason });
                }
                Some(format!("Basic {}", BASE64.encode(user)))
            }
            (Some(path), None) => Some(format!("Bearer {}", line(path)?)),
            (None, None) => None,
        };
        let tls = tls.then(|| client(credentials)).transpose()?.map(Arc::new);
        Ok(Self { authorization, tls })
    }

    /// TLS with that host on a connection; the handshake is part of what is sent first.
    pub(super) fn wrap(&self, host: &str, stream: TcpStream) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let no_config = || io::Error::other("no certificates were read");
        let config = self.tls.clone().ok_or_else(no_config)?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(StreamOwned::new(connection, stream))
    }
}

fn client(credentials: &Credentials) -> Result<ClientConfig, CredentialsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let internal = |error: rustls::Error| CredentialsError::Invalid { path: PathBuf::new(), reason: error.to_string() };
    let builder = builder.map_err(internal)?;
    let mut roots = RootCertStore::empty();
    let mut known = credentials.pinned.clone();
    match &credentials.ca_file {
        Some(path) => {
            let invalid = |reason: String| CredentialsError::Invalid { path: path.clone(), reason };
            for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
                let certificate = certificate.map_err(|error| invalid(format!("is no certificate in PEM: {error}")))?;
                roots.add(certificate.clone()).map_err(|error| invalid(error.to_string()))?;
                known.push(certificate);
            }
            if roots.is_empty() {
                return Err(invalid("holds no certificate in PEM".to_owned()));
            }
        }
        None if !known.is_empty() => {}
        None => {
            let _counts = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(CredentialsError::NoAuthority);
            }
        }
    }
    let authorities = (!roots.is_empty()).then(|| {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| internal(rustls::Error::General(error.to_string())))
    });
    let verifier = Verifier { known, authorities: authorities.transpose()?, provider };
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// Believes certificates that it knows, whatever their names: those made by hand often vouch for themselves, and who asks for
/// its own host's health has the certificate at hand. Others are believed by what authorities say.
#[derive(Debug)]
struct Verifier {
    known: Vec<CertificateDer<'static>>,
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.known.iter().any(|known| known == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.authorities {
            Some(authorities) => authorities.verify_server_cert(end_entity, intermediates, name, ocsp, now),
            None => Err(rustls::Error::General("it shows another certificate than the configured one".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

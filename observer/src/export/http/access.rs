//! Who may ask what.
//!
//! | route | without settings | with `basic_auth_users` | with a token |
//! |---|---|---|---|
//! | `/healthz`, `/readyz` | everybody | everybody | everybody |
//! | `/`, `/metrics`, `/openapi.json` | everybody | users | everybody, or users |
//! | `/api/…` | this host | users on this host | whoever has the token |

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::web::Web;

/// Passwords that were found to be right, of all users together.
const REMEMBERED: usize = 100;
/// Checks of passwords that may wait for their turn; more are turned away.
const WAITING: usize = 8;
/// One in so many parts of the time goes into checking passwords: whoever guesses gets no more of a core than that.
const SHARE: u32 = 4;

/// What a check of a password costs is chosen by who sets it; a user that does not exist costs as much as most.
const NOBODY: &str = "$2b$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

/// What is in force.
pub struct Access {
    web: ArcSwap<Web>,
    /// Digests of users and passwords that were found to be right, by a key that only this process knows.
    right: Arc<Mutex<HashSet<[u8; 32]>>>,
    key: [u8; 32],
    turn: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// Why a request is not answered.
enum Refusal {
    /// Only this host may.
    Elsewhere,
    /// Credentials are missing, or wrong; the kind that is wanted.
    Credentials(&'static str),
    /// Too many passwords are being checked.
    Busy,
}

impl Access {
    /// By these settings.
    #[must_use]
    pub fn new(web: Web) -> Self {
        let mut key = [0; 32];
        // SAFETY: as many bytes as there is room for. Without them digests are only known by their passwords' secrecy.
        let _random = unsafe { libc::getrandom(key.as_mut_ptr().cast(), key.len(), 0) };
        Self {
            web: ArcSwap::from_pointee(web),
            right: Arc::default(),
            key,
            turn: Arc::new(Semaphore::new(1)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// Puts other settings in force, for connections and requests from now on.
    pub fn replace(&self, web: Web) {
        // What was found right stays so for as long as its user has the same password: digests hold its hash.
        self.web.store(Arc::new(web));
    }

    /// What connections begin with, if it is TLS.
    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.web.load().tls.clone().map(TlsAcceptor::from)
    }

    async fn judge(&self, path: &str, peer: SocketAddr, head: &HeaderMap) -> Result<(), Refusal> {
        if matches!(path, "/healthz" | "/readyz") {
            return Ok(());
        }
        let web = self.web.load_full();
        if path == "/api" || path.starts_with("/api/") {
            if let Some(token) = &web.token {
                return if bearer(head).is_some_and(|given| token.is(given)) {
                    Ok(())
                } else {
                    Err(Refusal::Credentials("Bearer"))
                };
            }
            if !is_here(peer, head) {
                return Err(Refusal::Elsewhere);
            }
        }
        if web.users.is_empty() {
            return Ok(());
        }
        let Some((user, password)) = basic(head) else { return Err(Refusal::Credentials("Basic")) };
        if self.is_right(&web, user, password).await? { Ok(()) } else { Err(Refusal::Credentials("Basic")) }
    }

    /// Whether it is a user's password. What was right is remembered, what was wrong is not.
    async fn is_right(&self, web: &Web, user: String, password: String) -> Result<bool, Refusal> {
        let known = web.users.get(&user);
        let hash = known.map_or(NOBODY, String::as_str).to_owned();
        let digest = self.digest(&[&user, &hash, &password]);
        let remembered = || self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest);
        if known.is_some() && remembered() {
            return Ok(true);
        }
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| Refusal::Busy)?;
        if known.is_some() && remembered() {
            return Ok(true);
        }
        let (is_user, right) = (known.is_some(), self.right.clone());
        // It goes on to its end and its pause, whether or not who asked waits for it.
        let check = tokio::spawn(async move {
            let _waiting = waiting;
            let begun = Instant::now();
            let checked = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
            let is_right = is_user && checked.unwrap_or(false);
            if is_right {
                let mut right = right.lock().unwrap_or_else(PoisonError::into_inner);
                if right.len() >= REMEMBERED {
                    right.clear();
                }
                right.insert(digest);
            } else {
                let pause = begun.elapsed() * (SHARE - 1);
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    drop(turn);
                });
            }
            is_right
        });
        check.await.map_err(|_| Refusal::Busy)
    }

    fn digest(&self, parts: &[&str]) -> [u8; 32] {
        // A key of any length is fine.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return [0; 32] };
        for part in parts {
            mac.update(&(part.len() as u64).to_ne_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

/// A secret that is compared in constant time, whatever its length.
pub(super) struct Token([u8; 32]);

impl Token {
    /// Of this secret.
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    fn is(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        self.0.ct_eq(&given).into()
    }
}

/// Whether a request comes from this host itself: from loopback, asked for by a name of this host (a web page whose name
/// was made to lead here has its own), and with nothing that a proxy adds.
pub(super) fn is_here(peer: SocketAddr, head: &HeaderMap) -> bool {
    const OF_PROXIES: [&str; 6] =
        ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"];
    let forwarded = OF_PROXIES.iter().any(|name| head.contains_key(*name));
    let named = head.get(header::HOST).is_none_or(|host| host.to_str().is_ok_and(is_local_name));
    peer.ip().to_canonical().is_loopback() && named && !forwarded
}

/// Whether a `Host` is `localhost` or an address of loopback, with or without a port.
fn is_local_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// What follows the name of the scheme, which is read in any case.
fn credentials<'a>(head: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let (its, rest) = head.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    its.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn bearer(head: &HeaderMap) -> Option<&str> {
    credentials(head, "Bearer")
}

fn basic(head: &HeaderMap) -> Option<(String, String)> {
    let decoded = String::from_utf8(BASE64.decode(credentials(head, "Basic")?).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Answers those who may ask.
pub(super) async fn check(
    State(access): State<Arc<Access>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match access.judge(request.uri().path(), peer, request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.answer(),
    }
}

impl Refusal {
    fn answer(self) -> Response {
        match self {
            Self::Elsewhere => {
                let text = "only this host itself may ask that; with web.token_file others may, who have the token\n";
                (StatusCode::FORBIDDEN, text).into_response()
            }
            Self::Credentials(scheme) => {
                let (value, text) = match scheme {
                    "Bearer" => {
                        ("Bearer realm=\"observer\"", "the token is missing or wrong: Authorization: Bearer TOKEN\n")
                    }
                    _ => ("Basic realm=\"observer\", charset=\"UTF-8\"", "user or password is missing or wrong\n"),
                };
                let field = (header::WWW_AUTHENTICATE, HeaderValue::from_static(value));
                (StatusCode::UNAUTHORIZED, [field], text).into_response()
            }
            Self::Busy => {
                let field = (header::RETRY_AFTER, HeaderValue::from_static("5"));
                (StatusCode::TOO_MANY_REQUESTS, [field], "too many passwords are being checked\n").into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn this_host_is_loopback_by_its_own_names_and_no_proxy() {
        let here: SocketAddr = ([127, 0, 0, 1], 9).into();
        let with = |name: &'static str, value: &'static str| {
            let name = HeaderName::from_static(name);
            is_here(here, &[(name, HeaderValue::from_static(value))].into_iter().collect())
        };
        for host in ["localhost", "LocalHost:9478", "127.0.0.1:9478", "127.8.0.1", "[::1]:9478", "[::ffff:127.0.0.1]:1"]
        {
            assert!(with("host", host), "{host}");
        }
        for host in ["evil.example:9478", "localhost.evil.example", "192.0.2.1", "[::2]:9478", "", "a b"] {
            assert!(!with("host", host), "{host}");
        }
        for header in ["x-forwarded-for", "x-real-ip", "via", "forwarded"] {
            assert!(!with(header, "127.0.0.1"), "{header}");
        }
        assert!(is_here(here, &HeaderMap::new()), "as HTTP/1.0 may ask");
        assert!(is_here("[::ffff:127.0.0.1]:9".parse().unwrap(), &HeaderMap::new()));
        assert!(!is_here("192.0.2.1:9".parse().unwrap(), &HeaderMap::new()));
    }
}

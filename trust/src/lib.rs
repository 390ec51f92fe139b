//! TLS to other servers: backends, Redis, databases, admin ports, issuers of keys. Whom it trusts stands in
//! one place, [`Roots`].
//!
//! *Absent:* TLS of our own ports (the crate `edge`), and what is said to servers.

use std::error::Error;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri, ext};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use redis::{ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
pub use rustls::{ClientConnection, StreamOwned};
use tokio::sync::Notify;

/// Sends requests by `http://` and `https://`, each with [`ask`] or [`get`].
pub type HttpClient = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Interim answers to a request: servers send one or two.
const INTERIM_MAX: u32 = 8;

/// Connections of an [`HttpClient`] that are kept open without a request.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// How many, to one server.
    pub count: usize,
    /// For how long: shorter than servers and proxies commonly do, so that they rarely close it first.
    pub time: Duration,
}

/// The roots of certificates that are trusted: those of a file, or those of the system. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Roots(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// None: those of the system, which are read when they are first needed.
    file: Option<(PathBuf, Vec<u8>)>,
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.0.file == other.0.file
    }
}

impl Eq for Roots {}

impl Roots {
    /// Those of a file with certificates in PEM; an empty path: those of the system.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(file: &Path) -> Result<Self, String> {
        if file.as_os_str().is_empty() {
            return Ok(Self::default());
        }
        let named = |why: String| format!("{}: {why}", file.display());
        let pem = std::fs::read(file).map_err(|error| named(error.to_string()))?;
        let config = config(of_pem(&pem).map_err(named)?)?;
        let config = OnceLock::from(Ok(config));
        Ok(Self(Arc::new(Inner { file: Some((file.to_owned(), pem)), config })))
    }

    /// The file; `None` for those of the system.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_ref().map(|(file, _)| file.as_path())
    }

    /// What connections go by.
    ///
    /// # Errors
    /// The system has no roots.
    pub fn config(&self) -> Result<Arc<ClientConfig>, String> {
        self.0.config.get_or_init(|| config(of_system()?)).clone()
    }

    /// A client for a URL, `http://` or `https://`. A server has `connect_time` to accept a connection; the
    /// handshake counts for the time of the request.
    ///
    /// # Errors
    /// It is `https://`, and the system has no roots.
    pub fn http_client(&self, url: &str, connect_time: Duration, kept: Kept) -> Result<HttpClient, String> {
        let config = match is_https(url) {
            true => self.config()?,
            false => config(RootCertStore::empty())?,
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_time));
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&config))
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(kept.time)
            .pool_max_idle_per_host(kept.count)
            .build(connector))
    }

    /// A client of a Redis server at `redis://` or `rediss://`.
    ///
    /// # Errors
    /// The roots cannot be used.
    pub fn redis_client(&self, server: ConnectionInfo) -> RedisResult<redis::Client> {
        match server.addr() {
            ConnectionAddr::TcpTls { .. } => {
                let root_cert = self.0.file.as_ref().map(|(_, pem)| pem.clone());
                redis::Client::build_with_tls(server, TlsCertificates { client_tls: None, root_cert })
            }
            _ => redis::Client::open(server),
        }
    }

    /// Speaks TLS on a connection to a host, from the first read or write on.
    ///
    /// # Errors
    /// It is no host that a certificate may be for, or the system has no roots.
    pub fn over(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host}: want a host name"))?;
        let connection = ClientConnection::new(self.config()?, name).map_err(|error| error.to_string())?;
        Ok(StreamOwned::new(connection, stream))
    }
}

/// Sends a request and waits for the head of its answer. A server that sends more than a few interim answers
/// (1xx) before it is not listened to any further: hyper reads them without an end, at the cost of a CPU.
///
/// # Errors
/// Why there is no answer.
pub async fn ask(
    client: &HttpClient,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, String> {
    let too_many = Arc::new(Notify::new());
    let (count, tell) = (AtomicU32::new(0), too_many.clone());
    ext::on_informational(&mut request, move |_| {
        if count.fetch_add(1, Ordering::Relaxed) == INTERIM_MAX {
            tell.notify_one();
        }
    });
    tokio::select! {
        biased; // to leave the request closes its connection
        () = too_many.notified() => Err(format!("more than {INTERIM_MAX} interim answers (1xx)")),
        answer = client.request(request) => answer.map_err(|error| chain(&error)),
    }
}

/// As [`ask`] does, with GET and no body.
///
/// # Errors
/// Why there is no answer.
pub async fn get(client: &HttpClient, uri: Uri) -> Result<Response<Incoming>, String> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = uri;
    ask(client, request).await
}

/// Whether a URL wants TLS.
pub fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// An error with what caused it, which alone often says nothing: that of a certificate stands at the end.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let (mut all, mut next) = (Vec::<String>::new(), Some(error));
    while let Some(error) = next {
        let said = error.to_string();
        if all.last().is_none_or(|last| !last.ends_with(&said)) {
            all.push(said);
        }
        next = error.source();
    }
    all.join(": ")
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn of_pem(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("no certificates in PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("no certificate of a root: {error}"))?;
    }
    if roots.is_empty() {
        return Err("no certificate in PEM".into());
    }
    Ok(roots)
}

fn of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err("this system has no root certificates; install them, or set tls.roots".into());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_certificates_in_pem() {
        let folder = std::env::temp_dir().join(format!("sailfish-trust-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("roots.pem");
        let read = |pem: &[u8]| {
            std::fs::write(&file, pem).unwrap();
            Roots::read(&file).map(|roots| roots.file().map(Path::to_owned))
        };
        assert_eq!(read(include_bytes!("../../edge/tests/pem/ca.pem")), Ok(Some(file.clone())));
        for (pem, why) in [
            (&b""[..], "no certificate in PEM"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate of a root: "),
            (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "no certificates in PEM: "),
        ] {
            let said = read(pem).unwrap_err();
            assert!(said.starts_with(&format!("{}: {why}", file.display())), "{said}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(Roots::read(&file).unwrap_err().contains("roots.pem: No such file"));
        assert_eq!(Roots::read(Path::new("")).unwrap().file(), None);
    }

    #[test]
    fn a_url_says_whether_it_wants_tls() {
        assert!(is_https("https://a") && is_https("HTTPS://a"));
        assert!(!is_https("http://a") && !is_https("https:/") && !is_https(""));
    }
}

//! TLS of a client, by rustls.

use std::collections::VecDeque;
use std::fmt;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, NamedGroup,
    RootCertStore, SignatureScheme,
};

use super::Broken;

/// A host, and the settings of its connections. They share its tickets, so later handshakes are shorter.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    host: ServerName<'static>,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("host", &self.host).finish_non_exhaustive()
    }
}

impl TlsClient {
    /// A client of a host, a name or an address, whose certificate leads to one of `roots`; without roots it
    /// trusts anybody, who may then read and change everything. It keeps up to `tickets_max` tickets.
    ///
    /// # Errors
    /// `host` is no host name, or `roots` are no certificates.
    pub fn new(
        host: &str,
        roots: Option<&[CertificateDer<'static>]>,
        tickets_max: usize,
    ) -> Result<Self, String> {
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name).map_err(|_| format!("{host}: not the name of a host"))?;
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match roots {
            None => Arc::new(Anybody(provider.clone())),
            Some(roots) => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(roots.iter().cloned());
                WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
                    .build()
                    .map_err(|error| format!("no certificate of an authority: {error}"))?
            }
        };
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = builder.with_no_client_auth();
        config.resumption = match tickets_max {
            0 => Resumption::disabled(),
            max => Resumption::store(Arc::new(Tickets { max, kept: Mutex::default() })),
        };
        Ok(Self { config: Arc::new(config), host: name })
    }
}

/// One connection.
pub(super) struct Tls {
    connection: Box<ClientConnection>,
    has_ended: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn new(client: &TlsClient) -> Result<Self, Broken> {
        let connection = ClientConnection::new(client.config.clone(), client.host.clone());
        let mut connection = Box::new(connection.map_err(|error| broken(&error))?);
        connection.set_buffer_limit(None); // the writer bounds it
        Ok(Self { connection, has_ended: false })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// Whether the server has sent its close notice.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes bytes of the socket: plain text goes to `plain`, answers to `out`.
    pub(super) fn received(
        &mut self,
        mut bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let mut outcome = Ok(());
        while !bytes.is_empty() && outcome.is_ok() {
            let read = self.connection.read_tls(&mut bytes);
            outcome = match read {
                Ok(_) => match self.connection.process_new_packets() {
                    Ok(state) => {
                        self.has_ended = state.peer_has_closed();
                        Ok(())
                    }
                    Err(error) => Err(broken(&error)),
                },
                Err(error) => Err(Broken::new("tls", error.to_string())),
            };
            // It returns `WouldBlock`, which asks to wait for more.
            let _ = self.connection.reader().read_to_end(plain);
        }
        self.write(out);
        outcome
    }

    /// Seals bytes; before the handshake is done they wait for its end.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let _ = self.connection.writer().write_all(plain); // memory takes every write
        self.write(out);
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() && self.connection.write_tls(out).is_ok() {}
    }
}

fn broken(error: &Error) -> Broken {
    let name = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => "certificate_unknown_issuer",
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "certificate_other_host",
        Error::InvalidCertificate(_) => "certificate_invalid",
        Error::AlertReceived(_) => "tls_alert",
        _ => "tls",
    };
    Broken::new(name, error.to_string())
}

/// Trusts everybody.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Tickets of earlier connections to one host. The store of rustls keeps eight tickets a host; here very many
/// clients reconnect at once.
#[derive(Debug)]
struct Tickets {
    max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().tls12 = Some(value);
    }

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().tls12.clone()
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {
        self.kept().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tls13.len() == self.max {
            kept.tls13.pop_front();
        }
        kept.tls13.push_back(value);
    }

    fn take_tls13_ticket(&self, _server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tls13.pop_back()
    }
}

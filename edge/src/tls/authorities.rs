//! Certificates of clients: whose are taken, and whether a client must have one.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

/// Authorities that may sign certificates of clients, in PEM.
#[derive(Clone)]
pub struct AuthoritiesPem {
    /// Their certificates.
    pub certificates: Vec<u8>,
    /// How they are called in errors: their file.
    pub name: String,
    /// Whether a client without a certificate is refused. One with a wrong certificate always is.
    pub is_required: bool,
}

/// Checks clients by authorities that can be replaced.
pub(super) struct Authorities {
    verifier: RwLock<Arc<dyn ClientCertVerifier>>,
    is_required: bool,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").finish_non_exhaustive()
    }
}

impl Authorities {
    pub(super) fn read(pem: &AuthoritiesPem) -> Result<Self, String> {
        let wrong = |why: String| format!("{}: {why}", pem.name);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem.certificates) {
            let certificate =
                certificate.map_err(|error| wrong(format!("no certificates in PEM: {error}")))?;
            roots
                .add(certificate)
                .map_err(|error| wrong(format!("no certificate of an authority: {error}")))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|_| wrong("no certificate in PEM".into()))?;
        Ok(Self { verifier: RwLock::new(verifier), is_required: pem.is_required })
    }

    /// Replaces the authorities; whether a certificate is required stays.
    pub(super) fn replace(&self, others: Self) {
        let others = others.verifier.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = others;
    }

    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientCertVerifier for Authorities {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    /// None: a client may have one certificate only, and need not be told which of the authorities are known.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier().supported_verify_schemes()
    }
}

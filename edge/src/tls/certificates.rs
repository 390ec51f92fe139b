//! Certificates and their keys: read, checked, and chosen by the host that a client names.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use webpki::{EndEntityCert, KeyUsage};

/// A certificate chain and its key, in PEM.
#[derive(Clone)]
pub struct CertificatePem {
    /// The server's certificate first, then those that lead to a root.
    pub chain: Vec<u8>,
    /// How the chain is called in errors: its file.
    pub chain_name: String,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: Vec<u8>,
    /// How the key is called in errors: its file.
    pub key_name: String,
}

/// The certificates of a server. The first serves hosts that none of them names.
pub(super) struct Certificates(RwLock<Vec<Certificate>>);

struct Certificate {
    /// In lower case; `*.` stands for one label.
    hosts: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads certificates, all of which must be in force.
    pub(super) fn read(certificates: &[CertificatePem], now_secs: u64) -> Result<Self, String> {
        if certificates.is_empty() {
            return Err("no certificate".into());
        }
        let certificates: Result<_, _> = certificates.iter().map(|one| read(one, now_secs)).collect();
        Ok(Self(RwLock::new(certificates?)))
    }

    /// Replaces all certificates.
    pub(super) fn replace(&self, others: Self) {
        let others = others.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = others;
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let host = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        let wild = host.split_once('.').map(|(_, domain)| format!("*.{domain}")).unwrap_or_default();
        let of = |host: &String| certificates.iter().find(|one| one.hosts.contains(host));
        let found = of(&host).or_else(|| of(&wild)).or(certificates.first());
        found.map(|certificate| certificate.key.clone())
    }
}

fn read(pem: &CertificatePem, now_secs: u64) -> Result<Certificate, String> {
    let CertificatePem { chain, chain_name, key, key_name } = pem;
    let of_chain = |why: String| format!("{chain_name}: {why}");
    let of_key = |why: String| format!("{key_name}: {why}");
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| of_chain(format!("no certificates in PEM: {error}")))?;
    chain.iter().try_for_each(|one| check_time(one, now_secs)).map_err(of_chain)?;
    let first = chain.first().ok_or_else(|| of_chain("no certificate in PEM".into()))?;
    let first =
        EndEntityCert::try_from(first).map_err(|error| of_chain(format!("no certificate: {error}")))?;
    let hosts = first.valid_dns_names().map(str::to_ascii_lowercase).collect();
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| of_key(format!("no private key in PEM that is not encrypted: {error}")))?;
    let key = any_supported_type(&key).map_err(|error| of_key(format!("no key that can sign: {error}")))?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(_) => return Err(of_key(format!("not the key of the certificate in {chain_name}"))),
    }
    Ok(Certificate { hosts, key: Arc::new(key) })
}

/// Checks that a certificate is in force.
fn check_time(certificate: &CertificateDer<'_>, now_secs: u64) -> Result<(), String> {
    let certificate =
        EndEntityCert::try_from(certificate).map_err(|error| format!("no certificate: {error}"))?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now_secs));
    // webpki checks the time before anything else. Whether the chain is trusted is for clients to decide.
    match certificate.verify_for_usage(&[], &[], &[], now, KeyUsage::server_auth(), None, None) {
        Err(webpki::Error::CertExpired { time, not_after }) => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / 86_400;
            Err(format!("a certificate that expired {days} days ago"))
        }
        Err(webpki::Error::CertNotValidYet { time, not_before }) => {
            let days = not_before.as_secs().saturating_sub(time.as_secs()) / 86_400;
            Err(format!("a certificate that is not valid yet; it will be in {days} days"))
        }
        Err(webpki::Error::InvalidCertValidity) => Err("a certificate that is never valid".into()),
        _ => Ok(()),
    }
}

//! TLS and WebSocket, as an address asks for them.

use std::sync::{Mutex, PoisonError};

use edge::{ClientPort, TlsClient, Upgrade};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::{Address, Trust};

/// Tickets that a client keeps, for shorter handshakes.
const TICKETS_MAX: usize = 4;

impl Trust {
    /// What a TLS client of a host goes by. It keeps up to `tickets_max` tickets.
    ///
    /// # Errors
    /// What is no name of a host; no certificates.
    pub fn tls_client(&self, host: &str, tickets_max: usize) -> Result<TlsClient, String> {
        let roots = match self {
            Self::Anybody => None,
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                if found.certs.is_empty() {
                    let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
                    return Err(format!("the system has no certificates of authorities{why}"));
                }
                Some(found.certs)
            }
            Self::Roots(pem) => {
                let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
                Some(roots.map_err(|error| format!("no certificates in PEM: {error}"))?)
            }
        };
        TlsClient::new(host, roots.as_deref(), tickets_max)
    }
}

impl Address {
    /// The layers of its connections, with TLS as `tls` makes it.
    ///
    /// # Errors
    /// As of `tls`.
    pub fn port(&self, tls: impl FnOnce(&str) -> Result<TlsClient, String>) -> Result<ClientPort, String> {
        let upgrade = |path: &String| Upgrade { host: self.authority.clone(), path: path.clone() };
        Ok(ClientPort {
            tls: if self.tls { Some(tls(self.host())?) } else { None },
            websocket: self.websocket.as_ref().map(upgrade),
        })
    }
}

/// Whom a client trusts, and the host that it connected to last.
#[derive(Debug)]
pub(super) struct Security {
    trust: Trust,
    last: Mutex<Option<(String, TlsClient)>>,
}

impl Security {
    pub fn new(trust: Trust) -> Self {
        Self { trust, last: Mutex::default() }
    }

    /// The layers of connections to an address.
    pub fn port(&self, address: &Address) -> Result<ClientPort, String> {
        address.port(|host| {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some((known, client)) if known == host => Ok(client.clone()),
                _ => {
                    let client = self.trust.tls_client(host, TICKETS_MAX)?;
                    *last = Some((host.to_owned(), client.clone()));
                    Ok(client)
                }
            }
        })
    }
}

//! The certificates and keys of the ports with TLS, in files that are read again when they change.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use gateway::{AuthoritiesPem, CertificatePem, TlsServer};
use tracing::{error, info};

use crate::config::{CertificateFiles, Config, ConfigError, NodeConfig};
use crate::secret;

/// The certificates and settings of ports with TLS.
pub fn server(config: &Config) -> Result<TlsServer, ConfigError> {
    let certificates = read(&config.node.certificates).map_err(of_certificates)?;
    let authorities = read_authorities(&config.node)?;
    TlsServer::new(&certificates, authorities.as_ref(), now_secs()).map_err(of_certificates)
}

/// Reads the certificates of a configuration, and replaces those of a running server.
pub fn reload(server: &TlsServer, config: &Config) -> Result<(), ConfigError> {
    let certificates = read(&config.node.certificates).map_err(of_certificates)?;
    let authorities = read_authorities(&config.node)?;
    server.replace(&certificates, authorities.as_ref(), now_secs()).map_err(of_certificates)
}

/// Reads certificates whose files have changed, and logs that.
pub fn reload_and_tell(server: &TlsServer, config: &Config) {
    match reload(server, config) {
        Ok(()) => info!("the certificates have changed; connections to come get the new ones"),
        Err(error) => error!("the certificates have changed, and those before stay: {error}"),
    }
}

/// The files of certificates, for a watch.
pub fn files(config: &Config) -> Vec<PathBuf> {
    let files = config.node.certificates.iter();
    let files = files.flat_map(|files| [files.chain.clone(), files.key.clone()]);
    files.chain(config.node.client_ca().map(Path::to_owned)).collect()
}

fn of_certificates(why: String) -> ConfigError {
    ConfigError(format!("node.certificates: {why}"))
}

/// The authorities of clients, if clients are asked for certificates. [`TlsServer::new`] reports mistakes in
/// the file.
fn read_authorities(node: &NodeConfig) -> Result<Option<AuthoritiesPem>, ConfigError> {
    let Some(file) = node.client_ca() else { return Ok(None) };
    let name = file.display().to_string();
    let certificates =
        crate::read::read(file).map_err(|error| ConfigError(format!("node.client_ca: {name}: {error}")))?;
    Ok(Some(AuthoritiesPem { certificates, name, is_required: node.client_certificate == "required" }))
}

fn read(files: &[CertificateFiles]) -> Result<Vec<CertificatePem>, String> {
    let read = |files: &CertificateFiles| {
        let (chain_name, key_name) = (files.chain.display().to_string(), files.key.display().to_string());
        let chain = crate::read::read(&files.chain).map_err(|error| format!("{chain_name}: {error}"))?;
        let key = secret::read_private(&files.key).map_err(|error| format!("{key_name}: {error}"))?;
        Ok(CertificatePem { chain, chain_name, key, key_name })
    };
    files.iter().map(read).collect()
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

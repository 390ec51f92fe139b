//! Which servers are trusted, and what is said of the others.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests wait for real servers, and may panic

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use trust::{Kept, Roots};

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge/tests/pem").join(name)
}

/// A server that shows a certificate and answers `hello` to whoever trusts it.
fn server(chain: &str, key: &str) -> SocketAddr {
    let chain: Vec<_> = CertificateDer::pem_file_iter(pem(chain)).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(pem(key)).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            let mut asked = [0; 4096];
            if stream.read(&mut asked).is_ok_and(|count| count > 0) {
                let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.conn.complete_io(&mut stream.sock); // it may have gone
            }
        }
    });
    address
}

/// What an HTTP client says of a server: its status, or why it is not asked.
fn by_http(roots: &Roots, address: SocketAddr) -> Result<u16, String> {
    let url = format!("https://{address}/");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = roots.http_client(&url, PATIENCE, Kept { count: 1, time: PATIENCE })?;
        let asked = tokio::time::timeout(PATIENCE, trust::get(&client, url.parse().unwrap())).await.unwrap();
        asked.map(|answer| answer.status().as_u16())
    })
}

/// What a plain connection says.
fn by_stream(roots: &Roots, address: SocketAddr) -> Result<u16, String> {
    let mut stream = roots.over("127.0.0.1", TcpStream::connect(address).unwrap())?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer.split(' ').nth(1).unwrap().parse().unwrap())
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_server_is_trusted_by_its_roots_its_host_and_its_time() {
    for (chain, key, roots, why) in [
        ("one.pem", "one.key", "ca.pem", None),
        ("two.pem", "two.key", "ca.pem", Some("certificate not valid for name \"127.0.0.1\"")),
        ("expired.pem", "one.key", "ca.pem", Some("certificate expired")),
        ("one.pem", "one.key", "two.pem", Some("UnknownIssuer")),
    ] {
        let (address, roots) = (server(chain, key), Roots::read(&pem(roots)).unwrap());
        for said in [by_http(&roots, address), by_stream(&roots, address)] {
            match why {
                None => assert_eq!(said, Ok(200)),
                Some(why) => assert!(said.clone().is_err_and(|said| said.contains(why)), "{chain}: {said:?}"),
            }
        }
    }
}

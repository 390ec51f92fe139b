//! Connections to MySQL whose packets leave at once.
//!
//! sqlx 0.9.0 does not set TCP_NODELAY (its issue 4335). A statement that its cache of prepared ones drops is closed by a packet without an
//! answer, after which the kernel keeps the next packet back until the server's delayed ACK: 44 ms for what else takes 0.2. So sqlx
//! is given a socket in this process, and what comes there is passed on over TCP with that option. To be removed with the
//! release that sets it.

use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tracing::debug;

use crate::error::Error;
use crate::random;

/// How long a server may take to accept.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Passes connections on, until dropped; those that are open go on.
pub struct Prompt(JoinHandle<()>);

impl Prompt {
    /// The URL by which sqlx connects to this end of it, for the URL of a server. One that names a socket needs nothing.
    pub fn open(url: &str) -> Result<(String, Option<Self>), Error> {
        let options: MySqlConnectOptions = url.parse()?;
        if options.get_socket().is_some() {
            return Ok((url.to_owned(), None));
        }
        let fault = |error: std::io::Error| Error::internal(format!("a socket for the database: {error}"));
        // In the abstract namespace: no file is left behind.
        let name = format!("sailfish-{}", random::hex::<16>());
        let listener = UnixListener::bind(format!("\0{name}")).map_err(fault)?;
        let address = (options.get_host().to_owned(), options.get_port());
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    // Every user of the machine may connect here; this process alone is served.
                    Ok((near, _)) if is_own(&near) => drop(tokio::spawn(pass_on(near, address.clone()))),
                    Ok(_) => debug!("another process has tried the socket for the database"),
                    Err(error) => {
                        debug!(%error, "no connection to the database"); // as without descriptors
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
        let separator = if url.contains('?') { '&' } else { '?' };
        Ok((format!("{url}{separator}socket=%00{name}"), Some(Self(task))))
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn is_own(near: &UnixStream) -> bool {
    let own = i32::try_from(std::process::id()).ok();
    near.peer_cred().is_ok_and(|peer| peer.pid().is_some() && peer.pid() == own)
}

/// sqlx sees the end of the connection if there is no server, or no longer.
async fn pass_on(mut near: UnixStream, address: (String, u16)) {
    let connect = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(address));
    match connect.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
        Ok(mut far) => {
            let _ = far.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        }
        Err(error) => debug!(%error, "no connection to the database"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    use super::*;

    #[tokio::test]
    async fn another_process_is_not_passed_on() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let port = server.local_addr().unwrap().port();
        let (url, _prompt) = Prompt::open(&format!("mysql://user:password@127.0.0.1:{port}/name")).unwrap();
        let (_, name) = url.split_once("socket=%00").unwrap();
        let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(30)\n\
                      s.connect('\\0' + sys.argv[1]); sys.exit(len(s.recv(1)))";
        let status = tokio::process::Command::new("python3").args(["-c", script, name]).status().await;
        assert!(status.unwrap().success(), "the stranger sees the end of the connection");
        assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);

        let own = SocketAddr::from_abstract_name(name).unwrap();
        let _own = std::os::unix::net::UnixStream::connect_addr(&own).unwrap();
        for _ in 0..1_500 {
            if server.accept().is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("30 s, and this process is not passed on");
    }
}

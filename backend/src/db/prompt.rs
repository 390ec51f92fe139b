//! Connections to MySQL whose packets leave at once, and whose server has a limited time to answer.
//!
//! sqlx 0.9.0 does not set TCP_NODELAY (its issue 4335). It closes a statement that leaves its cache of
//! prepared ones by a packet without an answer; the kernel then delays the next packet until the server's
//! delayed ACK: 44 ms instead of 0.2 ms. So sqlx gets a socket in this process, whose bytes are passed on
//! over TCP with that option.
//!
//! sqlx has no time limit of its own either. If a server hangs, or its machine loses power, a task would wait
//! for its answer for good. Here such a connection is closed.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use logs::warn;
use socket2::{SockRef, TcpKeepalive};
use sqlx::mysql::MySqlConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::debug;

use crate::error::{CANNOT_CONNECT, Error};
use crate::random;

/// How long a server may take to accept.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// When, and how often, an idle connection probes whether its server's machine is there.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(3);
/// How long that machine may take to acknowledge bytes.
const ACKNOWLEDGE_TIME: Duration = Duration::from_secs(20);
const BUFFER_BYTES: usize = 8 << 10;
/// The most characters of a cause.
const TEXT_MAX: usize = 512;

/// Passes connections on until it is dropped; open ones go on.
pub struct Prompt {
    task: JoinHandle<()>,
    answer_time: AnswerTime,
}

/// How long a server may take to answer a statement, in ms; 0 is without a limit.
#[derive(Clone, Default)]
struct AnswerTime(Arc<AtomicU64>);

impl AnswerTime {
    fn set(&self, time: Duration) {
        self.0.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.0.load(Ordering::Relaxed))).filter(|time| !time.is_zero())
    }
}

impl Prompt {
    /// The URL by which sqlx connects to our end, for the URL of a server. A URL that names a socket needs
    /// nothing.
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
        let answer_time = AnswerTime::default();
        let limit = answer_time.clone();
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    // Every user of the machine may connect here; only this process is served.
                    Ok((near, _)) if is_own(&near) => {
                        drop(tokio::spawn(pass_on(near, address.clone(), limit.clone())))
                    }
                    Ok(_) => debug!("another process has tried the socket for the database"),
                    Err(error) => {
                        debug!(%error, "no connection to the database"); // as without descriptors
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        });
        let separator = if url.contains('?') { '&' } else { '?' };
        Ok((format!("{url}{separator}socket=%00{name}"), Some(Self { task, answer_time })))
    }

    /// From now on, a connection is closed if its server takes longer than this to answer.
    pub fn limit(&self, time: Duration) {
        self.answer_time.set(time);
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn is_own(near: &UnixStream) -> bool {
    let own = i32::try_from(std::process::id()).ok();
    near.peer_cred().is_ok_and(|peer| peer.pid().is_some() && peer.pid() == own)
}

/// The packet by which a server refuses a connection at once: a header with the length, and an error with its
/// number and text.
fn refusal(text: &str) -> Vec<u8> {
    let text: String = text.chars().take(TEXT_MAX).collect();
    let length = (3 + text.len()) as u16; // TEXT_MAX characters of 4 bytes fit
    let mut packet = length.to_le_bytes().to_vec();
    packet.extend([0, 0, 0xff]);
    packet.extend(CANNOT_CONNECT.to_le_bytes());
    packet.extend(text.as_bytes());
    packet
}

/// Tells sqlx why there is no server; sqlx sees a closed connection if the server has gone.
async fn pass_on(mut near: UnixStream, address: (String, u16), limit: AnswerTime) {
    let connect = tokio::time::timeout(CONNECT_TIME, TcpStream::connect((address.0.as_str(), address.1)));
    let passed = match connect.await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
        Ok(far) => {
            let _ = far.set_nodelay(true);
            let socket = SockRef::from(&far);
            let _ = socket.set_tcp_keepalive(&KEEPALIVE);
            let _ = socket.set_tcp_user_timeout(Some(ACKNOWLEDGE_TIME));
            exchange(near, far, &limit).await
        }
        Err(error) => {
            let text = format!("no connection to {}:{}: {error}", address.0, address.1);
            let _ = near.write_all(&refusal(&text)).await;
            Err(error)
        }
    };
    if let Err(error) = passed {
        debug!(%error, "a connection to the database has failed");
    }
}

/// Copies bytes until either side ends, or the server owes an answer for too long. In this protocol one side
/// speaks at a time.
async fn exchange(mut near: UnixStream, mut far: TcpStream, limit: &AnswerTime) -> std::io::Result<()> {
    let (mut asked, mut answered) = ([0; BUFFER_BYTES], [0; BUFFER_BYTES]);
    let mut owed_from = None;
    loop {
        let late = limit.get().zip(owed_from).map(|(time, from): (_, Instant)| from + time);
        let too_late = async {
            match late {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; // an answer that is there counts, however late it is looked at
            read = far.read(&mut answered) => match read? {
                0 => return Ok(()),
                count => {
                    owed_from = None;
                    near.write_all(&answered[..count]).await?;
                }
            },
            read = near.read(&mut asked) => match read? {
                0 => return Ok(()),
                count => {
                    owed_from.get_or_insert_with(Instant::now);
                    let write = far.write_all(&asked[..count]);
                    match limit.get() {
                        Some(time) => tokio::time::timeout(time, write).await.map_err(|_| ErrorKind::TimedOut)??,
                        None => write.await?,
                    }
                }
            },
            () = too_late => {
                warn!("the database has not answered in time; closed a connection to it");
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    use sqlx::Connection;

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

    #[tokio::test]
    async fn the_cause_is_named_when_there_is_no_server() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (address, cause) in
            [(free.to_string(), "Connection refused"), ("nohost.invalid:3306".into(), "lookup")]
        {
            let (url, _prompt) = Prompt::open(&format!("mysql://user:password@{address}/name")).unwrap();
            let error = sqlx::MySqlConnection::connect(&url).await.unwrap_err();
            let error = Error::from(error);
            assert_eq!(error.code, "database_unavailable");
            assert!(error.message.contains(&address) && error.message.contains(cause), "{error}");
        }
    }

    /// Once there is a limit, a statement that is not answered ends its connection; one that is idle goes on.
    #[tokio::test]
    async fn a_server_that_does_not_answer_is_left() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let (url, prompt) = Prompt::open(&format!("mysql://user:password@127.0.0.1:{port}/name")).unwrap();
        let (_, name) = url.split_once("socket=%00").unwrap();
        let own = SocketAddr::from_abstract_name(name).unwrap();
        prompt.as_ref().unwrap().limit(Duration::from_millis(300));
        tokio::task::spawn_blocking(move || {
            let [mut idle, mut asking] =
                [(); 2].map(|()| std::os::unix::net::UnixStream::connect_addr(&own).unwrap());
            let mut taken = [(); 2].map(|()| server.accept().unwrap().0);
            let mut one = [0];
            // Which of them is which does not matter: both are asked something and answer.
            for (stream, count) in [(&mut idle, 1), (&mut asking, 1)] {
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                stream.write_all(&one[..count]).unwrap();
            }
            for stream in &mut taken {
                stream.read_exact(&mut one).unwrap();
                stream.write_all(b"a").unwrap();
            }
            for stream in [&mut idle, &mut asking] {
                stream.read_exact(&mut one).unwrap();
            }
            asking.write_all(b"q").unwrap();
            assert_eq!(asking.read(&mut one).unwrap(), 0, "it ends");
            idle.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            assert_eq!(idle.read(&mut one).unwrap_err().kind(), ErrorKind::WouldBlock, "it is there");
        })
        .await
        .unwrap();
    }
}

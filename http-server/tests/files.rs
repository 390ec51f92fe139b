//! A process that has no file left. Alone in its process, whose limit it lowers.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // tests may panic, and wait for sockets

mod common;

use std::fs::File;
use std::time::{Duration, Instant};

use common::{Caller, Site, until};
use http_server::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpSocket;

#[tokio::test]
async fn a_caller_waits_for_a_file_and_the_server_does_not_spin() {
    let site = Site::start(Limits::default()).await;
    let socket = TcpSocket::new_v4().unwrap();
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
    let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(files.len() < 64);
    let start = Instant::now();
    let mut caller = Caller::from(socket.connect(site.address()).await.unwrap());
    caller.send("GET /ok HTTP/1.1\r\n\r\n").await;
    until(|| site.counts().accept_errors >= 3).await;
    let pauses = start.elapsed().as_millis() / Duration::from_millis(100).as_millis();
    assert!(u128::from(site.counts().accept_errors) <= pauses + 1, "{:?}", site.counts());
    drop(files);
    assert_eq!(caller.answer().await, (200, "ok".into()));
}

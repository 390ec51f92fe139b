//! A backend over plain TCP, which answers as its test wants, and badly if that is wanted.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testbed::free_port;

use crate::world::SECRET;

/// A request as it came.
pub struct Call {
    pub path: String,
    /// Lower-case names.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Its place among all requests, from 0.
    pub number: usize,
}

impl Call {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn events(&self) -> Vec<Value> {
        self.json()["events"].as_array().unwrap().clone()
    }

    pub fn ids(&self) -> Vec<String> {
        self.events().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether the signature is right, computed from the definition of HMAC with nothing but a hash.
    pub fn is_signed(&self) -> bool {
        let mut message = self.header("x-sailfish-timestamp").as_bytes().to_vec();
        message.push(b'.');
        message.extend_from_slice(&self.body);
        let mut key = [0; 64];
        key[..SECRET.len()].copy_from_slice(SECRET);
        let padded = |pad: u8| key.map(|byte| byte ^ pad);
        let inner = Sha256::new().chain_update(padded(0x36)).chain_update(&message).finalize();
        let outer = Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize();
        let hex: String = outer.iter().map(|byte| format!("{byte:02x}")).collect();
        self.header("x-sailfish-signature") == hex
    }
}

/// What a request gets.
pub enum Reply {
    Json(u16, Value),
    /// These bytes and then the end, whatever they are.
    Raw(Vec<u8>),
    /// Nothing until the backend stops.
    Never,
}

/// Everything is taken.
pub fn all_ok(call: &Call) -> Reply {
    results(&call.ids(), |_| "ok")
}

/// A status for each id.
pub fn results(ids: &[String], status: impl Fn(&str) -> &'static str) -> Reply {
    let results: Vec<Value> = ids.iter().map(|id| json!({ "id": id, "status": status(id) })).collect();
    Reply::Json(200, json!({ "results": results }))
}

type Handler = dyn Fn(&Call) -> Reply + Send + Sync;

pub struct Backend {
    pub port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    handler: Box<Handler>,
    stopped: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    accepted: AtomicUsize,
    calls: AtomicUsize,
}

impl Backend {
    pub fn start(handler: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(free_port(), handler)
    }

    pub fn start_at(port: u16, handler: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        let listener = testbed::listen(([127, 0, 0, 1], port).into()).unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            stopped: AtomicBool::new(false),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
        });
        let serving = shared.clone();
        let accepting = thread::Builder::new().spawn(move || serving.accept(&listener)).unwrap();
        Self { port, shared, accepting: Some(accepting) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Connections that it has had.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Requests that it has had.
    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    /// It is gone when this returns: its port refuses, its connections are broken.
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // wakes it
        let _ = self.accepting.take().unwrap().join(); // a panic of it shows in the test's result
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both); // it may have ended
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            self.accepted.fetch_add(1, Ordering::Relaxed);
            self.connections.lock().unwrap().push(connection.try_clone().unwrap());
            let serving = self.clone();
            thread::Builder::new().spawn(move || serving.serve(connection)).unwrap();
        }
    }

    fn serve(&self, mut connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        while let Some(call) = self.read(&mut reader) {
            let reply = match (self.handler)(&call) {
                Reply::Json(status, body) => {
                    let body = body.to_string();
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                        .into_bytes()
                }
                Reply::Raw(bytes) => {
                    let _ = connection.write_all(&bytes); // whoever it is for may have gone
                    let _ = connection.shutdown(Shutdown::Both);
                    return;
                }
                Reply::Never => {
                    while !self.stopped.load(Ordering::SeqCst) {
                        thread::sleep(Duration::from_millis(5));
                    }
                    return;
                }
            };
            if connection.write_all(&reply).is_err() {
                return;
            }
        }
    }

    fn read(&self, reader: &mut impl BufRead) -> Option<Call> {
        let mut line = String::new();
        let mut next = || {
            line.clear();
            (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
        };
        let path = next()?.split(' ').nth(1)?.to_owned();
        let mut headers = Vec::new();
        loop {
            let line = next()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        Some(Call { path, headers, body, number })
    }
}

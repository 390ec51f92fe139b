//! A backend of one test: takes events by HTTP, notes them, and answers that it has them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// Listens for as long as the test's process lives.
pub struct Backend {
    pub address: SocketAddr,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Backend {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let events = Arc::<Mutex<Vec<Value>>>::default();
        let notes = events.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, notes) = (stream.unwrap(), notes.clone());
                std::thread::spawn(move || serve(&stream, &notes));
            }
        });
        Self { address, events }
    }

    /// The flags of a bridge that has it as its backend.
    pub fn flags(&self) -> [String; 3] {
        let url = format!("--set=bridge.url=http://{}", self.address);
        ["--set=bridge.mode=http".into(), url, "--set=bridge.secret=the bridge's secret of the tests".into()]
    }

    /// What came so far, in order.
    pub fn events(&self) -> Vec<Value> {
        self.events.lock().unwrap().clone()
    }
}

/// Answers requests until the connection ends.
fn serve(stream: &TcpStream, notes: &Mutex<Vec<Value>>) {
    let mut reader = BufReader::new(stream);
    while let Some(body) = request(&mut reader) {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let events = body["events"].as_array().unwrap().clone();
        let ok = |event: &Value| json!({ "id": event["id"], "status": "ok" });
        let answer = json!({ "results": events.iter().map(ok).collect::<Vec<_>>() }).to_string();
        notes.lock().unwrap().extend(events);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
        let mut writer = stream;
        if writer.write_all(format!("{head}{}\r\n\r\n{answer}", answer.len()).as_bytes()).is_err() {
            return;
        }
    }
}

/// The body of the next request; `None` at the connection's end.
fn request(reader: &mut BufReader<&TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

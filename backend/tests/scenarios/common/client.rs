//! An HTTP client.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: axum::http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A call with JSON, and the status and the JSON of the answer.
pub async fn call(method: &str, url: String, token: Option<&str>, body: Option<Value>) -> (u16, Value) {
    let mut headers = Vec::new();
    if let Some(token) = token {
        headers.push(("authorization", format!("Bearer {token}")));
    }
    if method != "GET" {
        headers.push(("content-type", "application/json".into()));
    }
    let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
    let answer = request(method, &url, &headers, body).await;
    (answer.status, answer.json())
}

/// Any call.
pub async fn request(method: &str, url: &str, headers: &[(&str, String)], body: Vec<u8>) -> Answer {
    let mut request = axum::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    // A client for each call: a connection kept from an earlier test's runtime would be dead.
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = tokio::time::timeout(Duration::from_secs(40), client.request(request)).await;
    let answer = answer.unwrap_or_else(|_| panic!("{method} {url}: no answer in 40 s"));
    let (head, body) = answer.unwrap_or_else(|error| panic!("{method} {url}: {error:?}")).into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

//! Bodies of requests, read within a limit, a time and the budget of all bodies.

use std::fmt;
use std::ops::Deref;
use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::peer::Peer;
use crate::stats::{Cut, Refusal};

/// How long a request keeps its turn while its body comes.
const WITH_TURN: Duration = Duration::from_millis(50);

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than this route's limit, in bytes. Answer 413.
    TooLong(usize),
    /// It did not come in time. Answer 408.
    TooSlow,
    /// Too many bytes of bodies are in memory, or too many requests at work. Answer 503.
    Busy,
    /// It broke off, or is no body. Answer 400.
    Broken(String),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(bytes_max) => write!(f, "want a body of at most {bytes_max} bytes"),
            Self::TooSlow => f.write_str("the body did not come in time"),
            Self::Busy => f.write_str("too many requests are under way, or bytes of their bodies; try again"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// The bytes of a body. They count in the budget until this is dropped.
pub struct Bytes {
    bytes: Vec<u8>,
    peer: Peer,
    /// What was taken from the budget: the capacity of `bytes`.
    taken: usize,
}

/// Reads the body of a request that a [`Server`](crate::Server) passed on. A body that says that it is longer
/// than `bytes_max` is not read at all.
///
/// # Errors
/// See [`BodyError`].
pub async fn read(request: Request, bytes_max: usize) -> Result<Bytes, BodyError> {
    let peer = request.extensions().get::<Peer>().cloned().expect("the server says who sends a request");
    let body = request.into_body();
    let stated = body.size_hint();
    if stated.lower() > bytes_max as u64 {
        return Err(BodyError::TooLong(bytes_max));
    }
    let most = stated.upper().and_then(|upper| usize::try_from(upper).ok()).unwrap_or(bytes_max);
    let (port, turn) = (peer.port.clone(), peer.turn.clone());
    let bytes = Bytes { bytes: Vec::new(), peer, taken: 0 };
    let mut collected = pin!(collect(body, bytes, most.min(bytes_max)));
    if let Some(turn) = &turn {
        if let Ok(read) = timeout(WITH_TURN, &mut collected).await {
            return read;
        }
        turn.pause();
    }
    let Ok(read) = timeout(port.limits.body_timeout(), collected).await else {
        port.stats.cut(Cut::Body);
        return Err(BodyError::TooSlow);
    };
    if let Some(turn) = &turn {
        turn.begin().await.map_err(|refusal| {
            port.stats.refused(refusal);
            BodyError::Busy
        })?;
    }
    read
}

async fn collect(mut body: Body, mut bytes: Bytes, bytes_max: usize) -> Result<Bytes, BodyError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue }; // trailers
        bytes.append(&data, bytes_max)?;
    }
    Ok(bytes)
}

impl Bytes {
    fn append(&mut self, data: &[u8], bytes_max: usize) -> Result<(), BodyError> {
        let length = self.bytes.len() + data.len();
        if length > bytes_max {
            return Err(BodyError::TooLong(bytes_max));
        }
        if length > self.taken {
            let capacity = length.max(2 * self.taken).min(bytes_max);
            self.take(capacity - self.taken)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), BodyError> {
        let port = &self.peer.port;
        port.bodies.take(self.peer.share(), bytes as u64).map_err(|refusal: Refusal| {
            port.stats.refused(refusal);
            BodyError::Busy
        })?;
        self.taken += bytes;
        Ok(())
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.peer.port.bodies.give_back(self.peer.share(), self.taken as u64);
    }
}

//! Asks nodes again and again, each on a thread of its own: one that does not answer delays no other.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde_json::Value;
use trust::Roots;

use super::Event;
use super::reading::Reading;
use super::watched::Answer;
use crate::config::ConfigError;
use crate::ctl::http::{self, Method, Request, Server};
use crate::printable::printable;

/// How long a node may take to answer a question.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// How nodes are asked.
pub struct Asking {
    /// Trusted roots for nodes that are asked by TLS.
    pub roots: Roots,
    /// The secret of the control API.
    pub secret: String,
    pub interval: Duration,
}

/// Asks the node at `admin`, which has the number `node`, until the answers are no longer wanted.
pub fn start(node: usize, admin: String, asking: Arc<Asking>, events: Sender<Event>) {
    std::thread::spawn(move || {
        loop {
            let began = Instant::now();
            let outcome = ask(&admin, &asking).map(Box::new);
            if events.send(Event::Answer { node, at: Instant::now(), outcome }).is_err() {
                return;
            }
            std::thread::sleep(asking.interval.saturating_sub(began.elapsed()));
        }
    });
}

/// Asks a node once.
///
/// # Errors
/// Why there is no answer: a [`ConfigError`] if `admin` is no address.
fn ask(admin: &str, asking: &Asking) -> anyhow::Result<Answer> {
    let metrics = get(admin, asking, "/metrics")?;
    let nodes = get(admin, asking, "/v1/nodes")?;
    let no_admin_port = || anyhow::anyhow!("it is no admin port of Sailfish: it answers {}", metrics.status);
    let known: Option<Value> =
        (nodes.status == 200).then(|| serde_json::from_str(&nodes.body).ok()).flatten();
    let is_there = metrics.status == 200;
    let reading = is_there.then(|| Reading::of(&metrics.body, known.as_ref())).flatten();
    let remark = match nodes.status {
        200 | 404 => None, // a backend knows no nodes
        401 => Some("refuses the secret, so its number and links are missing".to_owned()),
        _ => Some(format!("does not tell which nodes it knows: {}", message(&nodes))),
    };
    Ok(Answer { reading: reading.ok_or_else(no_admin_port)?, remark })
}

fn get(admin: &str, asking: &Asking, path: &str) -> anyhow::Result<http::Answer> {
    let request = Request { method: Method::Get, path: path.into() };
    http::ask_within(Server::node(admin, &asking.roots), &asking.secret, &request, ANSWER_TIME)
}

fn message(answer: &http::Answer) -> String {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    body["message"]
        .as_str()
        .map_or_else(|| answer.status.to_string(), |message| printable(message).into_owned())
}

/// Why there is no answer, in few words.
///
/// # Errors
/// What is wrong with the address: asking again does not help.
pub fn why(error: anyhow::Error) -> Result<String, ConfigError> {
    // The address is shown beside it, so the last cause is enough.
    let cause = error.root_cause().to_string();
    error.downcast::<ConfigError>().map_or_else(|_| Ok(printable(&cause).into_owned()), Err)
}

//! The inbox.

use crate::app::App;
use crate::error::Error;
use crate::event::{Session, Undelivered};

/// Keeps messages that did not reach their receivers.
pub async fn keep(_app: &App, _messages: &[&Undelivered]) -> Result<(), Error> {
    Err(Error::not_found("no inbox"))
}

/// Hands over what waits for users who came.
pub async fn hand_over(_app: &App, _sessions: &[Session]) -> Result<(), Error> {
    Ok(())
}

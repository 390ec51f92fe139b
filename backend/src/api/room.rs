//! Rooms.

use crate::app::App;
use crate::error::Error;
use crate::event::Event;

/// Takes sessions that came, ended, joined and left.
pub async fn take(_app: &App, _events: &[Event]) -> Result<(), Error> {
    Ok(())
}

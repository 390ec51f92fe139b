//! What is needed to send owners their sessions.

use shard::ConnMap;

use crate::effect::Effects;
use crate::session::{Names, Session};
use crate::view::View;

/// The owners of users, the sessions, and where to put mail.
pub(crate) struct Telling<'a> {
    pub(crate) view: &'a View,
    pub(crate) sessions: &'a mut ConnMap<Session>,
    pub(crate) names: Names,
    pub(crate) effects: &'a mut Effects,
}

//! What it takes to tell owners of sessions.

use shard::ConnMap;

use crate::effect::Effects;
use crate::session::{Names, Session};
use crate::view::View;

/// Who owns users, which sessions there are, and where to say it.
pub(crate) struct Telling<'a> {
    pub(crate) view: &'a View,
    pub(crate) sessions: &'a mut ConnMap<Session>,
    pub(crate) names: Names,
    pub(crate) effects: &'a mut Effects,
}

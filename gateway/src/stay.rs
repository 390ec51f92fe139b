//! What the bridge gets about a session that leaves a room.

use wire::node::Login;
use wire::{AppId, DeviceClass, UserId};

use crate::session::{Phase, Session};

/// A session in rooms, as the bridge knows it.
#[derive(Clone, Copy)]
pub(crate) struct Stay {
    pub(crate) app: AppId,
    pub(crate) user: UserId,
    pub(crate) device: DeviceClass,
    pub(crate) login: Login,
    /// Whether the bridge knows its rooms: it is bound.
    pub(crate) is_told: bool,
}

impl Stay {
    pub(crate) fn of(session: &Session) -> Self {
        let Session { app, user, device, login, phase, .. } = *session;
        Self { app, user, device, login, is_told: phase == Phase::Live }
    }
}

//! What an engine gets to run a shard with.

use std::sync::Arc;

use crossbeam_channel::Sender;
use shard::ShardId;
use socket2::Socket;

use crate::mailbox::Post;
use crate::{Options, Stats};

/// What a shard's thread has besides its core.
pub(crate) struct Seat<M, R> {
    pub(crate) id: ShardId,
    /// In the order of [`Options::listen`].
    pub(crate) listeners: Vec<Socket>,
    pub(crate) post: Post<M, R>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) options: Arc<Options>,
    /// Hears once that the engine is set up.
    pub(crate) ready: Sender<()>,
}

impl<M, R> Seat<M, R> {
    /// Reports that the engine is set up and the core built. An engine that returns without this has failed
    /// to start.
    pub(crate) fn ready(&self) {
        let _ = self.ready.send(()); // nobody waits when another shard failed first
    }
}

//! The life of a connection, as every engine and the simulator drive it.
//!
//! ```text
//! connecting -> open -> flushing -> draining -> ended
//! ```
//!
//! - Connecting: a connect is under way; the core does not know the connection yet.
//! - Open: it is read and written.
//! - Flushing: the core has closed it, and may still have bytes to write. What comes in is discarded.
//! - Draining: all is written, and the FIN is sent; the peer's FIN is awaited.
//! - Ended: the core gets this once.
//!
//! An engine reports what happened to the socket or what the core wants, and does what the method returns. It
//! must watch two things itself: a batch in flight delays the flush, and a close that takes too long ends.

use crate::{CloseReason, Linger};

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    stage: Stage,
    has_finished: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Connecting,
    Open,
    Flushing,
    Draining,
    Ended(CloseReason),
}

// An engine keeps one for each of a million connections.
const _: () = assert!(size_of::<Life>() == 2);

/// What to do when the core closes a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// Nothing: it is closing already, or has ended.
    Ignored,
    /// See that it ends in time, and flush it once no batch is in flight: write what the core still has, then
    /// send the FIN and call [`Life::drain`].
    Flush,
    /// It has ended; reset the socket.
    Reset,
}

/// What to do when the peer's FIN has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finishing {
    /// Nothing: the core has closed the connection, and what it has to say is still being written.
    Ignored,
    /// Tell the core.
    Tell,
    /// It has ended.
    End,
}

impl Life {
    /// A connect is under way.
    pub const fn connecting() -> Self {
        Self { stage: Stage::Connecting, has_finished: false }
    }

    /// Open; the core is about to get it.
    pub const fn open() -> Self {
        Self { stage: Stage::Open, has_finished: false }
    }

    /// The connect succeeded. Returns false if it was given up before.
    pub fn connected(&mut self) -> bool {
        let was_connecting = self.is_connecting();
        if was_connecting {
            self.stage = Stage::Open;
        }
        was_connecting
    }

    /// The core closes it. A flush that is under way may be turned into a reset.
    pub fn close(&mut self, linger: Linger) -> Closing {
        match (linger, self.stage) {
            (_, Stage::Connecting | Stage::Ended(_)) | (Linger::Flush, Stage::Flushing | Stage::Draining) => {
                Closing::Ignored
            }
            (Linger::Flush, Stage::Open) => {
                self.stage = Stage::Flushing;
                Closing::Flush
            }
            (Linger::Abort, Stage::Open | Stage::Flushing | Stage::Draining) => {
                self.stage = Stage::Ended(CloseReason::Local);
                Closing::Reset
            }
        }
    }

    /// All output of the core is written, and the FIN is sent, unless the connection `is_cut`. Returns
    /// whether it has ended.
    pub fn drain(&mut self, is_cut: bool) -> bool {
        assert!(self.is_flushing(), "the FIN follows what is flushed");
        let ends = is_cut || self.has_finished;
        self.stage = if ends { Stage::Ended(CloseReason::Local) } else { Stage::Draining };
        ends
    }

    /// The peer's FIN has come, and the core may get it.
    pub fn finish(&mut self) -> Finishing {
        self.has_finished = true;
        match self.stage {
            Stage::Open => Finishing::Tell,
            Stage::Draining => {
                self.stage = Stage::Ended(CloseReason::Local);
                Finishing::End
            }
            Stage::Connecting | Stage::Flushing | Stage::Ended(_) => Finishing::Ignored,
        }
    }

    /// The peer's FIN has come, and the core gets it later, by [`Life::finish`]. A close need not wait for
    /// that.
    pub fn note_finish(&mut self) {
        self.has_finished = true;
    }

    /// The socket has failed. This is no failure if the core had closed the connection. Returns false if it
    /// had ended before.
    pub fn fail(&mut self, reason: CloseReason) -> bool {
        self.end(if self.is_open() { reason } else { CloseReason::Local })
    }

    /// It is over. Returns false if it had ended before.
    pub fn end(&mut self, reason: CloseReason) -> bool {
        let ends = !self.has_ended();
        if ends {
            self.stage = Stage::Ended(reason);
        }
        ends
    }

    /// Whether a connect is under way.
    pub fn is_connecting(self) -> bool {
        self.stage == Stage::Connecting
    }

    /// Whether it is read and written for the core.
    pub fn is_open(self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the core has closed it and may still have bytes to write.
    pub fn is_flushing(self) -> bool {
        self.stage == Stage::Flushing
    }

    /// Whether the core has closed it, and it has not ended.
    pub fn is_closing(self) -> bool {
        matches!(self.stage, Stage::Flushing | Stage::Draining)
    }

    /// Whether it has ended.
    pub fn has_ended(self) -> bool {
        matches!(self.stage, Stage::Ended(_))
    }

    /// How it ended.
    pub fn ended(self) -> Option<CloseReason> {
        match self.stage {
            Stage::Ended(reason) => Some(reason),
            Stage::Connecting | Stage::Open | Stage::Flushing | Stage::Draining => None,
        }
    }

    /// Whether the peer's FIN has come.
    pub fn has_finished(self) -> bool {
        self.has_finished
    }

    /// Whether something may come from the peer that matters: bytes for the core, or the FIN.
    pub fn is_heard(self) -> bool {
        !self.has_finished && matches!(self.stage, Stage::Open | Stage::Flushing | Stage::Draining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graceful_close_waits_for_the_peer() {
        let mut life = Life::connecting();
        assert_eq!(life.close(Linger::Abort), Closing::Ignored, "the core does not know it");
        assert!(life.connected() && !life.connected());
        assert!(life.is_open() && life.is_heard());
        assert_eq!(life.close(Linger::Flush), Closing::Flush);
        assert_eq!(life.close(Linger::Flush), Closing::Ignored);
        assert!(life.is_flushing() && life.is_closing() && life.is_heard());
        assert!(!life.drain(false));
        assert!(life.is_closing() && !life.is_flushing());
        assert_eq!(life.finish(), Finishing::End);
        assert_eq!(life.ended(), Some(CloseReason::Local));
        assert!(!life.is_heard() && !life.end(CloseReason::Failed), "it ends once");
    }

    #[test]
    fn a_peer_that_has_finished_is_not_waited_for() {
        let mut life = Life::open();
        assert_eq!(life.finish(), Finishing::Tell);
        assert!(life.is_open() && !life.is_heard());
        assert_eq!(life.close(Linger::Flush), Closing::Flush);
        assert!(life.drain(false) && life.has_ended());
        let mut life = Life::open();
        life.note_finish();
        assert_eq!(life.close(Linger::Flush), Closing::Flush);
        assert_eq!(life.finish(), Finishing::Ignored);
        assert!(life.drain(false));
    }

    #[test]
    fn a_flush_may_be_cut_short() {
        for stages in 0..3 {
            let mut life = Life::open();
            if stages > 0 {
                assert_eq!(life.close(Linger::Flush), Closing::Flush);
            }
            if stages > 1 {
                assert!(!life.drain(false));
            }
            assert_eq!(life.close(Linger::Abort), Closing::Reset);
            assert_eq!(life.ended(), Some(CloseReason::Local));
        }
        let mut life = Life::open();
        assert_eq!(life.close(Linger::Flush), Closing::Flush);
        assert!(life.drain(true), "the socket takes no FIN");
    }

    #[test]
    fn what_fails_after_a_close_was_asked_for() {
        let mut life = Life::open();
        assert!(life.fail(CloseReason::Reset));
        assert_eq!(life.ended(), Some(CloseReason::Reset));
        let mut life = Life::open();
        assert_eq!(life.close(Linger::Flush), Closing::Flush);
        assert!(life.fail(CloseReason::Reset));
        assert_eq!(life.ended(), Some(CloseReason::Local));
        assert!(!life.fail(CloseReason::Reset));
    }
}

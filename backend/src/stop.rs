//! When workers end.

use tokio::sync::watch;

/// Tells a worker when to end.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl From<watch::Receiver<bool>> for Stop {
    fn from(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }
}

impl Stop {
    /// Waits until it is time to end.
    pub async fn wait(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await; // a sender that is gone means the same
    }

    /// Whether it is time to end.
    pub fn is_due(&self) -> bool {
        *self.0.borrow()
    }
}

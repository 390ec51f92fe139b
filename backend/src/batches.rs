//! Work of many callers, done together: requests that come during a batch are the next batch.
//!
//! When many come, a batch waits a millisecond for more: a server that writes its log to the disk for each
//! batch, as Redis does, would otherwise spend more on that than on the work.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::error::Error;

/// After a batch of this size, the next one waits for more requests.
const MANY: usize = 4;
/// How long it waits.
const GATHER: Duration = Duration::from_millis(1);

/// A request, and where its result goes.
pub type Entry<I, O> = (I, oneshot::Sender<Result<O, Error>>);

/// Entries on their way to [`Batches::run`].
pub struct Batches<I, O> {
    entries: mpsc::Sender<Entry<I, O>>,
    taken: Mutex<Option<mpsc::Receiver<Entry<I, O>>>>,
}

impl<I, O> Batches<I, O> {
    /// Of up to `most` waiting entries.
    pub fn new(most: usize) -> Self {
        let (entries, taken) = mpsc::channel(most);
        Self { entries, taken: Mutex::new(Some(taken)) }
    }

    /// One entry's result. 503 if too many wait, or when this process ends.
    pub async fn ask(&self, entry: I) -> Result<O, Error> {
        let (answer, answered) = oneshot::channel();
        let busy = |_| {
            Error::unavailable(
                "busy",
                "too many requests wait for the same work; send the same request again later",
            )
        };
        self.entries.try_send((entry, answer)).map_err(busy)?;
        answered.await.unwrap_or_else(|_| Err(Error::unavailable("ending", "this process ends")))
    }

    /// The entries, for a caller that takes them without [`Batches::run`].
    pub fn entries(&self) -> Option<mpsc::Receiver<Entry<I, O>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Does the work, batch by batch of up to `most` entries, until `end`: `work` returns one result for
    /// each.
    pub async fn run<F>(&self, most: usize, end: impl Future<Output = ()>, work: impl Fn(Vec<I>) -> F)
    where
        F: Future<Output = Result<Vec<O>, Error>>,
    {
        if let Some(taken) = self.entries() {
            run(taken, most, end, work).await;
        }
    }
}

/// Does the work on these entries, until `end`, or until nobody can ask any more.
pub async fn run<I, O, F>(
    mut entries: mpsc::Receiver<Entry<I, O>>,
    most: usize,
    end: impl Future<Output = ()>,
    work: impl Fn(Vec<I>) -> F,
) where
    F: Future<Output = Result<Vec<O>, Error>>,
{
    let mut end = std::pin::pin!(end);
    let mut batch = Vec::with_capacity(most);
    let mut last = 0;
    loop {
        let count = tokio::select! {
            biased; // what was asked is answered before the end
            count = entries.recv_many(&mut batch, most) => count,
            () = &mut end => 0,
        };
        if count == 0 {
            return;
        }
        if last >= MANY && count < most {
            tokio::time::sleep(GATHER).await;
            while batch.len() < most
                && let Ok(entry) = entries.try_recv()
            {
                batch.push(entry);
            }
        }
        last = batch.len();
        let (entries, answers): (Vec<I>, Vec<_>) = batch.drain(..).unzip();
        match work(entries).await {
            Ok(results) => answers.into_iter().zip(results).for_each(|(answer, result)| {
                let _ = answer.send(Ok(result)); // the caller may have gone
            }),
            Err(error) => answers.into_iter().for_each(|answer| {
                let _ = answer.send(Err(error.clone()));
            }),
        }
    }
}

//! How many requests are worked on at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::timeout;

use crate::stats::Refusal;

/// How long a request waits for its turn before it is refused.
const TURN_TIME: Duration = Duration::from_secs(10);

/// Requests that share one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Those of users, and of anybody.
    Callers,
    /// Those of the operator's own services and tools. Callers cannot take their places.
    Services,
}

/// The places of one class: so many in all, and so many of each address. An address whose share is at work
/// waits in a queue of its own; with its share alone it stands in the queue of all.
pub struct Turns {
    all: Arc<Semaphore>,
    requests_max: usize,
    address_requests_max: usize,
    by_address: Mutex<HashMap<IpAddr, Share>>,
}

/// The places of an address, and how many requests have a turn there or wait for it.
struct Share {
    places: Arc<Semaphore>,
    requests: usize,
}

impl Turns {
    pub fn new(requests_max: u32, address_requests_max: u32) -> Arc<Self> {
        let requests_max = requests_max as usize;
        let all = Arc::new(Semaphore::new(requests_max));
        let address_requests_max = address_requests_max as usize;
        Arc::new(Self { all, requests_max, address_requests_max, by_address: Mutex::default() })
    }

    /// A request's turn, which has not begun.
    pub fn of(self: &Arc<Self>, address: IpAddr) -> Turn {
        let new = || Share { places: Arc::new(Semaphore::new(self.address_requests_max)), requests: 0 };
        let mut by_address = self.by_address();
        let share = by_address.entry(address).or_insert_with(new);
        share.requests += 1;
        Turn { turns: self.clone(), address, own: share.places.clone(), places: Mutex::new(None) }
    }

    /// Requests that are worked on.
    pub fn at_work(&self) -> usize {
        self.requests_max - self.all.available_permits()
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, Share>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's turn. It ends when this is dropped.
pub struct Turn {
    turns: Arc<Turns>,
    address: IpAddr,
    own: Arc<Semaphore>,
    places: Mutex<Option<Places>>,
}

/// In the share of the address, and in all.
type Places = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Turn {
    /// Begins the turn, or returns false if that means to wait.
    pub fn try_begin(&self) -> bool {
        let places = || -> Result<Places, TryAcquireError> {
            Ok((self.own.clone().try_acquire_owned()?, self.turns.all.clone().try_acquire_owned()?))
        };
        let places = places().ok();
        let has_begun = places.is_some();
        *self.places() = places;
        has_begun
    }

    /// Begins the turn as soon as there are places.
    ///
    /// # Errors
    /// Which places there were none of in time.
    pub async fn begin(&self) -> Result<(), Refusal> {
        let own = acquire(&self.own).await.ok_or(Refusal::AddressRequests)?;
        let all = acquire(&self.turns.all).await.ok_or(Refusal::Requests)?;
        *self.places() = Some((own, all));
        Ok(())
    }

    /// Ends the turn for now: the request waits for its caller. [`Turn::begin`] goes on with it.
    pub fn pause(&self) {
        self.places().take();
    }

    fn places(&self) -> MutexGuard<'_, Option<Places>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.pause();
        let mut by_address = self.turns.by_address();
        if let Some(share) = by_address.get_mut(&self.address) {
            share.requests -= 1;
            if share.requests == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// A place, if there is one in time.
async fn acquire(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    timeout(TURN_TIME, places.clone().acquire_owned()).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    fn begun(turns: &Arc<Turns>, address: IpAddr) -> Option<Turn> {
        let turn = turns.of(address);
        turn.try_begin().then_some(turn)
    }

    #[test]
    fn an_address_has_its_share_of_all_places() {
        let turns = Turns::new(3, 2);
        let mut of_a: Vec<Turn> = (0..2).filter_map(|_| begun(&turns, A)).collect();
        assert!(begun(&turns, A).is_none(), "its share is at work");
        let of_b = begun(&turns, B).unwrap();
        assert!(begun(&turns, B).is_none(), "all places are taken");
        of_a.pop();
        assert!(begun(&turns, B).is_some());
        of_b.pause();
        assert_eq!(turns.at_work(), 1);
        drop((of_a, of_b));
        assert_eq!(turns.at_work(), 0);
        assert!(turns.by_address().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_refused() {
        let turns = Turns::new(2, 1);
        let turn = begun(&turns, A).unwrap();
        assert!(matches!(turns.of(A).begin().await, Err(Refusal::AddressRequests)));
        let of_b = begun(&turns, B).unwrap();
        let other = IpAddr::from([1, 2, 3, 4]);
        assert!(matches!(turns.of(other).begin().await, Err(Refusal::Requests)));
        drop(turn);
        assert!(turns.of(other).begin().await.is_ok());
        drop(of_b);
        assert_eq!((turns.at_work(), turns.by_address().len()), (0, 0));
    }
}

//! How many requests of one address may be refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Addresses that are remembered; the refusals of others are not counted.
const ADDRESSES_MAX: usize = 65_536;
/// How much of its rate an address may use at once.
const BURST: Duration = Duration::from_secs(10);
/// How often addresses that have nothing left to wait for are looked for, when there are too many.
const SWEEP: Duration = Duration::from_secs(1);

/// A rate for each address: the generic cell rate algorithm (ITU-T I.371), which remembers one time.
pub struct Refusals {
    /// The time that one refusal uses up.
    each: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When an address has all of its burst again.
    full_again: HashMap<IpAddr, Instant>,
    swept: Option<Instant>,
}

impl Refusals {
    pub fn new(per_second: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second, state: Mutex::default() }
    }

    /// Counts a request as refused before it is looked at; `false` if there were too many.
    /// [`Refusals::forgive`] undoes it.
    pub fn count(&self, address: IpAddr, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.full_again.len() >= ADDRESSES_MAX && !state.full_again.contains_key(&address) {
            state.sweep(now);
            if state.full_again.len() >= ADDRESSES_MAX {
                return true;
            }
        }
        let full_again = state.full_again.entry(address).or_insert(now);
        let next = (*full_again).max(now) + self.each;
        let is_within = next - now <= BURST;
        if is_within {
            *full_again = next;
        }
        is_within
    }

    /// The request was not refused.
    pub fn forgive(&self, address: IpAddr, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_again) = state.full_again.get_mut(&address) {
            match full_again.checked_sub(self.each) {
                Some(earlier) if earlier > now => *full_again = earlier,
                _ => drop(state.full_again.remove(&address)),
            }
        }
    }
}

impl State {
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now - swept >= SWEEP) {
            self.swept = Some(now);
            self.full_again.retain(|_, full_again| *full_again > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    #[test]
    fn an_address_has_a_burst_and_then_its_rate() {
        let (refusals, start) = (Refusals::new(5), Instant::now());
        let burst = (0..100).filter(|_| refusals.count(A, start)).count();
        assert_eq!(burst, 50);
        assert!(refusals.count(B, start), "another address has its own");
        let later = start + Duration::from_secs(2);
        assert_eq!((0..100).filter(|_| refusals.count(A, later)).count(), 10);
    }

    #[test]
    fn what_was_not_refused_costs_nothing() {
        let (refusals, now) = (Refusals::new(1), Instant::now());
        for _ in 0..1_000 {
            assert!(refusals.count(A, now));
            refusals.forgive(A, now);
        }
        assert!(refusals.state.lock().unwrap().full_again.is_empty());
    }

    #[test]
    fn a_crowd_of_addresses_is_bounded() {
        let (refusals, start) = (Refusals::new(1), Instant::now());
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..2 * ADDRESSES_MAX as u32 {
            assert!(refusals.count(address(n), start));
        }
        let known = || refusals.state.lock().unwrap().full_again.len();
        assert_eq!(known(), ADDRESSES_MAX);
        refusals.count(address(u32::MAX), start + Duration::from_secs(60));
        assert_eq!(known(), 1);
    }
}

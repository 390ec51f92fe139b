//! Numbers that no other test of this machine has at the same time.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};

/// Where free ports are looked for. Ports that the kernel picks by itself begin at 32768.
const PORTS: Range<u32> = 12_000..32_000;

/// A number of some kind, until it is dropped or the process has ended.
///
/// The claim is the lock on a file that is named after the number, so it holds between processes too.
#[derive(Debug)]
pub struct Claim {
    number: u32,
    _lock: File,
}

impl Claim {
    /// Claims one of `numbers`. `kind` tells ports from other numbers; it is a part of a file name.
    pub fn new(kind: &str, numbers: Range<u32>) -> Self {
        Self::find(kind, numbers, |_| true)
    }

    /// The same for numbers that `is_free` accepts.
    fn find(kind: &str, numbers: Range<u32>, is_free: impl Fn(u32) -> bool) -> Self {
        let folder = std::env::temp_dir().join("sailfish-claims");
        std::fs::create_dir_all(&folder).unwrap();
        let length = numbers.end - numbers.start;
        let first = std::process::id().wrapping_mul(101); // spreads processes, so that few of them meet
        for step in 0..length {
            let number = numbers.start + first.wrapping_add(step) % length;
            let path = folder.join(format!("{kind}-{number}"));
            // Another user's file is as good as a lock.
            let Ok(lock) = OpenOptions::new().create(true).append(true).mode(0o600).open(path) else {
                continue;
            };
            if lock.try_lock().is_ok() && is_free(number) {
                return Self { number, _lock: lock };
            }
        }
        panic!("no {kind} is free in {numbers:?}");
    }

    /// The number that is claimed.
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// A port of 127.0.0.1 that nobody listens on and that no other test gets while this process lives.
pub fn free_port() -> u16 {
    static CLAIMED: Mutex<Vec<Claim>> = Mutex::new(Vec::new());
    let claim =
        Claim::find("port", PORTS, |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port as u16)).is_ok());
    let port = claim.number() as u16;
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
    port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_claimed_once_until_it_is_dropped() {
        let numbers = 0..2;
        let kind = format!("of-process-{}", std::process::id());
        let (one, other) = (Claim::new(&kind, numbers.clone()), Claim::new(&kind, numbers.clone()));
        assert_ne!(one.number(), other.number());
        assert!(std::panic::catch_unwind(|| Claim::new(&kind, 0..2)).is_err());
        let number = one.number();
        drop(one);
        assert_eq!(Claim::new(&kind, numbers).number(), number);
    }

    #[test]
    fn a_port_is_given_once() {
        let mut ports: Vec<u16> = (0..32).map(|_| free_port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 32);
    }
}

//! How many bytes of bodies are in memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::limits::Limits;
use crate::stats::Refusal;

/// The budget of all bodies, and the share of each address.
pub struct Bodies {
    bytes_max: u64,
    address_bytes_max: u64,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    bytes: u64,
    by_address: HashMap<IpAddr, u64>,
}

impl Bodies {
    pub fn new(limits: &Limits) -> Self {
        Self {
            bytes_max: limits.bodies_bytes_max.into(),
            address_bytes_max: limits.address_bodies_bytes_max.into(),
            taken: Mutex::default(),
        }
    }

    /// Takes bytes for a body from `address`, all or none.
    pub fn take(&self, address: IpAddr, bytes: u64) -> Result<(), Refusal> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_address.get(&address).copied().unwrap_or_default() + bytes;
        if own > self.address_bytes_max {
            return Err(Refusal::AddressBodies);
        }
        if taken.bytes + bytes > self.bytes_max {
            return Err(Refusal::Bodies);
        }
        taken.bytes += bytes;
        taken.by_address.insert(address, own);
        Ok(())
    }

    /// Gives bytes back.
    pub fn give_back(&self, address: IpAddr, bytes: u64) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.bytes -= bytes;
        if let Some(own) = taken.by_address.get_mut(&address) {
            *own -= bytes;
            if *own == 0 {
                taken.by_address.remove(&address);
            }
        }
    }

    /// Bytes that are taken.
    pub fn bytes(&self) -> u64 {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

//! What is counted of one HTTP port.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why something was turned away.
#[derive(Clone, Copy)]
pub enum Refusal {
    /// There are too many connections, and all are at work.
    Connections,
    /// The same of those from the caller's address.
    AddressConnections,
    /// Too many bytes of bodies are in memory.
    Bodies,
    /// The same of requests from the caller's address.
    AddressBodies,
    /// Too many requests from the caller's address were refused.
    AddressRefusals,
    /// Too many requests are worked on.
    Requests,
    /// The same of those from the caller's address.
    AddressRequests,
}

/// Why a connection was closed before its caller did so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It waited while another one came that there was no room for.
    Evicted,
    /// The header took too long.
    Header,
    /// No further request came.
    Idle,
    /// The body took too long.
    Body,
    /// The answer was not read.
    Answer,
}

const REFUSALS: [(Refusal, &str); 7] = [
    (Refusal::Connections, "connections"),
    (Refusal::AddressConnections, "address_connections"),
    (Refusal::Bodies, "bodies"),
    (Refusal::AddressBodies, "address_bodies"),
    (Refusal::AddressRefusals, "address_refusals"),
    (Refusal::Requests, "requests"),
    (Refusal::AddressRequests, "address_requests"),
];

const CUTS: [(Cut, &str); 5] = [
    (Cut::Evicted, "evicted"),
    (Cut::Header, "header"),
    (Cut::Idle, "idle"),
    (Cut::Body, "body"),
    (Cut::Answer, "answer"),
];

#[derive(Default)]
pub struct Stats {
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    refused: [AtomicU64; REFUSALS.len()],
    cut: [AtomicU64; CUTS.len()],
}

/// What was counted since the start, and what is there at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Open connections.
    pub connections: u64,
    /// Requests that are worked on, of those that are counted.
    pub requests: u64,
    /// Bytes of bodies in memory.
    pub bodies_bytes: u64,
    /// Connections taken.
    pub accepted: u64,
    /// Connections that could not be taken, for want of files above all.
    pub accept_errors: u64,
    /// Connections and requests that were turned away, by reason.
    pub refused: [(&'static str, u64); 7],
    /// Connections that were closed before their callers did so, by reason.
    pub cut: [(&'static str, u64); 5],
}

impl Stats {
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn accept_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn cut(&self, cut: Cut) {
        self.cut[cut as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self, connections: u64, requests: u64, bodies_bytes: u64) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connections,
            requests,
            bodies_bytes,
            accepted: get(&self.accepted),
            accept_errors: get(&self.accept_errors),
            refused: REFUSALS.map(|(refusal, name)| (name, get(&self.refused[refusal as usize]))),
            cut: CUTS.map(|(cut, name)| (name, get(&self.cut[cut as usize]))),
        }
    }
}

//! What a server shares with the requests that it passes on.

use crate::bodies::Bodies;
use crate::limits::Limits;
use crate::stats::Stats;

/// One port: its limits, its counts, and the budget of its bodies.
pub struct Port {
    pub limits: Limits,
    pub stats: Stats,
    pub bodies: Bodies,
}

impl Port {
    /// A port that nobody has called yet.
    pub fn new(limits: Limits) -> Self {
        Self { stats: Stats::default(), bodies: Bodies::new(&limits), limits }
    }
}

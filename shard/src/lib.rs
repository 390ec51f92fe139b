//! All that a deterministic core may know of the world: the contract with the engine, time, ids, timers and
//! bounded containers. And the life of a connection, which every engine drives.
//!
//! Nothing here reads a clock, opens a socket, starts a thread or asks the system for randomness. The same
//! seed and the same events give the same effects, byte for byte.

mod bounded_queue;
mod bucket;
mod chunk;
mod conn_map;
mod contract;
mod fair_pool;
mod ids;
mod life;
mod prng;
mod send_batch;
mod shares;
mod slab;
mod time;
mod wheel;

pub use bounded_queue::BoundedQueue;
pub use bucket::{Bucket, Rate, SharedBucket};
pub use conn_map::ConnMap;
pub use contract::{CloseReason, ConnectError, Effect, Event, Linger, Shard};
pub use fair_pool::FairPool;
pub use ids::{ConnId, ShardId};
pub use life::{Closing, Finishing, Life};
pub use prng::Prng;
pub use send_batch::{SEND_BATCH_BYTES_MAX, Segment, SendBatch};
pub use shares::{Amount, Shares};
pub use slab::{Key, Slab};
pub use time::{Clocks, Instant};
pub use wheel::{TimerId, Wheel};

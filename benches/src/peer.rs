//! One publisher and many receivers over any fan-out protocol, so that the gateway and its peers face the
//! same client.

mod dialect;
mod driver;
mod epoll;
mod mqtt;
mod nats;
mod sailfish;
mod usage;

pub use dialect::{Dialect, Item, Role};
pub use driver::{Plan, run};
pub use mqtt::Mqtt;
pub use nats::Nats;
pub use sailfish::Sailfish;
pub use usage::Usage;

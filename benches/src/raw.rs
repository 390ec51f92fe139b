//! The raw loops: one thread, one socket table, nothing but the system calls that the work needs.

mod buffer_ring;
mod epoll;
mod protocol;
mod uring;

pub use epoll::run as run_epoll;
pub use uring::run as run_uring;

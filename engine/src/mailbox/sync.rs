//! What a mailbox is made of. The model tests build the same mailbox of parts that are watched.

pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};

pub(super) use crossbeam_queue::ArrayQueue;

pub(super) use crate::sys::EventFd;

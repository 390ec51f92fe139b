//! Whether the process was started with a stdout.
//!
//! The runtime of Rust opens `/dev/null` in the place of a stdout that is closed, before `main` runs. So a
//! write there succeeds, and a script that closed it with `>&-` would believe that the output went somewhere.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the process was started without a stdout. What is written there reaches nobody.
pub fn stdout_was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    // SAFETY: takes no pointer.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags < 0, Ordering::Relaxed);
}

/// The loader calls what stands in this section before the runtime of Rust begins.
// SAFETY: the section has pointers to functions of this type, and `look` needs nothing of the runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

//! Whether the kernel has what the engine needs.

use std::thread;

use io_uring::{IoUring, Probe, opcode};

/// `Err` says what is missing, in a few words.
///
/// A thread of its own asks: the kernel takes a ring down in the background and then interrupts the thread
/// that made it, whose blocking calls would fail with `EINTR`.
pub(crate) fn probe() -> Result<(), String> {
    let asker = thread::Builder::new().name("io_uring probe".into()).spawn(ask);
    let asker = asker.map_err(|error| format!("no thread to probe io_uring with: {error}"))?;
    asker.join().unwrap_or_else(|_| Err("the io_uring probe panicked".into()))
}

fn ask() -> Result<(), String> {
    let ring: IoUring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8).map_err(
        |error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "io_uring is forbidden (sysctl io_uring_disabled, or seccomp)".into()
            }
            Some(libc::ENOSYS) => "the kernel has no io_uring".into(),
            Some(libc::EINVAL) => "the kernel's io_uring is older than Linux 6.1".into(),
            _ => format!("io_uring_setup: {error}"),
        },
    )?;
    // DEFER_TASKRUN (6.1) is younger than multishot receive (6.0) and provided-buffer rings (5.19); the
    // operations themselves may still be filtered.
    let mut known = Probe::new();
    ring.submitter().register_probe(&mut known).map_err(|error| format!("io_uring probe: {error}"))?;
    let needed = [
        ("accept", opcode::AcceptMulti::CODE),
        ("recv", opcode::RecvMulti::CODE),
        ("send", opcode::Send::CODE),
        ("sendmsg", opcode::SendMsg::CODE),
        ("connect", opcode::Connect::CODE),
        ("close", opcode::Close::CODE),
        ("poll", opcode::PollAdd::CODE),
        ("cancel", opcode::AsyncCancel::CODE),
    ];
    match needed.into_iter().find(|(_, code)| !known.is_supported(*code)) {
        Some((name, _)) => Err(format!("io_uring has no {name}")),
        None if !ring.params().is_feature_ext_arg() => Err("io_uring has no wait with a timeout".into()),
        None => Ok(()),
    }
}

//! Numbers that no other test of this machine has at the same time.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// Where free ports are looked for. Ports that the kernel picks by itself begin at 32768.
const PORTS: Range<u32> = 12_000..32_000;

/// What this process has claimed. Each is the lock on a file that is named after the number, so it holds
/// between processes too, and ends with this one.
static CLAIMED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Claims one of `numbers` for as long as this process lives: no test gets a number that another one had,
/// whose processes may not have ended yet. `kind` tells ports from other numbers; it is a part of a file
/// name.
pub fn claim(kind: &str, numbers: Range<u32>) -> u32 {
    claim_if(kind, numbers, |_| true)
}

/// The same for numbers that `is_free` accepts.
fn claim_if(kind: &str, numbers: Range<u32>, is_free: impl Fn(u32) -> bool) -> u32 {
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
            CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return number;
        }
    }
    panic!("no {kind} is free in {numbers:?}");
}

/// Whether nobody listens on an address.
///
/// It is tried without listening. A process that another thread starts has a copy of all our sockets until it
/// runs its program, and a listening copy would keep the address from whoever wants it next.
pub fn is_free(address: SocketAddr) -> bool {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    bind().is_ok()
}

/// How long a listener that was dropped may live on, as a copy in a process that has not run its program yet.
const COPIES_LAST: Duration = Duration::from_secs(10);

/// Listens on an address where this process may have listened before.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let start = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < COPIES_LAST => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

/// A port of 127.0.0.1 that nobody listens on and that no other test gets while this process lives.
pub fn free_port() -> u16 {
    claim_if("port", PORTS, |port| is_free((Ipv4Addr::LOCALHOST, port as u16).into())) as u16
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_number_is_claimed_once() {
        let kind = format!("of-process-{}", std::process::id());
        let claimed = [claim(&kind, 0..2), claim(&kind, 0..2)];
        assert_ne!(claimed[0], claimed[1]);
        assert!(std::panic::catch_unwind(|| claim(&kind, 0..2)).is_err());
    }

    #[test]
    fn a_port_is_given_once() {
        let mut ports: Vec<u16> = (0..32).map(|_| free_port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 32);
    }

    #[test]
    fn a_port_can_be_listened_on_while_other_threads_start_processes() {
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
            let listened = (0..500).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())));
            let listened: io::Result<Vec<_>> = listened.collect();
            let again = listened.and_then(|listeners| {
                let addresses: Vec<_> =
                    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
                assert!(!addresses.iter().any(|address| is_free(*address)));
                drop(listeners);
                addresses.into_iter().map(listen).collect::<io::Result<Vec<_>>>()
            });
            end.store(true, Ordering::Relaxed);
            assert_eq!(again.unwrap().len(), 500);
        });
    }
}

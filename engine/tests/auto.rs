//! Where io_uring is forbidden, as in default containers, epoll serves, and the other engines say what is
//! missing.

#![allow(unsafe_code)] // a filter on the test's own system calls
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // tests fail by panics, and wait for a real kernel

#[allow(dead_code)] // the conformance tests use all of it
#[path = "conformance/harness.rs"]
mod harness;

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use engine::{Kind, choose};
use harness::{Hands, Rig, Seen, echo, exchange, options, shard};

#[test]
fn a_container_that_forbids_io_uring_gets_epoll() {
    without_io_uring(libc::EPERM, || {
        let chosen = choose(None).unwrap();
        assert_eq!(chosen.kind, Kind::Epoll);
        assert!(chosen.reason.contains("forbidden"), "{}", chosen.reason);
        serves(chosen.kind);
    });
}

#[test]
fn a_kernel_without_io_uring_gets_epoll() {
    without_io_uring(libc::ENOSYS, || {
        let chosen = choose(None).unwrap();
        assert_eq!(chosen.kind, Kind::Epoll);
        assert!(chosen.reason.contains("no io_uring"), "{}", chosen.reason);
        serves(chosen.kind);
    });
}

#[test]
fn engines_that_need_io_uring_refuse_to_start_without_it() {
    without_io_uring(libc::EPERM, || {
        for kind in [Kind::Uring, Kind::Monoio, Kind::Glommio] {
            let error = choose(Some(kind)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(&kind.to_string()), "{error}");
            // Nor do they hang or abort when nobody asked first.
            assert!(Rig::try_start(kind, options(), vec![Box::new(echo)]).is_err(), "{kind}");
        }
    });
}

#[test]
fn the_filter_forbids() {
    without_io_uring(libc::EXDEV, || {
        // SAFETY: the call fails before it looks at a pointer.
        let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
        assert_eq!(result, -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EXDEV));
    });
}

/// Bytes, mail, time and a graceful close, on two shards.
fn serves(kind: Kind) {
    let forward = |hands: &mut Hands, seen: &Seen| match seen {
        Seen::Mail(_, number) => hands.mail(shard(1), number + 1),
        seen => echo(hands, seen),
    };
    let rig = Rig::start(kind, options(), vec![Box::new(forward), Box::new(echo)]);
    for _ in 0..10 {
        let mut stream = rig.dial();
        exchange(&mut stream, b"does it work");
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    }
    rig.tell(0, |hands| hands.mail(shard(0), 6));
    rig.find_at(1, |seen| (seen == Seen::Mail(shard(0), 7)).then_some(()));
    rig.tell(0, |hands| hands.timeout = Some(hands.now + Duration::from_millis(5)));
    rig.find(|seen| matches!(seen, Seen::Timeout(..)).then_some(()));
    rig.stop();
}

/// Runs `test` on a thread whose io_uring system calls, and those of threads it starts, fail with `errno`.
fn without_io_uring(errno: i32, test: impl FnOnce() + Send + 'static) {
    let filtered = thread::spawn(move || {
        forbid_io_uring(errno as u32);
        test();
    });
    if let Err(failure) = filtered.join() {
        std::panic::resume_unwind(failure);
    }
}

/// What a container's seccomp profile does.
fn forbid_io_uring(errno: u32) {
    let load_number = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_if_at_least = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    let jump_if_greater = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filter = [
        step(load_number, 0, 0, 0), // the number stands first in `seccomp_data`
        step(jump_if_at_least, 0, 2, libc::SYS_io_uring_setup as u32),
        step(jump_if_greater, 1, 0, libc::SYS_io_uring_register as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: both calls affect this thread and its children only; the kernel copies the program, which is
    // valid for its length.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

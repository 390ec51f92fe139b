//! Mail between shards, and time.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crossbeam_channel::bounded;
use engine::{Clock, Kind, MAILBOX_CAPACITY, Options};
use shard::{Effect, Instant, ShardId};

use crate::harness::{Behaviour, Hands, Mail, PATIENCE, Rig, Seen, dial, nothing, options, shard};

pub fn mail_goes_both_ways_between_control_and_shards(kind: Kind) {
    let answer = || -> Behaviour {
        Box::new(|hands, seen| {
            if let Seen::Mail(ShardId::CONTROL, number) = seen {
                hands.report(number + 1);
            }
        })
    };
    let rig = Rig::start(kind, options(), vec![answer(), answer()]);
    let remote = rig.running.remote();
    for round in 0..100 {
        for index in [0, 1] {
            assert!(remote.send(shard(index), Mail::Number(round)).is_ok());
            let told = rig.running.control().recv_timeout(PATIENCE).unwrap();
            assert_eq!(told, (shard(index), round + 1));
        }
    }
    assert!(remote.send(shard(2), Mail::Number(0)).is_err(), "there is no such shard");
    rig.stop();
    assert!(remote.send(shard(0), Mail::Number(0)).is_err(), "a stopped shard takes no mail");
}

/// Nothing comes in that would begin another turn.
pub fn what_a_turn_leaves_is_done_in_the_next(kind: Kind) {
    const TURNS: u64 = 100;
    let rig = Rig::one(kind, nothing);
    rig.tell(0, |hands| (0..TURNS).for_each(|number| hands.later(Effect::Report(number))));
    let told = |_| rig.running.control().recv_timeout(PATIENCE).unwrap().1;
    assert!((0..TURNS).map(told).eq(0..TURNS));
    assert!(rig.running.stats()[0].turns.get() >= TURNS);
    rig.stop();
}

pub fn full_mailboxes_lose_nothing_and_keep_order(kind: Kind) {
    const COUNT: u64 = 5 * MAILBOX_CAPACITY as u64;
    const SHARDS: u16 = 3;
    // Everyone sends to everyone, itself included, more in one turn than a mailbox holds.
    let behaviour = || -> Behaviour {
        let mut next = [0; SHARDS as usize];
        Box::new(move |hands, seen| {
            let Seen::Mail(from, number) = seen else { return };
            let wanted = &mut next[from.index() as usize];
            assert_eq!(number, wanted, "from {from:?}");
            *wanted += 1;
            if next.iter().all(|count| *count == COUNT) {
                hands.report(1);
            }
        })
    };
    let rig = Rig::start(kind, options(), (0..SHARDS).map(|_| behaviour()).collect());
    for index in 0..SHARDS {
        rig.tell(index, |hands| {
            for number in 0..COUNT {
                for to in 0..SHARDS {
                    hands.mail(shard(to), number);
                }
            }
        });
    }
    for _ in 0..SHARDS {
        rig.running.control().recv_timeout(PATIENCE).unwrap();
    }
    let stats = rig.running.stats();
    assert!(stats.iter().any(|stats| stats.mail_overflows.get() > 0), "nothing was pushed back");
    assert!(stats.iter().all(|stats| stats.mail_dropped.get() == 0));
    rig.stop();
}

pub fn a_pushed_back_shard_reads_no_socket(kind: Kind) {
    const COUNT: u64 = 2 * MAILBOX_CAPACITY as u64;
    let (go, gate) = bounded::<()>(0);
    let mut taken = 0;
    let blocked = move |hands: &mut Hands, seen: &Seen| {
        if let Seen::Mail(..) = seen {
            if taken == 0 {
                gate.recv_timeout(PATIENCE).unwrap();
            }
            taken += 1;
            if taken == COUNT {
                hands.report(taken);
            }
        }
    };
    let rig = Rig::start(kind, options(), vec![Box::new(nothing), Box::new(blocked)]);
    let mut stream = dial_shard_0(&rig);
    rig.tell(0, |hands| {
        for number in 0..COUNT {
            hands.mail(shard(1), number);
        }
        hands.report(0);
    });
    rig.running.control().recv_timeout(PATIENCE).unwrap();
    stream.write_all(b"wait").unwrap();
    assert_eq!(rig.within(0, Duration::from_millis(100)), None, "read although pushed back");
    // Mail is still taken.
    assert!(rig.running.remote().send(shard(0), Mail::Number(5)).is_ok());
    assert_eq!(rig.next(0), Seen::Mail(ShardId::CONTROL, 5));
    go.send(()).unwrap();
    assert!(matches!(rig.next(0), Seen::Received(_, bytes) if bytes == b"wait"));
    let (_, told) = rig.running.control().recv_timeout(PATIENCE).unwrap();
    assert_eq!(told, COUNT);
    rig.stop();
}

/// Shard 0 has more mail than shard 1 takes; shard 2 has nothing to do with either.
pub fn mail_that_waits_holds_the_clients_of_all_shards_and_no_link(kind: Kind) {
    const COUNT: u64 = 2 * MAILBOX_CAPACITY as u64;
    let (go, gate) = bounded::<()>(0);
    let blocked = move |_: &mut Hands, seen: &Seen| {
        if matches!(seen, Seen::Mail(_, 0)) {
            gate.recv_timeout(PATIENCE).unwrap();
        }
    };
    let apart = Options { listen_each: true, ..options() };
    let rig = Rig::start(kind, apart, vec![Box::new(nothing), Box::new(blocked), Box::new(nothing)]);
    let link = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = link.local_addr().unwrap();
    rig.tell(0, move |hands| hands.connect(1, address, None));
    let (mut link, _) = link.accept().unwrap();
    assert!(matches!(rig.next(0), Seen::Connected(..)));
    let mut client = dial(SocketAddr::new(rig.address().ip(), rig.address().port() + 2));
    assert!(matches!(rig.next(2), Seen::Accepted(..)));

    rig.tell(0, |hands| {
        (0..COUNT).for_each(|number| hands.mail(shard(1), number));
        hands.report(0);
    });
    rig.running.control().recv_timeout(PATIENCE).unwrap();
    for index in [0, 2] {
        wait_until_told(&rig, index, true);
    }
    client.write_all(b"wait").unwrap();
    link.write_all(b"go on").unwrap();
    assert!(matches!(rig.next(0), Seen::Received(_, bytes) if bytes == b"go on"));
    assert_eq!(rig.within(2, Duration::from_millis(100)), None, "read although mail waits");
    go.send(()).unwrap();
    assert!(matches!(rig.next(2), Seen::Received(_, bytes) if bytes == b"wait"));
    for index in [0, 2] {
        wait_until_told(&rig, index, false);
    }
    rig.stop();
}

/// A shard looks for what others have waiting at the start of a turn.
fn wait_until_told(rig: &Rig, index: u16, mail_waits: bool) {
    for _ in 0..10_000 {
        let (tell, told) = bounded(1);
        rig.tell(index, move |hands| tell.send(hands.mail_waits).unwrap());
        if told.recv_timeout(PATIENCE).unwrap() == mail_waits {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("shard {index} is not told");
}

pub fn timeouts_are_never_early(kind: Kind) {
    // The rig's core asserts that none comes early.
    let rig = Rig::one(kind, nothing);
    let mut latest = Duration::ZERO;
    for micros in [0, 1, 50, 300, 1000, 2500, 10_000, 60_000] {
        rig.tell(0, move |hands| hands.timeout = Some(hands.now + Duration::from_micros(micros)));
        let late = rig.find(|seen| match seen {
            Seen::Timeout(at, due) => Some(at.since(due)),
            _ => None,
        });
        latest = latest.max(late);
    }
    assert!(latest < Duration::from_secs(2), "{latest:?} late");
    // A far one is replaced by a near one, and never comes.
    rig.tell(0, |hands| hands.timeout = Some(hands.now + Duration::from_secs(3600)));
    rig.tell(0, |hands| hands.timeout = Some(hands.now));
    assert!(matches!(rig.next(0), Seen::Timeout(at, due) if at >= due && due > Instant::default()));
    rig.stop();
}

/// While a core does not return, its shard is as still as one whose process is stopped.
pub fn a_shard_that_stood_still_reads_before_its_deadlines_pass(kind: Kind) {
    const PEERS: usize = 200;
    for due_ms in [1, 300] {
        let rig = Rig::one(kind, nothing);
        let mut streams: Vec<TcpStream> = (0..PEERS).map(|_| rig.dial()).collect();
        for _ in 0..PEERS {
            assert!(matches!(rig.next(0), Seen::Accepted(..)));
        }
        let (go, gate) = bounded::<()>(0);
        rig.tell(0, move |hands| {
            hands.timeout = Some(hands.now + Duration::from_millis(due_ms));
            gate.recv_timeout(PATIENCE).unwrap();
        });
        streams.iter_mut().for_each(|stream| stream.write_all(b"here").unwrap());
        std::thread::sleep(Duration::from_millis(1_500));
        go.send(()).unwrap();
        for at in 0..PEERS {
            let seen = rig.next(0);
            assert!(matches!(&seen, Seen::Received(_, bytes) if bytes == b"here"), "{seen:?} after {at}");
        }
        match rig.next(0) {
            // By the core's time, of the 1,500 ms a tenth of a second has passed.
            Seen::Timeout(at, due) => {
                assert!(at.since(due) < Duration::from_millis(700), "{:?} late", at.since(due));
            }
            other => panic!("{other:?}"),
        }
        let still_ms = rig.running.stats()[0].stillness_ms.get();
        assert!(still_ms >= 1_000, "{still_ms} ms");
        rig.stop();
    }
}

pub fn the_wall_clock_is_told_where_it_differs(kind: Kind) {
    // As of a process that started two hours ahead, before the clock was set right.
    let ahead = Duration::from_secs(7_200).as_nanos() as u64;
    let clock = Clock::with_offset(Clock::start().offset() + ahead);
    let rig = Rig::start(kind, Options { clock, ..options() }, vec![Box::new(nothing)]);
    let (tell, told) = bounded(1);
    rig.tell(0, move |hands| tell.send(hands.clocks.wall_ahead_ns).unwrap());
    let told = told.recv_timeout(PATIENCE).unwrap();
    assert!((told + ahead as i64).abs() < 5_000_000_000, "{told} ns");
    rig.stop();
}

/// The shards share a port, and the kernel deals the connections out.
fn dial_shard_0(rig: &Rig) -> TcpStream {
    loop {
        let stream = rig.dial();
        let taken_by = (0..20_000).map(|round| round % 2).find_map(|index| {
            let seen = rig.within(index, Duration::from_millis(1))?;
            assert!(matches!(seen, Seen::Accepted(..) | Seen::Finished(_)), "{seen:?}");
            matches!(seen, Seen::Accepted(..)).then_some(index)
        });
        if taken_by == Some(0) {
            return stream;
        }
    }
}

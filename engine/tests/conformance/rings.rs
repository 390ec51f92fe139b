//! The `uring` engine past the limit of open files: direct descriptors, in as many rings as it takes.

use std::collections::HashSet;
use std::io::Write;
use std::net::Ipv4Addr;

use crossbeam_channel::bounded;
use engine::{Kind, Options};
use shard::{CloseReason, Effect, Linger};

use crate::connections::{run_with_few_files, wait_until};
use crate::harness::{Hands, PATIENCE, Rig, Seen, echo, exchange, nothing, options};

/// Far fewer than the connections, and more than the process has beside them.
const FILES: u32 = 200;
const CONNECTIONS: u64 = 1000;

/// Few of the connections as open files, and tables as large as the limit allows.
fn few_open() -> Options {
    Options { open_connections_max: 20, ..options() }
}

/// The limit on open files is the process's, so this runs in one of its own, and has both ends there.
#[test]
fn a_process_holds_more_connections_than_open_files() {
    if engine::choose(Some(Kind::Uring)).is_err() {
        return;
    }
    if std::env::var_os("FEW_FILES").is_none() {
        return run_with_few_files(FILES, "rings::a_process_holds_more_connections_than_open_files");
    }
    let server = Rig::start(Kind::Uring, few_open(), vec![Box::new(echo)]);
    let client = Options { listen: Vec::new(), ..few_open() };
    let client = Rig::start(Kind::Uring, client, vec![Box::new(nothing)]);
    let address = server.address();
    let source = |token: u64| Some(Ipv4Addr::new(127, 0, 0, 2 + (token % 4) as u8).into());
    let connect = |tokens: std::ops::Range<u64>| {
        let count = tokens.end - tokens.start;
        client.tell(0, move |hands| tokens.for_each(|token| hands.connect(token, address, source(token))));
        let connected = |seen| match seen {
            Seen::Connected(conn, _) => Some(conn),
            Seen::ConnectFailed(token, error) => panic!("{token}: {error:?}"),
            _ => None,
        };
        (0..count).map(|_| client.find(connected)).collect::<Vec<_>>()
    };
    let open = |rig: &Rig| rig.running.stats()[0].connections.get();
    let mut all = connect(0..CONNECTIONS);
    wait_until(|| open(&server) == CONNECTIONS);

    let greet = |hands: &mut Hands, conn| hands.send(conn, format!("{conn:?}").into_bytes());
    let everybody = all.clone();
    client.tell(0, move |hands| everybody.into_iter().for_each(|conn| greet(hands, conn)));
    let mut heard = HashSet::new();
    while heard.len() < all.len() {
        heard.insert(client.find(|seen| match seen {
            Seen::Received(conn, bytes) => {
                assert_eq!(String::from_utf8(bytes).unwrap(), format!("{conn:?}"));
                Some(conn)
            }
            _ => None,
        }));
    }

    // Half of them go, by turns in both ways; others come in their places.
    let gone: Vec<_> = all.iter().copied().step_by(2).collect();
    all.retain(|conn| !gone.contains(conn));
    let ends = gone.clone();
    client.tell(0, move |hands| {
        for (at, conn) in ends.into_iter().enumerate() {
            hands.close(conn, if at % 2 == 0 { Linger::Abort } else { Linger::Flush });
        }
    });
    let mut reasons = [0, 0];
    for _ in &gone {
        let (_, reason) = server.closed();
        reasons[usize::from(reason == CloseReason::Reset)] += 1;
    }
    assert_eq!(reasons, [CONNECTIONS / 4, CONNECTIONS / 4], "half with a FIN, half with a reset");
    wait_until(|| open(&client) == CONNECTIONS / 2);
    all.extend(connect(CONNECTIONS..CONNECTIONS * 3 / 2));
    wait_until(|| open(&server) == CONNECTIONS);

    client.tell(0, |hands| hands.effect(Effect::Stop));
    for _ in &all {
        server.closed();
    }
    exchange(&mut server.dial(), b"nobody is left, and there is room");
    server.stop();
}

/// A ring has fewer buffers than connections. After a pause all of these have something to say: those that
/// find no buffer wait until one is free in their own ring, so none of them is ended twice. A shard that
/// armed more of them spent its time on receives that came to nothing, and fell behind for good.
#[test]
fn a_receive_that_found_no_buffer_finds_one_when_it_is_armed_again() {
    let Some(exhaustions) = all_have_something_to_say(HEARTBEAT.len() as u32) else { return };
    assert!((1..=PEERS).contains(&exhaustions), "{exhaustions} of {PEERS}");
}

/// A buffer that has room for many small receives takes many.
#[test]
fn small_receives_share_buffers() {
    if kernel() < (6, 12) {
        return; // it gives each receive a buffer of its own
    }
    let Some(exhaustions) = all_have_something_to_say(2_048) else { return };
    assert_eq!(exhaustions, 0, "64 buffers have room for all that {PEERS} peers say");
}

const PEERS: u64 = 1_000;
const HEARTBEAT: &[u8] = b"a heartbeat";

/// How many receives found no buffer, with 64 buffers of that size.
fn all_have_something_to_say(recv_buffer_size_bytes: u32) -> Option<u64> {
    if engine::choose(Some(Kind::Uring)).is_err() {
        return None;
    }
    let few_buffers = Options {
        open_connections_max: 0,
        ring_connections_max: 256,
        recv_buffers: 64,
        recv_buffer_size_bytes,
        ..options()
    };
    let rig = Rig::start(Kind::Uring, few_buffers, vec![Box::new(nothing)]);
    let mut peers: Vec<_> = (0..PEERS).map(|_| rig.dial()).collect();
    wait_until(|| rig.running.stats()[0].connections.get() == PEERS);
    let (go, gate) = bounded::<()>(0);
    rig.tell(0, move |_| gate.recv_timeout(PATIENCE).unwrap());
    peers.iter_mut().for_each(|stream| stream.write_all(HEARTBEAT).unwrap());
    go.send(()).unwrap();
    wait_until(|| rig.running.stats()[0].bytes_in.get() == PEERS * HEARTBEAT.len() as u64);
    let exhaustions = rig.running.stats()[0].receive_exhaustions.get();
    rig.stop();
    Some(exhaustions)
}

/// Its version, as far as it tells what io_uring can do.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.trim().parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Rings are bounded, too: 255 of one connection each, and what may be open.
#[test]
fn a_shard_without_a_ring_to_add_refuses() {
    if engine::choose(Some(Kind::Uring)).is_err() {
        return;
    }
    let tiny = Options { open_connections_max: 0, ring_connections_max: 1, recv_buffers: 1, ..options() };
    let rig = Rig::start(Kind::Uring, tiny, vec![Box::new(echo)]);
    let mut streams: Vec<_> = (0..255).map(|_| rig.dial()).collect();
    streams.iter_mut().for_each(|stream| exchange(stream, b"one of the last"));
    let refused = rig.dial();
    wait_until(|| rig.running.stats()[0].accepts_refused.get() == 1);
    drop((refused, streams.pop()));
    wait_until(|| rig.running.stats()[0].connections.get() == 254);
    exchange(&mut rig.dial(), b"in its place");
    rig.stop();
}

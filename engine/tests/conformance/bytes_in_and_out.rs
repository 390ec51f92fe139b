//! Bytes arrive whole and in order, whatever the sockets make of them.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::bounded;
use engine::{Kind, Options};
use shard::Linger;
use socket2::SockRef;

use crate::connections::wait_until;
use crate::harness::{Hands, PATIENCE, Rig, Seen, echo, exchange, nothing, options, pattern};

pub fn echo_comes_back(kind: Kind) {
    let rig = Rig::one(kind, echo);
    let mut stream = rig.dial();
    for round in 0..20 {
        exchange(&mut stream, format!("message {round}").as_bytes());
    }
    let Seen::Accepted(_, peer, _) = rig.next(0) else { panic!("accepted first") };
    assert_eq!(peer, stream.local_addr().unwrap().ip());
    let stats = &rig.running.stats()[0];
    assert_eq!((stats.accepts.get(), stats.connections.get()), (1, 1));
    assert!(stats.bytes_in.get() >= 180 && stats.receives.get() >= 20 && stats.sends.get() >= 20);
    rig.stop();
}

pub fn split_reads_keep_order(kind: Kind) {
    let rig = Rig::one(kind, nothing);
    let mut stream = rig.dial();
    let sent = pattern(300);
    for byte in &sent {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut received = Vec::new();
    while received.len() < sent.len() {
        received.extend(rig.find(received_bytes));
    }
    assert_eq!(received, sent);
    rig.stop();
}

pub fn a_slow_reader_gets_everything(kind: Kind) {
    const BYTES: usize = 3 << 20;
    let sent = pattern(BYTES);
    let pieces = sent.clone();
    let small = Options { send_buffer_bytes: Some(8 << 10), ..options() };
    let behaviour = move |hands: &mut Hands, seen: &Seen| {
        if let Seen::Accepted(conn, ..) = seen {
            // Small and large pieces, so that batches are contiguous ones and gather lists.
            let mut rest = Bytes::from(pieces.clone());
            for size in [10, 3000, 900, 50_000, 1, 1500, 200_000].into_iter().cycle() {
                let piece = rest.split_to(size.min(rest.len()));
                if piece.is_empty() {
                    break;
                }
                hands.send(*conn, piece);
            }
            hands.close(*conn, Linger::Flush);
        }
    };
    let rig = Rig::start(kind, Options { linger: PATIENCE, ..small }, vec![Box::new(behaviour)]);
    let mut stream = rig.dial();
    SockRef::from(&stream).set_recv_buffer_size(32 << 10).unwrap();
    let mut received = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    for round in 0.. {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        received.extend_from_slice(&buffer[..count]);
        if round % 50 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(received == sent, "{} of {BYTES} bytes, or others", received.len());
    drop(stream);
    rig.closed();
    assert_eq!(rig.running.stats()[0].bytes_out.get(), BYTES as u64);
    rig.stop();
}

pub fn a_fast_writer_is_read_completely(kind: Kind) {
    let rig = Rig::one(kind, |hands, seen| {
        if let Seen::Finished(conn) = seen {
            hands.close(*conn, Linger::Flush);
        }
    });
    let sent = pattern(4 << 20);
    let mut stream = rig.dial();
    stream.write_all(&sent).unwrap();
    drop(stream);
    let mut received = Vec::new();
    loop {
        match rig.next(0) {
            Seen::Received(_, bytes) => received.extend(bytes),
            Seen::Closed(..) => break,
            _ => {}
        }
    }
    assert!(received == sent, "{} of {} bytes, or others", received.len(), sent.len());
    rig.stop();
}

pub fn more_data_than_receive_buffers(kind: Kind) {
    const PEERS: usize = 40;
    let few = Options { recv_buffers: 4, recv_buffer_size_bytes: 256, ..options() };
    let rig = Rig::start(kind, few, vec![Box::new(echo)]);
    let sent = pattern(48 << 10);
    let mut peers: Vec<_> = (0..PEERS).map(|_| rig.dial()).collect();
    thread::scope(|scope| {
        for stream in &mut peers {
            let mut writer = stream.try_clone().unwrap();
            let sent = &sent;
            scope.spawn(move || writer.write_all(sent).unwrap());
            scope.spawn(move || {
                let mut received = vec![0; sent.len()];
                stream.read_exact(&mut received).unwrap();
                assert!(received == *sent);
            });
        }
    });
    rig.stop();
}

/// Mail and time wait no longer because many connections have something to say at once.
pub fn a_turn_receives_a_bounded_number_of_times(kind: Kind) {
    const PEERS: usize = 1_500;
    const RECEIVES_MAX: usize = 1_024;
    let rig = Rig::one(kind, nothing);
    let mut peers: Vec<_> = (0..PEERS).map(|_| rig.dial()).collect();
    for _ in 0..PEERS {
        assert!(matches!(rig.next(0), Seen::Accepted(..)));
    }
    let (go, gate) = bounded::<()>(0);
    rig.tell(0, move |_| gate.recv_timeout(PATIENCE).unwrap());
    let sent = pattern(20_000);
    peers.iter_mut().for_each(|stream| stream.write_all(&sent).unwrap());
    go.send(()).unwrap();
    let mut received = 0;
    while received < PEERS * sent.len() {
        received += rig.find(received_bytes).len();
    }
    let (tell, told) = bounded(1);
    rig.tell(0, move |hands| tell.send((hands.receives_most, hands.input_waited)).unwrap());
    let (most, has_waited) = told.recv_timeout(PATIENCE).unwrap();
    assert!(most <= RECEIVES_MAX, "{most} receives in a turn");
    assert!(has_waited, "it was behind, and said nothing");
    let is_behind = || {
        let (tell, told) = bounded(1);
        rig.tell(0, move |hands| tell.send(hands.input_waits).unwrap());
        told.recv_timeout(PATIENCE).unwrap()
    };
    wait_until(|| !is_behind());
    rig.stop();
}

pub fn sent_tells_the_size_of_each_batch(kind: Kind) {
    // The rig's core compares each size with the batch in flight; here the sum, over many batches.
    let rig = Rig::one(kind, |hands, seen| match seen {
        Seen::Accepted(conn, ..) => hands.send(*conn, pattern(100)),
        Seen::Sent(conn, bytes) if *bytes < 200_000 => hands.send(*conn, pattern(bytes * 2)),
        _ => {}
    });
    let mut stream = rig.dial();
    let mut total = 0;
    let mut size = 0;
    while size < 200_000 {
        size = rig.find(|seen| match seen {
            Seen::Sent(_, bytes) => Some(bytes),
            _ => None,
        });
        total += size;
        let mut received = vec![0; size];
        stream.read_exact(&mut received).unwrap();
        assert!(received == pattern(size));
    }
    assert_eq!(rig.running.stats()[0].bytes_out.get(), total as u64);
    rig.stop();
}

fn received_bytes(seen: Seen) -> Option<Vec<u8>> {
    match seen {
        Seen::Received(_, bytes) => Some(bytes),
        _ => None,
    }
}

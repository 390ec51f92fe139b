//! A core that pushes back leaves the bytes of accepted connections in their sockets, and all else goes on.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use engine::{Kind, Options};
use shard::{CloseReason, ConnId, Linger};

use crate::harness::{
    Behaviour, FEW_FILES_A_RING, Hands, PATIENCE, Rig, Seen, echo, exchange, nothing, options, pattern,
};

/// Bytes that a client sends: they fit its socket, and a few clients have more than all receive buffers hold.
const CLIENT_BYTES: usize = 24 << 10;

pub fn a_core_holds_accepted_connections_while_opened_ones_go_on(kind: Kind) {
    const CLIENTS: usize = 8;
    const LINK_BYTES: usize = 2 << 20;
    let rig = Rig::start(kind, few_buffers(), vec![Box::new(nothing)]);
    let (mut link, opened) = open_link(&rig);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| accepted(&rig)).collect();
    push_back(&rig, true);
    for (at, (stream, _)) in clients.iter_mut().enumerate() {
        stream.write_all(&pattern(CLIENT_BYTES + at)).unwrap();
    }
    clients.drain(CLIENTS / 2..).for_each(drop); // FINs wait as well
    let sent = pattern(LINK_BYTES);
    let mut received = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| link.write_all(&sent).unwrap());
        while received.len() < LINK_BYTES {
            let Seen::Received(conn, bytes) = rig.next(0) else {
                panic!("only the link's bytes are to come")
            };
            assert_eq!(conn, opened, "taken from an accepted connection");
            received.extend(bytes);
        }
    });
    assert!(received == sent);
    drop(link);
    assert_eq!(rig.next(0), Seen::Finished(opened));
    assert_eq!(rig.within(0, Duration::from_millis(50)), None, "taken although pushed back");

    push_back(&rig, false);
    let mut received = HashMap::<ConnId, Vec<u8>>::new();
    let mut finished = 0;
    while finished < CLIENTS / 2 || received.values().map(Vec::len).sum::<usize>() < sum_of(CLIENTS) {
        match rig.next(0) {
            Seen::Received(conn, bytes) => received.entry(conn).or_default().extend(bytes),
            Seen::Finished(_) => finished += 1,
            seen => panic!("{seen:?}"),
        }
    }
    let mut all: Vec<_> = received.into_values().collect();
    all.sort_by_key(Vec::len);
    for (at, bytes) in all.iter().enumerate() {
        assert!(*bytes == pattern(CLIENT_BYTES + at), "client {at}: {} bytes, or others", bytes.len());
    }
    rig.stop();
}

pub fn pushing_back_again_and_again_loses_nothing(kind: Kind) {
    again_and_again(kind, few_buffers(), CLIENT_BYTES, Duration::from_micros(200));
}

pub fn much_that_is_held_keeps_its_order(kind: Kind) {
    if FEW_FILES_A_RING.get() {
        return; // a small table has few buffers
    }
    // More receives than an engine takes in at once are held, while others still come.
    let many = Options { recv_buffers: 1 << 15, recv_buffer_size_bytes: 16, ..options() };
    again_and_again(kind, many, 400 << 10, Duration::from_millis(10));
}

/// Pushes back whenever something has come, for as long as `pause`.
fn again_and_again(kind: Kind, options: Options, client_bytes: usize, pause: Duration) {
    const CLIENTS: usize = 4;
    let behaviour = move |hands: &mut Hands, seen: &Seen| match seen {
        Seen::Received(..) => {
            hands.pushed_back = true;
            hands.timeout.get_or_insert(hands.now + pause);
        }
        Seen::Timeout(..) => hands.pushed_back = false,
        _ => {}
    };
    let rig = Rig::start(kind, options, vec![Box::new(behaviour)]);
    let clients: Vec<_> = (0..CLIENTS).map(|_| accepted(&rig)).collect();
    let mut received: HashMap<_, _> = clients.iter().map(|(_, conn)| (*conn, Vec::new())).collect();
    let sent = pattern(client_bytes);
    thread::scope(|scope| {
        for (mut stream, _) in clients {
            let sent = &sent;
            scope.spawn(move || sent.chunks(1000).for_each(|piece| stream.write_all(piece).unwrap()));
        }
        let mut finished = 0;
        while finished < CLIENTS {
            match rig.next(0) {
                Seen::Received(conn, bytes) => received.get_mut(&conn).unwrap().extend(bytes),
                Seen::Finished(_) => finished += 1,
                _ => {}
            }
        }
    });
    assert!(received.values().all(|bytes| *bytes == sent));
    rig.stop();
}

pub fn what_is_held_does_not_delay_an_end(kind: Kind) {
    let rig = Rig::start(kind, few_buffers(), vec![Box::new(nothing)]);
    let mut clients: Vec<_> = (0..6).map(|_| accepted(&rig)).collect();
    push_back(&rig, true);
    for (at, (stream, _)) in clients.iter_mut().enumerate() {
        stream.write_all(&pattern(1 + at * CLIENT_BYTES / 6)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    for (at, &(_, conn)) in clients.iter().enumerate() {
        let linger = if at % 2 == 0 { Linger::Abort } else { Linger::Flush };
        rig.tell(0, move |hands| hands.close(conn, linger));
    }
    let mut open: Vec<ConnId> = clients.iter().map(|(_, conn)| *conn).collect();
    while !open.is_empty() {
        let Seen::Closed(conn, _) = rig.next(0) else { panic!("only ends are to come") };
        open.retain(|other| *other != conn);
    }
    assert_eq!(rig.running.stats()[0].connections.get(), 0);
    // Their names and buffers serve the next ones.
    push_back(&rig, false);
    let mut clients: Vec<_> = (0..3).map(|_| accepted(&rig)).collect();
    for (stream, conn) in &mut clients {
        stream.write_all(&pattern(CLIENT_BYTES)).unwrap();
        let mut received = Vec::new();
        while received.len() < CLIENT_BYTES {
            let Seen::Received(from, bytes) = rig.next(0) else { panic!("only bytes are to come") };
            assert_eq!(from, *conn);
            received.extend(bytes);
        }
        assert!(received == pattern(CLIENT_BYTES));
    }
    rig.stop();
}

pub fn a_flush_ends_with_a_fin_that_is_held(kind: Kind) {
    let patient = Options { linger: 10 * PATIENCE, ..options() };
    let rig = Rig::start(kind, patient, vec![Box::new(nothing)]);
    let (mut stream, conn) = accepted(&rig);
    push_back(&rig, true);
    stream.write_all(b"bye").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.within(0, Duration::from_millis(50)), None, "taken although pushed back");
    rig.tell(0, move |hands| hands.close(conn, Linger::Flush));
    assert_eq!(rig.next(0), Seen::Closed(conn, CloseReason::Local));
    rig.stop();
}

/// There is no buffer to find the FIN with.
pub fn a_flush_ends_with_a_fin_that_came_behind_what_is_held(kind: Kind) {
    let patient = Options { linger: 10 * PATIENCE, ..few_buffers() };
    let rig = Rig::start(kind, patient, vec![Box::new(nothing)]);
    let mut clients: Vec<_> = (0..4).map(|_| accepted(&rig)).collect();
    push_back(&rig, true);
    clients.iter_mut().for_each(|(stream, _)| stream.write_all(&pattern(CLIENT_BYTES)).unwrap());
    assert_eq!(rig.within(0, Duration::from_millis(50)), None, "taken although pushed back");
    for &(_, conn) in &clients {
        rig.tell(0, move |hands| {
            hands.send(conn, &b"bye"[..]);
            hands.close(conn, Linger::Flush);
        });
    }
    for (stream, conn) in &mut clients {
        let mut last = Vec::new();
        stream.read_to_end(&mut last).unwrap();
        assert_eq!(last, b"bye");
        // More than sockets hold comes before the FIN.
        stream.write_all(&vec![0; 16 << 20]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let closed = rig.find(|seen| matches!(seen, Seen::Closed(..)).then_some(seen));
        assert_eq!(closed, Seen::Closed(*conn, CloseReason::Local));
        assert_eq!(stream.take_error().unwrap().map(|error| error.kind()), None, "reset");
    }
    push_back(&rig, false);
    let (mut stream, _) = accepted(&rig);
    stream.write_all(b"on").unwrap();
    assert!(matches!(rig.next(0), Seen::Received(_, bytes) if bytes == b"on"));
    rig.stop();
}

pub fn a_pushed_back_core_still_accepts_and_answers(kind: Kind) {
    // Enough that more than one turn has to accept them.
    const CLIENTS: usize = 150;
    let greet = |hands: &mut Hands, seen: &Seen| match seen {
        Seen::Accepted(conn, ..) => hands.send(*conn, pattern(100)),
        seen => echo(hands, seen),
    };
    let rig = Rig::start(kind, few_buffers(), vec![Box::new(greet) as Behaviour]);
    push_back(&rig, true);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| rig.dial()).collect();
    for stream in &mut clients {
        stream.write_all(b"held").unwrap();
        let mut greeting = [0; 100];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(greeting, *pattern(100));
    }
    assert_eq!(rig.running.stats()[0].bytes_in.get(), 0);
    rig.tell(0, |hands| hands.timeout = Some(hands.now));
    rig.find(|seen| matches!(seen, Seen::Timeout(..)).then_some(()));
    push_back(&rig, false);
    for stream in &mut clients {
        let mut back = [0; 4];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, *b"held");
        exchange(stream, b"and on");
    }
    // Ends while it pushes back.
    push_back(&rig, true);
    clients.iter_mut().for_each(|stream| stream.write_all(b"never read").unwrap());
    rig.stop();
}

/// Fewer than a handful of peers can fill.
fn few_buffers() -> Options {
    Options {
        recv_buffers: 4,
        recv_buffer_size_bytes: 512,
        opened_recv_buffers: 2,
        opened_recv_buffer_size_bytes: 1024,
        ..options()
    }
}

/// A connection that the core opened, and its name.
fn open_link(rig: &Rig) -> (TcpStream, ConnId) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    rig.tell(0, move |hands| hands.connect(1, address, None));
    let (stream, _) = listener.accept().unwrap();
    let Seen::Connected(conn, 1) = rig.next(0) else { panic!("connected first") };
    (stream, conn)
}

/// A connection that the core accepted, and its name.
fn accepted(rig: &Rig) -> (TcpStream, ConnId) {
    let stream = rig.dial();
    let Seen::Accepted(conn, ..) = rig.next(0) else { panic!("accepted first") };
    (stream, conn)
}

/// Returns when the engine knows.
fn push_back(rig: &Rig, pushed_back: bool) {
    rig.tell(0, move |hands| {
        hands.pushed_back = pushed_back;
        hands.report(0);
    });
    rig.running.control().recv_timeout(PATIENCE).unwrap();
}

/// What that many clients send, each one byte more than the one before.
fn sum_of(clients: usize) -> usize {
    (0..clients).map(|at| CLIENT_BYTES + at).sum()
}

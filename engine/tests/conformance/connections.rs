//! Connections come: accepted, opened, refused, and by the thousand.

use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::{Kind, Options};
use shard::{ConnectError, Effect, Linger};
use socket2::{Domain, Socket, Type};

use crate::harness::{
    Behaviour, FEW_FILES_A_RING, Hands, PATIENCE, Rig, Seen, dial, echo, exchange, nothing, options,
};

pub fn names_are_reused_with_another_generation(kind: Kind) {
    let rig = Rig::one(kind, echo);
    let mut names = HashSet::new();
    for _ in 0..20 {
        drop(rig.dial());
        let (conn, _) = rig.closed();
        assert!(conn.index < 4, "{conn:?}: indexes are dense");
        assert!(names.insert(conn), "{conn:?} came twice");
    }
    rig.stop();
}

/// Those that need thousands of files take turns.
static MANY_FILES: Mutex<()> = Mutex::new(());

pub fn thousands_connect_at_once(kind: Kind) {
    const CONNECTIONS: u64 = 3000;
    let _turn = MANY_FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Rig::one(kind, echo);
    let (address, mut echoed, mut closed) = (server.address(), 0, 0);
    let behaviour = move |hands: &mut Hands, seen: &Seen| match seen {
        Seen::Connected(conn, token) => hands.send(*conn, token.to_be_bytes().to_vec()),
        Seen::Received(conn, bytes) => {
            assert_eq!(bytes.len(), 8);
            hands.close(*conn, Linger::Flush);
            echoed += 1;
        }
        Seen::Closed(..) => {
            closed += 1;
            if closed == CONNECTIONS {
                hands.report(echoed);
            }
        }
        Seen::ConnectFailed(token, error) => panic!("connect {token}: {error:?}"),
        _ => {}
    };
    let client = Rig::start(kind, Options { listen: Vec::new(), ..options() }, vec![Box::new(behaviour)]);
    client.tell(0, move |hands| {
        for token in 0..CONNECTIONS {
            let source = Ipv4Addr::new(127, 0, 0, 2 + (token % 4) as u8);
            hands.connect(token, address, Some(source.into()));
        }
    });
    let (_, told) = client.running.control().recv_timeout(PATIENCE).unwrap();
    assert_eq!(told, CONNECTIONS);
    assert_eq!(client.running.stats()[0].connects.get(), CONNECTIONS);
    for _ in 0..CONNECTIONS {
        server.closed();
    }
    assert_eq!(server.running.stats()[0].connections.get(), 0);
    client.stop();
    server.stop();
}

pub fn a_connect_can_choose_its_source(kind: Kind) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let rig = Rig::one(kind, |hands, seen| {
        if let Seen::Connected(conn, _) = seen {
            hands.send(*conn, &b"hello"[..]);
            hands.close(*conn, Linger::Flush);
        }
    });
    rig.tell(0, move |hands| hands.connect(7, address, Some(Ipv4Addr::new(127, 8, 9, 10).into())));
    let (mut stream, peer) = server.accept().unwrap();
    assert_eq!(peer.ip(), Ipv4Addr::new(127, 8, 9, 10));
    let mut received = String::new();
    stream.read_to_string(&mut received).unwrap();
    assert_eq!(received, "hello");
    drop(stream);
    assert!(matches!(rig.next(0), Seen::Connected(_, 7)));
    rig.closed();
    rig.tell(0, move |hands| hands.connect(8, address, Some(Ipv4Addr::new(192, 0, 2, 1).into())));
    assert_eq!(rig.next(0), Seen::ConnectFailed(8, ConnectError::Unreachable));
    rig.stop();
}

pub fn a_refused_connect_says_so(kind: Kind) {
    // Bound and not listening: nobody else gets the port meanwhile.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let nobody = bound.local_addr().unwrap().as_socket().unwrap();
    let rig = Rig::one(kind, nothing);
    rig.tell(0, move |hands| hands.connect(1, nobody, None));
    assert_eq!(rig.next(0), Seen::ConnectFailed(1, ConnectError::Refused));
    assert_eq!(rig.running.stats()[0].connections.get(), 0);
    rig.stop();
}

pub fn stop_accepting_refuses_and_keeps_what_is_open(kind: Kind) {
    let rig = Rig::one(kind, echo);
    let mut stream = rig.dial();
    exchange(&mut stream, b"before");
    rig.tell(0, |hands| {
        hands.effect(Effect::StopAccepting);
        hands.report(1);
    });
    rig.running.control().recv_timeout(PATIENCE).unwrap();
    wait_until(|| TcpStream::connect(rig.address()).is_err());
    exchange(&mut stream, b"after");
    let accepted = |seen| matches!(seen, Seen::Accepted(..));
    let mut count = 0;
    while let Some(seen) = rig.within(0, Duration::from_millis(20)) {
        count += accepted(seen) as usize;
    }
    assert_eq!(count, 1);
    rig.stop();
}

pub fn a_port_in_use_is_an_error(kind: Kind) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = Rig::one(kind, nothing);
    for address in [taken.local_addr().unwrap(), ours.address()] {
        let same = Options { listen: vec![address], ..options() };
        let Err(error) = Rig::try_start(kind, same, vec![Box::new(nothing)]) else {
            panic!("{address} is taken")
        };
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }
    ours.stop();
}

pub fn each_shard_can_listen_alone(kind: Kind) {
    const SHARDS: u16 = 3;
    let each = Options { listen_each: true, ..options() };
    let rig = Rig::start(kind, each.clone(), (0..SHARDS).map(|_| Box::new(echo) as Behaviour).collect());
    let at = |index: u16| SocketAddr::new(rig.address().ip(), rig.address().port() + index);
    for index in (0..SHARDS).rev() {
        for _ in 0..5 {
            exchange(&mut dial(at(index)), b"whom did I reach?");
            rig.find_at(index, |seen| matches!(seen, Seen::Accepted(..)).then_some(()));
        }
    }
    for (index, stats) in rig.running.stats().iter().enumerate() {
        assert_eq!(stats.accepts.get(), 5, "shard {index}");
        let taken = Options { listen: vec![at(index as u16)], ..each.clone() };
        let Err(error) = Rig::try_start(kind, taken, vec![Box::new(nothing), Box::new(nothing)]) else {
            panic!("the port of shard {index} is taken")
        };
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }
    rig.stop();
}

pub fn a_connection_says_which_listener_took_it(kind: Kind) {
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let three = Options { listen: vec![anywhere; 3], ..options() };
    let rig = Rig::start(kind, three, vec![Box::new(echo)]);
    for number in [2, 0, 1, 2] {
        let mut stream = dial(rig.running.addresses()[number]);
        exchange(&mut stream, b"by which door?");
        let listener = rig.find(|seen| match seen {
            Seen::Accepted(_, _, listener) => Some(listener),
            _ => None,
        });
        assert_eq!(usize::from(listener), number);
    }
    rig.tell(0, |hands| hands.effect(Effect::StopAccepting));
    for address in rig.running.addresses().to_vec() {
        wait_until(|| TcpStream::connect(address).is_err());
    }
    rig.stop();
}

pub fn a_full_shard_refuses(kind: Kind) {
    let small = Options { connections_max: 2, ..options() };
    let rig = Rig::start(kind, small, vec![Box::new(echo)]);
    let mut first = rig.dial();
    let mut second = rig.dial();
    exchange(&mut first, b"one");
    exchange(&mut second, b"two");
    let mut third = rig.dial();
    assert_refused(&mut third);
    drop(first);
    rig.closed();
    exchange(&mut rig.dial(), b"four");
    exchange(&mut second, b"still there");
    rig.stop();
}

/// The limit on open files is the process's, so this runs in one of its own.
pub fn out_of_files_is_survived(kind: Kind) {
    if std::env::var_os("FEW_FILES").is_some() {
        return with_few_files(kind);
    }
    if FEW_FILES_A_RING.get() {
        return; // what is accepted does not stay among the files
    }
    run_with_few_files(64, &format!("{kind}::out_of_files_is_survived"));
}

/// Runs a test in a process that may have `files` open, and says so to it by `FEW_FILES`.
pub fn run_with_few_files(files: u32, test: &str) {
    let program = std::env::current_exe().unwrap();
    let script = format!("ulimit -n {files}; exec '{}' --exact {test}", program.display());
    let output = Command::new("sh").args(["-c", &script]).env("FEW_FILES", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn with_few_files(kind: Kind) {
    let rig = Rig::one(kind, echo);
    // Both ends are in this process. Its last file becomes the client's end of a connection that the server
    // has no file for; it must not become the server's end of an earlier one.
    let spare = File::open("/dev/null").unwrap();
    let mut peers = Vec::new();
    while let Ok(stream) = TcpStream::connect(rig.address()) {
        peers.push(stream);
    }
    let stats = &rig.running.stats()[0];
    wait_until(|| stats.accepts.get() == peers.len() as u64 || stats.accept_errors.get() > 0);
    drop(spare);
    peers.extend(TcpStream::connect(rig.address()));
    wait_until(|| stats.accept_errors.get() > 0);
    peers.truncate(peers.len() / 4);
    let mut stream = wait_for(|| TcpStream::connect(rig.address()).ok());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(&mut stream, b"room again");
    rig.stop();
}

fn assert_refused(stream: &mut TcpStream) {
    match stream.read(&mut [0; 1]) {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

pub fn wait_until(mut done: impl FnMut() -> bool) {
    wait_for(|| done().then_some(()));
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it did not come to that in time")
}

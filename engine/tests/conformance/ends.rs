//! How connections end, and shards.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use engine::{Kind, Options};
use shard::{CloseReason, Effect, Linger};
use socket2::SockRef;

use crate::harness::{Hands, Mail, Rig, Seen, echo, exchange, nothing, options, pattern, shard};

pub fn a_reset_closes_with_reset(kind: Kind) {
    let rig = Rig::one(kind, nothing);
    let mut stream = rig.dial();
    stream.write_all(b"half a fra").unwrap();
    rig.find(|seen| matches!(seen, Seen::Received(..)).then_some(()));
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(rig.closed().1, CloseReason::Reset);
    rig.stop();
}

pub fn a_half_closed_connection_is_still_answered(kind: Kind) {
    let rig = Rig::one(kind, |hands, seen| {
        if let Seen::Finished(conn) = seen {
            hands.send(*conn, pattern(100_000));
            hands.close(*conn, Linger::Flush);
        }
    });
    let mut stream = rig.dial();
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer == pattern(100_000), "{} bytes", answer.len());
    assert_eq!(rig.closed().1, CloseReason::Local);
    rig.stop();
}

pub fn a_flush_delivers_the_last_bytes_although_the_peer_goes_on_sending(kind: Kind) {
    let mut answered = false;
    let rig = Rig::one(kind, move |hands, seen| {
        if let Seen::Received(conn, _) = seen
            && !answered
        {
            answered = true;
            hands.send(*conn, pattern(300_000));
            hands.close(*conn, Linger::Flush);
        }
    });
    let mut stream = rig.dial();
    let mut writer = stream.try_clone().unwrap();
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                if writer.write_all(&[7; 100]).is_err() {
                    break;
                }
            }
        });
        let mut received = Vec::new();
        let ended = stream.read_to_end(&mut received);
        enough.store(true, Ordering::Relaxed);
        assert!(ended.is_ok(), "{ended:?} after {} bytes", received.len());
        assert!(received == pattern(300_000), "{} bytes", received.len());
        stream.shutdown(Shutdown::Both).unwrap();
    });
    assert_eq!(rig.closed().1, CloseReason::Local);
    rig.stop();
}

pub fn a_flush_ends_after_the_linger_time(kind: Kind) {
    let linger = Duration::from_millis(200);
    let quick = Options { linger, send_buffer_bytes: Some(8 << 10), ..options() };
    let close = |hands: &mut Hands, seen: &Seen| {
        if let Seen::Received(conn, bytes) = seen {
            hands.send(*conn, pattern(if bytes == b"much" { 8 << 20 } else { 10 }));
            hands.close(*conn, Linger::Flush);
        }
    };
    let rig = Rig::start(kind, quick, vec![Box::new(close)]);
    // One peer does not read what is left for it; the other reads, and never sends its FIN.
    for word in ["much", "little"] {
        let mut stream = rig.dial();
        let began = rig.clock.now();
        stream.write_all(word.as_bytes()).unwrap();
        assert_eq!(rig.closed().1, CloseReason::Local);
        let took = rig.clock.now().since(began);
        assert!(took >= linger, "{word}: closed after {took:?}");
        drop(stream);
    }
    rig.stop();
}

pub fn a_flush_can_become_an_abort(kind: Kind) {
    let slow = Options { linger: Duration::from_secs(3600), send_buffer_bytes: Some(8 << 10), ..options() };
    let rig = Rig::start(kind, slow, vec![Box::new(nothing)]);
    let stream = rig.dial();
    let conn = rig.find(|seen| match seen {
        Seen::Accepted(conn, ..) => Some(conn),
        _ => None,
    });
    rig.tell(0, move |hands| {
        hands.send(conn, pattern(8 << 20));
        hands.close(conn, Linger::Flush);
    });
    assert_eq!(rig.within(0, Duration::from_millis(50)), None, "closed with bytes to write");
    rig.tell(0, move |hands| hands.close(conn, Linger::Abort));
    assert_eq!(rig.closed(), (conn, CloseReason::Local));
    drop(stream);
    rig.stop();
}

pub fn an_abort_resets(kind: Kind) {
    let rig = Rig::one(kind, |hands, seen| {
        if let Seen::Received(conn, _) = seen {
            hands.close(*conn, Linger::Abort);
        }
    });
    let mut stream = rig.dial();
    stream.write_all(b"offence").unwrap();
    let ended = stream.read(&mut [0; 10]).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    assert_eq!(rig.closed().1, CloseReason::Local);
    rig.stop();
}

pub fn stop_ends_everything(kind: Kind) {
    let rig = Rig::start(kind, options(), vec![Box::new(echo), Box::new(echo)]);
    let address = rig.address();
    let mut peers: Vec<_> = (0..20).map(|_| rig.dial()).collect();
    for stream in &mut peers {
        exchange(stream, b"hello");
    }
    rig.stop();
    for mut stream in peers {
        match stream.read(&mut [0; 10]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    assert!(std::net::TcpStream::connect(address).is_err());
}

pub fn a_panic_is_an_error_of_join(kind: Kind) {
    let silent = |_: &mut Hands, seen: &Seen| {
        if let Seen::Mail(_, 13) = seen {
            panic!("thirteen");
        }
    };
    let rig = Rig::start(kind, options(), vec![Box::new(nothing), Box::new(silent)]);
    rig.tell(0, |hands| hands.effect(Effect::Mail { to: shard(1), mail: Mail::Number(13) }));
    let error = rig.running.join().unwrap_err();
    assert!(error.to_string().contains("thirteen"), "{error}");
}

//! The server is not there, goes, or says what is no frame.

use std::time::{Duration, Instant};

use wire::client::{NoticeCode, Outcome};

use crate::connection::{GRAIN, PATIENCE, pause, send_ack};
use crate::play::{Play, Port};
use crate::{Verdict, ensure};

/// How long a client that stays away is watched.
const AWAY: Duration = Duration::from_millis(1_500);

pub fn late_server(play: &mut Play) -> Verdict {
    // The program takes a while to start, so this is the end of its first connection and no one answers the
    // next ones.
    drop(play.accept()?);
    play.port.shut();
    pause(Duration::from_millis(700));
    play.port.reopen()?;
    let mut connection = play.log_in()?;
    connection.hear_send("m1", PATIENCE)?;
    connection.send(&[send_ack("m1", Outcome::Delivered)]);
    play.outcome("m1", "delivered").map(|_| ())
}

pub fn back_off(play: &mut Play) -> Verdict {
    // 100, 200, 400, 800 and 1600 ms by the contract, each a quarter less or more.
    let nominal_ms = [100, 200, 400, 800, 1_600];
    let mut before = play.refuse()?;
    let mut waits = Vec::new();
    for _ in nominal_ms {
        let at = play.refuse()?;
        waits.push((at - before).as_millis());
        before = at;
    }
    let least = GRAIN.as_millis();
    ensure!(
        waits.iter().zip(nominal_ms).all(|(wait, nominal)| wait + least >= nominal * 3 / 4),
        "the waits before connects should be {nominal_ms:?} ms, each at most a quarter less; they were {waits:?} ms"
    );
    let all: u128 = waits.iter().sum();
    ensure!(
        all < 3 * nominal_ms.iter().sum::<u128>(),
        "the waits before connects should be {nominal_ms:?} ms, each a quarter more at most; they were {waits:?} ms"
    );
    let per_mille: Vec<u128> =
        waits.iter().zip(nominal_ms).map(|(wait, nominal)| wait * 1_000 / nominal).collect();
    let is_one = per_mille.windows(2).all(|pair| pair[0].abs_diff(pair[1]) < 10);
    ensure!(!is_one, "there is no chance in the waits before connects: {waits:?} ms");
    let mut connection = play.log_in()?;
    // A login sets the waits back.
    connection.hear_none("frame", Duration::from_millis(50), |_| true)?;
    let ended = Instant::now();
    connection.end();
    // The wait after 1.6 s would be 2 s, a quarter less at least.
    let wait = (play.accept()?.at - ended).as_millis();
    ensure!(
        wait < 1_500,
        "after a session, the first reconnect should come after about 100 ms; it took {wait} ms"
    );
    Ok(())
}

pub fn server_full(play: &mut Play) -> Verdict {
    let retry = Duration::from_millis(600);
    for _ in 0..2 {
        let mut connection = play.accept()?;
        connection.login_token()?;
        let told = Instant::now();
        connection.farewell(NoticeCode::ServerFull, retry.as_millis() as u32, &[]);
        play.program.event("notice", PATIENCE, |event| event["name"] == "server_full")?;
        play.nobody_comes(retry.saturating_sub(told.elapsed() + GRAIN))?;
    }
    let mut connection = play.accept()?;
    if connection.is_websocket() {
        // A full server may say so before the WebSocket is open.
        connection.login_token()?;
        connection.end();
        play.refuse_upgrade("server_full")?;
        connection = play.accept()?;
    }
    connection.login()?;
    play.program.event("logged_in", PATIENCE, |_| true).map(|_| ())
}

pub fn farewells(play: &mut Play) -> Verdict {
    for code in [
        NoticeCode::RateLimited,
        NoticeCode::IdleTimeout,
        NoticeCode::SlowReader,
        NoticeCode::LoginTimeout,
        NoticeCode::AddressLimit,
    ] {
        let connection = play.log_in()?;
        connection.farewell(code, 0, &[]);
        play.program.event("notice", PATIENCE, |event| event["name"] == code.name())?;
    }
    play.log_in()?;
    ensure!(play.program.events("ended")?.is_empty(), "the client has ended, and should have reconnected");
    Ok(())
}

pub fn draining(play: &mut Play) -> Verdict {
    let retry = Duration::from_millis(500);
    let (mut gone, mut other) = (Port::open()?, Port::open()?);
    gone.shut();
    let connection = play.log_in()?;
    let alternatives = [gone.address.to_string(), other.address.to_string()];
    let told = Instant::now();
    connection.farewell(NoticeCode::Draining, retry.as_millis() as u32, &alternatives);
    play.program.event("notice", PATIENCE, |event| event["name"] == "draining")?;
    // The first alternative is not there, the second one is.
    let mut at_other = play.accept_at(&mut other, PATIENCE)?;
    let wait = at_other.at - told;
    ensure!(
        wait + GRAIN >= retry,
        "the client comes after {} ms, and retry_after_ms is 500",
        wait.as_millis()
    );
    play.nobody_comes(Duration::ZERO)?;
    at_other.login()?;
    play.program.event("logged_in", PATIENCE, |_| true)?;
    // When the alternative goes too, without a word, the client comes back to where it was.
    other.shut();
    at_other.end();
    play.accept_within(2 * PATIENCE)?.login()?;
    play.program.event("logged_in", PATIENCE, |_| true).map(|_| ())
}

pub fn kicked(play: &mut Play) -> Verdict {
    let connection = play.log_in()?;
    connection.farewell(NoticeCode::Kicked, 0, &[]);
    play.program.event("notice", PATIENCE, |event| event["name"] == "kicked")?;
    play.program.event("ended", PATIENCE, |event| event["reason"] == "kicked")?;
    play.nobody_comes(AWAY)?;
    play.program.ends(PATIENCE)
}

pub fn garbage(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    let of_binary: &[&[u8]] = &[
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0x53, 0x46, 0, 0, 3, 0xeb, 0x7f, 0xff, 0xff, 0xff], // a body of 2 GiB
        &[0x53, 0x46, 0, 0, 3, 0xeb, 0xff, 0xff, 0xff, 0xff], // a length below 0
        &[0x53, 0x46, 0, 0, 3, 0xeb, 0, 0, 0, 3, 1, 2, 3],    // a message of 3 bytes
        // Outcome 9.
        &[0x53, 0x46, 0, 0, 3, 0xee, 0, 0, 0, 18, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xff, 0xfe, 0xfd, 0x00, 0x53, 0x46, 0x00, 0x00, 0x03, 0xeb, 0x13, 0x37],
    ];
    let of_json: &[&[u8]] = &[
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0x48, 0xf5, 0, 0, 3, 0xeb, 0x7f, 0xff, 0xff, 0xff],
        &[0x48, 0xf5, 0, 0, 3, 0xeb, 0xff, 0xff, 0xff, 0xff],
        b"\x48\xf5\0\0\x03\xeb\0\0\0\x02[]",
        b"\x48\xf5\0\0\x03\xeb\0\0\0\x08{\"bizCod",
    ];
    let of_text: &[&[u8]] = &[b"hello", b"[]", br#"{"code":1003,"msgId":"#, br#"{"code":}"#, b""];
    let is_text = connection.is_websocket() && connection.is_json();
    let garbage = if is_text {
        of_text
    } else if connection.is_json() {
        of_json
    } else {
        of_binary
    };
    for garbage in garbage {
        connection.send_garbage(garbage);
        connection.hear_end(&format!("the server sent {}", garbage.escape_ascii()), PATIENCE)?;
        connection = play.log_in()?;
    }
    if connection.is_websocket() {
        for raw in [
            &[0x83, 0x00][..],
            &[0xf2, 0x01, 0x00],
            &[0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            connection.send_raw(raw);
            connection.hear_end(&format!("the server broke RFC 6455 with {raw:02x?}"), PATIENCE)?;
            connection = play.log_in()?;
        }
    }
    connection.hear_none("frame", Duration::from_millis(100), |_| true)?;
    ensure!(play.program.events("message")?.is_empty(), "the client shows garbage as a message");
    Ok(())
}

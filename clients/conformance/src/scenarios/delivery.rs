//! Messages in both directions: acks, repeats, send-acks.

use std::time::{Duration, Instant};

use wire::UserId;
use wire::client::{FailReason, Message, Outcome};

use crate::connection::{GRAIN, PATIENCE, Said, deliver, direct, send_ack};
use crate::play::Play;
use crate::{Verdict, ensure};

/// How long a script looks for what should not come.
const QUIET: Duration = Duration::from_millis(500);

pub fn acks(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    let high = (1 << 63) + 1;
    let lossy = Message { ack_wanted: false, ..direct(43, "c3", "three") };
    connection.send(&[deliver(direct(42, "c1", "one")), deliver(direct(high, "c2", "two")), deliver(lossy)]);
    connection.hear_acks(&[42, high])?;
    for _ in 0..2 {
        connection.send(&[deliver(direct(42, "c1", "one"))]);
        connection.hear_acks(&[42])?;
    }
    let event = play.message("one")?;
    ensure!(
        event["id"] == "42"
            && event["sender"] == 1
            && event["biz_code"] == 6_001
            && event["client_msg_id"] == "c1",
        "the message was printed with wrong fields: {event}"
    );
    ensure!(event["room"].is_null(), "a message to a user has no room, printed was {event}");
    let event = play.message("two")?;
    ensure!(event["id"] == "9223372036854775809", "wanted the id 9223372036854775809, printed was {event}");
    let acks_lossy = |said: &Said| matches!(said, Said::Ack(ids) if ids.contains(&43));
    connection.hear_none("ack of a message that wants none", QUIET, acks_lossy)?;
    play.all_messages(&["one", "two", "three"])?;

    let many: Vec<u64> = (10_000..10_300).collect();
    let frames: Vec<_> = many.iter().map(|id| deliver(direct(*id, &format!("n{id}"), "many"))).collect();
    connection.send(&frames);
    connection.hear_acks(&many)
}

pub fn dedupe(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    let of_other = Message { sender: UserId(3), ..direct(52, "c1", "of another") };
    connection.send(&[
        deliver(direct(50, "c1", "first")),
        deliver(direct(50, "c1", "first")),
        deliver(direct(51, "c1", "first")),
        deliver(of_other),
        deliver(direct(53, "", "no name")),
        deliver(direct(54, "", "no name")),
        deliver(direct(54, "", "no name")),
        deliver(direct(55, "c5", "last")),
    ]);
    connection.hear_acks(&[50, 50, 51, 52, 53, 54, 54, 55])?;
    play.program.event("message", PATIENCE, |event| event["data"] == "last")?;
    play.all_messages(&["first", "of another", "no name", "no name", "last"])?;
    // Another node may repeat what came before.
    connection.end();
    let mut connection = play.log_in()?;
    connection.send(&[
        deliver(direct(55, "c5", "last")),
        deliver(direct(61, "c1", "first")),
        deliver(direct(62, "c6", "end")),
    ]);
    connection.hear_acks(&[55, 61, 62])?;
    play.program.event("message", PATIENCE, |event| event["data"] == "end")?;
    play.all_messages(&["first", "of another", "no name", "no name", "last", "end"])
}

pub fn cut_before_send_ack(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    for id in ["m1", "m2", "m3"] {
        connection.hear_send(id, PATIENCE)?;
    }
    connection.send(&[send_ack("m2", Outcome::Delivered)]);
    play.outcome("m2", "delivered")?;
    connection.end();
    let mut connection = play.log_in()?;
    let again = [connection.hear_any_send()?, connection.hear_any_send()?];
    ensure!(again == ["m1", "m3"], "wanted m1 and m3 again, in this order, but {again:?} came");
    drop(connection);
    let mut connection = play.log_in()?;
    let again = [connection.hear_any_send()?, connection.hear_any_send()?];
    ensure!(again == ["m1", "m3"], "wanted m1 and m3 again, in this order, but {again:?} came");
    connection.send(&[send_ack("m1", Outcome::Delivered), send_ack("m3", Outcome::Stored)]);
    play.outcome("m1", "delivered")?;
    play.outcome("m3", "stored")?;
    connection.hear_none("repeat", QUIET, |said| matches!(said, Said::Send { .. }))?;
    play.all_outcomes(3)
}

pub fn cut_after_send_ack(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    connection.hear_send("m1", PATIENCE)?;
    connection.hear_send("m2", PATIENCE)?;
    connection.send(&[send_ack("m1", Outcome::Delivered)]);
    connection.end();
    let mut connection = play.log_in()?;
    connection.hear_send("m2", PATIENCE)?;
    connection.hear_none("repeat of m1", QUIET, |said| matches!(said, Said::Send { .. }))?;
    // The first send-ack may be repeated, too.
    connection.send(&[send_ack("m1", Outcome::Delivered), send_ack("m2", Outcome::Delivered)]);
    play.outcome("m1", "delivered")?;
    play.outcome("m2", "delivered")?;
    connection.hear_none("repeat", QUIET, |said| matches!(said, Said::Send { .. }))?;
    play.all_outcomes(2)
}

pub fn late_send_ack(play: &mut Play) -> Verdict {
    let mut connection = play.accept()?;
    let start = Instant::now(); // m1 comes after it, however late this process sees it
    connection.login()?;
    connection.hear_send("m1", PATIENCE)?;
    for number in 1..=2 {
        let at = connection.hear_send("m1", 2 * PATIENCE)?;
        let after = (at - start).as_millis();
        ensure!(
            after >= 500 * number,
            "m1 was sent again {after} ms after the login, as number {number}, and --repeat-ms is 500"
        );
    }
    connection.send(&[
        send_ack("m9", Outcome::Delivered),
        send_ack("m1", Outcome::Delivered),
        send_ack("m1", Outcome::Failed(FailReason::Offline)),
    ]);
    play.outcome("m1", "delivered")?;
    connection.hear_none("repeat", 2 * QUIET, |said| matches!(said, Said::Send { .. }))?;
    play.all_outcomes(1)
}

pub fn busy(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    connection.hear_send("m1", PATIENCE)?;
    // 200, 400 and 800 ms by the arguments, each a quarter less at most.
    for least_ms in [150, 300, 600] {
        let refused = Instant::now();
        connection.send(&[send_ack("m1", Outcome::Failed(FailReason::Busy))]);
        let wait = (connection.hear_send("m1", PATIENCE)? - refused).as_millis();
        ensure!(
            wait + GRAIN.as_millis() >= least_ms,
            "m1 was sent again {wait} ms after busy: too soon, it should have waited for {least_ms} ms"
        );
    }
    connection.send(&[send_ack("m1", Outcome::Delivered)]);
    play.outcome("m1", "delivered")?;
    connection.hear_none("repeat", QUIET, |said| matches!(said, Said::Send { .. }))?;
    play.all_outcomes(1)
}

pub fn store(play: &mut Play) -> Verdict {
    for id in ["m4", "m5"] {
        play.program.event("refused", 4 * PATIENCE, |event| event["client_msg_id"] == id)?;
    }
    let mut connection = play.log_in()?;
    for id in ["m1", "m2", "m3"] {
        connection.hear_send(id, PATIENCE)?;
    }
    connection.send(&["m1", "m2", "m3"].map(|id| send_ack(id, Outcome::Delivered)));
    for id in ["m1", "m2", "m3"] {
        play.outcome(id, "delivered")?;
    }
    connection.hear_none("message that was refused", QUIET, |said| matches!(said, Said::Send { .. }))?;
    play.all_outcomes(3)
}

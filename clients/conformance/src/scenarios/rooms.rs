//! Rooms, and what they remember.

use std::time::Duration;

use wire::client::{NoticeCode, Outcome, Recovery, ServerFrame, Want};

use crate::connection::{Connection, PATIENCE, Said, deliver, in_room, send_ack};
use crate::play::Play;
use crate::{Verdict, ensure};

pub fn rejoin(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    for room in [7, 8] {
        let want = connection.hear_join(room)?;
        ensure!(want.is_none(), "the first join of room {room} wants {want:?}");
    }
    let is_send = |said: &Said| matches!(said, Said::Send { .. });
    connection.hear_none("message to a room that is not joined", Duration::from_millis(300), is_send)?;
    connection.send_joined(8, 100, None);
    connection.send_joined(7, 9, None);
    for (room, sequence) in [(7, 9), (8, 100)] {
        let (_, event) = play.program.event("joined", PATIENCE, |event| event["room"] == room)?;
        ensure!(event["sequence"] == sequence, "wanted the sequence {sequence}, printed was {event}");
        ensure!(event["recovery"].is_null(), "the server said nothing of history, printed was {event}");
    }
    connection.hear_send("m1", PATIENCE)?;
    connection.send(&[
        deliver(in_room(7, 10, 70, "ten")),
        deliver(in_room(7, 11, 71, "eleven")),
        deliver(in_room(7, 12, 72, "twelve")),
        // After a cut network, another owner may count from a lower number for a while.
        deliver(in_room(7, 3, 63, "three")),
    ]);
    let event = play.message("ten")?;
    ensure!(
        event["room"] == 7 && event["sequence"] == 10,
        "the message was printed with wrong fields: {event}"
    );
    for text in ["eleven", "twelve", "three"] {
        play.message(text)?;
    }
    connection.end();

    let mut connection = play.log_in()?;
    let wants = [connection.hear_join(7)?, connection.hear_join(8)?];
    ensure!(
        wants == [Some(Want::Since(12)), Some(Want::Since(100))],
        "wanted joins of 7 since 12 and of 8 since 100, but they want {wants:?}"
    );
    connection.hear_none("message to a room that is not joined", Duration::from_millis(300), is_send)?;
    connection.send_joined(7, 14, Some(Recovery::Complete));
    // A repeat of what the client has comes first: the history may go back further than was asked for.
    connection.send(&[
        deliver(in_room(7, 12, 72, "twelve")),
        deliver(in_room(7, 13, 73, "thirteen")),
        deliver(in_room(7, 14, 74, "fourteen")),
    ]);
    connection.send_joined(8, 100, Some(Recovery::Complete));
    for room in [7, 8] {
        let (_, event) = play
            .program
            .event("joined", PATIENCE, |event| event["room"] == room && !event["recovery"].is_null())?;
        ensure!(event["recovery"] == "complete", "wanted the recovery complete, printed was {event}");
    }
    connection.hear_send("m1", PATIENCE)?;
    connection.send(&[send_ack("m1", Outcome::Sequenced { sequence: 15 })]);
    play.outcome("m1", "sequenced")?;
    play.program.event("message", PATIENCE, |event| event["data"] == "fourteen")?;
    play.all_messages(&["ten", "eleven", "twelve", "three", "thirteen", "fourteen"])?;
    play.all_outcomes(1)
}

pub fn too_old(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    connection.hear_join(7)?;
    connection.send_joined(7, 9, None);
    play.program.event("joined", PATIENCE, |event| event["room"] == 7)?;
    connection.end();
    let mut connection = play.log_in()?;
    let want = connection.hear_join(7)?;
    ensure!(want == Some(Want::Since(9)), "wanted a join of 7 since 9, but it wants {want:?}");
    connection.send_joined(7, 5_000, Some(Recovery::TooOld));
    connection.send(&[deliver(in_room(7, 4_999, 80, "kept")), deliver(in_room(7, 5_000, 81, "kept too"))]);
    play.program.event("joined", PATIENCE, |event| event["recovery"] == "too_old")?;
    play.message("kept")?;
    play.message("kept too").map(|_| ())
}

/// Messages of room 7, whose texts are their sequences.
fn messages(connection: &mut Connection, sequences: &[u64]) {
    let deliveries: Vec<_> =
        sequences.iter().map(|at| deliver(in_room(7, *at, 60 + at, &at.to_string()))).collect();
    connection.send(&deliveries);
}

fn shown(play: &mut Play, sequences: &[u64]) -> Verdict {
    sequences.iter().try_for_each(|at| play.message(&at.to_string()).map(|_| ()))
}

fn all_shown(play: &mut Play, sequences: &[u64]) -> Verdict {
    let texts: Vec<String> = sequences.iter().map(u64::to_string).collect();
    play.all_messages(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Logs the client in, hears its join of room 7, which must want that, and answers it.
fn rejoined(
    play: &mut Play,
    wanted: Option<Want>,
    sequence: u64,
    recovery: Option<Recovery>,
) -> Verdict<Connection> {
    let mut connection = play.log_in()?;
    let want = connection.hear_join(7)?;
    ensure!(want == wanted, "wanted a join with {wanted:?}, but it has {want:?}");
    connection.send_joined(7, sequence, recovery);
    Ok(connection)
}

pub fn cut_among_kept(play: &mut Play) -> Verdict {
    rejoined(play, None, 9, None)?.end();
    let mut connection = rejoined(play, Some(Want::Since(9)), 14, Some(Recovery::Complete))?;
    messages(&mut connection, &[10, 11]);
    shown(play, &[10, 11])?;
    connection.end();
    let mut connection = rejoined(play, Some(Want::Since(11)), 14, Some(Recovery::Complete))?;
    messages(&mut connection, &[12, 13, 14]);
    shown(play, &[12, 13, 14])?;
    connection.end();
    // So it is when some messages are gone for good: those that are kept still come one by one.
    let mut connection = rejoined(play, Some(Want::Since(14)), 5_000, Some(Recovery::TooOld))?;
    messages(&mut connection, &[4_997, 4_998]);
    shown(play, &[4_997, 4_998])?;
    connection.end();
    let mut connection = rejoined(play, Some(Want::Since(4_998)), 5_000, Some(Recovery::Complete))?;
    messages(&mut connection, &[4_999, 5_000]);
    shown(play, &[4_999, 5_000])?;
    connection.end();
    rejoined(play, Some(Want::Since(5_000)), 5_000, Some(Recovery::Complete))?;
    all_shown(play, &[10, 11, 12, 13, 14, 4_997, 4_998, 4_999, 5_000])
}

pub fn begins_anew(play: &mut Play) -> Verdict {
    let mut connection = rejoined(play, None, 8_000, None)?;
    messages(&mut connection, &[8_001]);
    shown(play, &[8_001])?;
    connection.end();
    let mut connection = rejoined(play, Some(Want::Since(8_001)), 20, Some(Recovery::TooOld))?;
    messages(&mut connection, &[19, 20, 21]);
    shown(play, &[19, 20, 21])?;
    connection.end();
    // Nothing is kept, and the next message comes while the client is there.
    let mut connection = rejoined(play, Some(Want::Since(21)), 3, Some(Recovery::TooOld))?;
    messages(&mut connection, &[4]);
    shown(play, &[4])?;
    no_join(&mut connection)?;
    connection.end();
    let mut connection = rejoined(play, Some(Want::Since(4)), 5, Some(Recovery::Complete))?;
    messages(&mut connection, &[5, 6]);
    shown(play, &[5, 6])?;
    all_shown(play, &[8_001, 19, 20, 21, 4, 5, 6])
}

pub fn no_history(play: &mut Play) -> Verdict {
    let mut connection = rejoined(play, None, 9, None)?;
    messages(&mut connection, &[10]);
    shown(play, &[10])?;
    connection.end();
    let mut connection = play.log_in()?;
    let want = connection.hear_join(7)?;
    ensure!(want == Some(Want::Since(10)), "wanted a join since 10, but it wants {want:?}");
    connection.farewell(NoticeCode::BadBody, 0, &[]);
    let mut connection = rejoined(play, None, 12, None)?;
    // Neither a gap nor a reconnect makes the client ask again for what this server does not have.
    messages(&mut connection, &[13, 17, 18]);
    shown(play, &[13, 17, 18])?;
    no_join(&mut connection)?;
    connection.end();
    let mut connection = rejoined(play, None, 18, None)?;
    messages(&mut connection, &[19]);
    shown(play, &[19])?;
    all_shown(play, &[10, 13, 17, 18, 19])
}

pub fn gap(play: &mut Play) -> Verdict {
    let mut connection = rejoined(play, None, 9, None)?;
    // 11 and 12 are missing, then 14.
    messages(&mut connection, &[10, 13, 15]);
    shown(play, &[10, 13, 15])?;
    let want = connection.hear_join(7)?;
    ensure!(want == Some(Want::Since(10)), "after a gap, wanted a join since 10, but it wants {want:?}");
    no_join(&mut connection)?;
    connection.send_joined(7, 15, Some(Recovery::Complete));
    messages(&mut connection, &[11, 12, 13, 14, 15, 16]);
    shown(play, &[11, 12, 14, 16])?;
    no_join(&mut connection)?;
    // A room may skip sequences; whoever asks is told so, and does not ask again.
    messages(&mut connection, &[20]);
    shown(play, &[20])?;
    let (_, want) = connection.hear("a join after the second gap", 2 * PATIENCE, |said| match said {
        Said::Join(7, want) => Some(*want),
        _ => None,
    })?;
    ensure!(want == Some(Want::Since(16)), "wanted a join since 16, but it wants {want:?}");
    connection.send_joined(7, 20, Some(Recovery::TooOld));
    messages(&mut connection, &[20, 21]);
    shown(play, &[21])?;
    no_join(&mut connection)?;
    // A gap that was not recovered in time is asked for on the next connection.
    messages(&mut connection, &[24]);
    shown(play, &[24])?;
    connection.end();
    let mut connection = rejoined(play, Some(Want::Since(21)), 24, Some(Recovery::Complete))?;
    messages(&mut connection, &[22, 23, 24]);
    shown(play, &[22, 23])?;
    all_shown(play, &[10, 13, 15, 11, 12, 14, 16, 20, 21, 24, 22, 23])
}

fn no_join(connection: &mut Connection) -> Verdict {
    let is_join = |said: &Said| matches!(said, Said::Join(..));
    connection.hear_none("join of a room that is joined", Duration::from_millis(1_200), is_join)
}

pub fn last(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    let want = connection.hear_join(7)?;
    ensure!(want == Some(Want::Last(3)), "wanted a join for the last 3 messages, but it wants {want:?}");
    connection.send_joined(7, 9, Some(Recovery::Complete));
    connection.send(&[7, 8, 9].map(|at| deliver(in_room(7, at, 60 + at, &format!("message {at}")))));
    for text in ["message 7", "message 8", "message 9"] {
        play.message(text)?;
    }
    connection.end();
    let mut connection = play.log_in()?;
    let want = connection.hear_join(7)?;
    ensure!(want == Some(Want::Since(9)), "after a reconnect, wanted a join since 9, but it wants {want:?}");
    connection.send_joined(7, 9, Some(Recovery::Complete));
    play.program.event("joined", PATIENCE, |event| event["recovery"] == "complete").map(|_| ())
}

pub fn join_busy(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    for _ in 0..2 {
        connection.hear_join(7)?;
        connection.send(&[ServerFrame::Notice {
            code: NoticeCode::Busy,
            text: "no place for the room".into(),
            retry_after_ms: 0,
            alternatives: Vec::new(),
        }]);
        let is_join = |said: &Said| matches!(said, Said::Join(..));
        connection.hear_none("join right after busy", Duration::from_millis(100), is_join)?;
    }
    connection.hear_join(7)?;
    connection.send_joined(7, 9, None);
    play.program.event("joined", PATIENCE, |event| event["room"] == 7)?;
    let is_join = |said: &Said| matches!(said, Said::Join(..));
    connection.hear_none("join of a room that is joined", Duration::from_millis(600), is_join)
}

//! Rooms, and what they remember.

use std::time::Duration;

use wire::client::{NoticeCode, Outcome, ServerFrame};

use crate::connection::{PATIENCE, Recovery, Said, Want, deliver, in_room, send_ack};
use crate::play::Play;
use crate::{Verdict, ensure};

pub fn rejoin(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    for room in [7, 8] {
        let want = connection.hear_join(room)?;
        ensure!(want == Want::Nothing, "the first join of room {room} wants {want:?}");
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
        deliver(in_room(7, 12, 72, "twelve")),
        deliver(in_room(7, 11, 71, "eleven")),
    ]);
    let event = play.message("ten")?;
    ensure!(
        event["room"] == 7 && event["sequence"] == 10,
        "the message was printed with wrong fields: {event}"
    );
    play.message("twelve")?;
    play.message("eleven")?;
    connection.end();

    let mut connection = play.log_in()?;
    let wants = [connection.hear_join(7)?, connection.hear_join(8)?];
    ensure!(
        wants == [Want::Since(12), Want::Since(100)],
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
    play.all_messages(&["ten", "twelve", "eleven", "thirteen", "fourteen"])?;
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
    ensure!(want == Want::Since(9), "wanted a join of 7 since 9, but it wants {want:?}");
    connection.send_joined(7, 5_000, Some(Recovery::TooOld));
    connection.send(&[deliver(in_room(7, 4_999, 80, "kept")), deliver(in_room(7, 5_000, 81, "kept too"))]);
    play.program.event("joined", PATIENCE, |event| event["recovery"] == "too_old")?;
    play.message("kept")?;
    play.message("kept too").map(|_| ())
}

pub fn last(play: &mut Play) -> Verdict {
    let mut connection = play.log_in()?;
    let want = connection.hear_join(7)?;
    ensure!(want == Want::Last(3), "wanted a join for the last 3 messages, but it wants {want:?}");
    connection.send_joined(7, 9, Some(Recovery::Complete));
    connection.send(&[7, 8, 9].map(|at| deliver(in_room(7, at, 60 + at, &format!("message {at}")))));
    for text in ["message 7", "message 8", "message 9"] {
        play.message(text)?;
    }
    connection.end();
    let mut connection = play.log_in()?;
    let want = connection.hear_join(7)?;
    ensure!(want == Want::Since(9), "after a reconnect, wanted a join since 9, but it wants {want:?}");
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

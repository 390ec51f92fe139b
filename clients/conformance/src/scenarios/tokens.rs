//! Tokens that end.

use std::time::Duration;

use wire::client::{NoticeCode, Outcome};

use crate::connection::{PATIENCE, Said, deliver, in_room, logged_in, send_ack};
use crate::play::Play;
use crate::{Verdict, ensure};

pub fn token_expired(play: &mut Play) -> Verdict {
    refused_with(play, NoticeCode::TokenExpired)
}

pub fn token_invalid(play: &mut Play) -> Verdict {
    refused_with(play, NoticeCode::TokenInvalid)
}

fn refused_with(play: &mut Play, code: NoticeCode) -> Verdict {
    let mut connection = play.accept()?;
    let token = connection.login_token()?;
    ensure!(token == play.token(0)?, "the first login should have the first token");
    connection.farewell(code, 0, &[]);
    play.program.event("notice", PATIENCE, |event| event["name"] == code.name())?;
    let mut connection = play.accept()?;
    let token = connection.login_token()?;
    ensure!(token == play.token(1)?, "after {} the login should have the second token", code.name());
    connection.send(&[logged_in(30_000)]);
    play.program.event("logged_in", PATIENCE, |_| true)?;
    // A session that outlives its token ends in the same way.
    connection.farewell(code, 0, &[]);
    play.log_in()?;
    ensure!(play.program.events("ended")?.is_empty(), "the client has ended, and should have reconnected");
    Ok(())
}

pub fn renewal(play: &mut Play) -> Verdict {
    let mut connection = play.accept()?;
    connection.login()?;
    connection.hear_join(7)?;
    connection.send_joined(7, 9, None);
    let login = |said: &Said| match said {
        Said::Login(token) => Some(token.clone()),
        _ => None,
    };
    // The token ends 8 to 9 s after the program has started.
    let (_, token) =
        connection.hear("a login with a fresh token on the live connection", 2 * PATIENCE, login)?;
    ensure!(token == play.token(1)?, "the login before the token's end should have the second token");
    connection.send(&[
        logged_in(30_000),
        deliver(in_room(7, 10, 70, "after it")),
        send_ack("m9", Outcome::Delivered),
    ]);
    play.message("after it")?;
    connection.hear_none("frame after the renewal", Duration::from_millis(500), |_| true)?;
    play.nobody_comes(Duration::ZERO)
}

//! The scenarios: what the client is told, and what the server does.

mod away;
mod basics;
mod delivery;
mod rooms;
mod tokens;

use crate::play::Scenario;

macro_rules! scenarios {
    ($($module:ident::$name:ident($arguments:expr) $wants:literal;)*) => {
        /// Every scenario.
        pub const SCENARIOS: &[Scenario] = &[$(
            Scenario { name: stringify!($name), wants: $wants, arguments: || $arguments, script: $module::$name },
        )*];
    };
}

scenarios! {
    basics::login(with("")) "logs in with the token that it was given, and says so";
    basics::logout(with("")) "logs out and ends when its stdin ends";
    basics::send(with("--to 2 --send 6")) "sends what it was asked to before it was connected, and tells the outcomes";
    basics::cut(with("")) "takes frames cut at every byte, and merged";
    basics::heartbeat(with("--backoff-ms 100")) "sends heartbeats at the server's period, and reconnects when one is not answered";
    delivery::acks(with("")) "acks what wants an ack, repeats too, and shows each message once";
    delivery::dedupe(with("")) "tells repeats by the message id, then by sender and client_msg_id";
    delivery::cut_before_send_ack(with("--to 2 --send 3 --backoff-ms 100")) "sends again after a reconnect, in order, what has no send-ack";
    delivery::cut_after_send_ack(with("--to 2 --send 2 --backoff-ms 100")) "does not send again what has its send-ack";
    delivery::late_send_ack(with("--to 2 --send 1 --repeat-ms 500")) "sends again on the same connection what has no send-ack for a while; tells one outcome of several send-acks";
    delivery::busy(with("--to 2 --send 1 --busy-ms 200")) "sends again later what failed as busy, after waits that grow";
    delivery::store(with("--to 2 --send 5 --store 3")) "refuses what its store has no room for, and keeps the rest";
    away::late_server(with("--to 2 --send 1 --backoff-ms 100")) "waits for a server that is not there yet";
    away::back_off(with("--backoff-ms 100")) "waits longer before each connect, with chance in it";
    away::server_full(with("--backoff-ms 100")) "waits for retry_after_ms of server_full";
    away::farewells(with("--backoff-ms 100")) "reconnects after notices that ask for that";
    away::draining(with("--backoff-ms 100")) "goes to the alternatives of a node that drains, after retry_after_ms, and then back";
    away::kicked(with("--backoff-ms 100")) "stays away after kicked, and ends";
    away::garbage(with("--backoff-ms 100")) "reconnects after what is no frame";
    tokens::token_expired(two_tokens(3_600, "--backoff-ms 100")) "asks for a fresh token after token_expired";
    tokens::token_invalid(two_tokens(3_600, "--backoff-ms 100")) "asks for another token after token_invalid";
    tokens::renewal(two_tokens(8, "--room 7")) "sends a fresh token on the live connection before the first one ends";
    rooms::rejoin(with("--room 7 --room 8 --send 1 --backoff-ms 100")) "joins its rooms again after a reconnect, since what it has seen; sends to a room once it is joined";
    rooms::too_old(with("--room 7 --backoff-ms 100")) "tells that the history does not reach back far enough";
    rooms::cut_among_kept(with("--room 7 --backoff-ms 100")) "is cut among kept messages, and asks for those that did not come";
    rooms::begins_anew(with("--room 7 --backoff-ms 100")) "follows a room that begins anew with lower sequences";
    rooms::no_history(with("--room 7 --backoff-ms 100")) "asks a server that knows no history for none, and goes on without";
    rooms::gap(with("--room 7 --backoff-ms 100")) "asks for messages that it missed on a live connection, once, and takes no for an answer";
    rooms::last(with("--room 7 --last 3 --backoff-ms 100")) "asks for the last messages of a room";
    rooms::join_busy(with("--room 7 --busy-ms 200")) "joins again later when the server was busy";
}

/// A token that outlasts the scenario, and further arguments.
fn with(further: &str) -> Vec<String> {
    let token = ["--token".to_owned(), crate::token::long_token("first")];
    token.into_iter().chain(further.split_whitespace().map(str::to_owned)).collect()
}

/// A token of so many seconds, another one that outlasts the scenario, and further arguments.
fn two_tokens(first_s: u64, further: &str) -> Vec<String> {
    let first = crate::token::token("first", std::time::Duration::from_secs(first_s));
    let tokens = ["--token".to_owned(), first, "--token".to_owned(), crate::token::long_token("second")];
    tokens.into_iter().chain(further.split_whitespace().map(str::to_owned)).collect()
}

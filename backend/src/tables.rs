//! All SQL, one file a table (or a few that are only written together). Nothing here decides: rules stand in the callers.

pub mod account;
pub mod gift;
pub mod gift_order;
pub mod hand_over;
pub mod id_segment;
pub mod inbox;
pub mod job;
pub mod login_token;
pub mod outbox;
pub mod pay_order;
pub mod presence;
pub mod product;
pub mod room;
pub mod room_member;
pub mod user;
pub mod user_phone;
pub mod user_tag;

/// Into how many tables the rows of users are split.
pub const PARTS: i64 = 100;

/// The two digits that the names of a user's tables end with.
pub fn part(user_id: i64) -> String {
    format!("{:02}", user_id.rem_euclid(PARTS))
}

/// All of these.
pub fn parts() -> impl Iterator<Item = String> {
    (0..PARTS).map(part)
}

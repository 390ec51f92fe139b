//! All SQL, one file a table (or a few that are only written together). Nothing here decides: rules stand in the callers.

pub mod account;
pub mod gift;
pub mod gift_order;
pub mod hand_over;
pub mod inbox;
pub mod job;
pub mod outbox;
pub mod pay_order;
pub mod presence;
pub mod product;
pub mod room;
pub mod room_member;

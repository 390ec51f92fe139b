//! All SQL, one file a table (or a few that are only written together). Nothing here decides: rules stand in the callers.

pub mod account;
pub mod job;
pub mod outbox;

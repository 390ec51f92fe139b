//! What notices say to people.

use wire::client::NoticeCode;

/// The text of a notice.
pub(crate) fn notice_text(code: NoticeCode) -> &'static str {
    match code {
        NoticeCode::Kicked => {
            "a newer login of this user and device class took over, or an operator ended this session"
        }
        NoticeCode::Draining => "this server is going down; connect again after retry_after_ms",
        NoticeCode::RateLimited => "more frames than a connection may send",
        NoticeCode::IdleTimeout => "no frame within the heartbeat period and its grace",
        NoticeCode::SlowReader => "this connection reads too slowly",
        NoticeCode::BadMagic => "not the magic of a Sailfish frame, or another one than before",
        NoticeCode::BadCode => "unknown frame code",
        NoticeCode::BadLength => "negative body length, or longer than allowed",
        NoticeCode::BadBody => "the body is not what its magic and code say",
        NoticeCode::LoginRequired => "log in first",
        NoticeCode::LoginTimeout => "no login within the deadline",
        NoticeCode::TokenInvalid => "the token is malformed, forged or revoked, not good yet, or of no user",
        NoticeCode::TokenExpired => "the token has expired",
        NoticeCode::AlreadyLoggedIn => {
            "this connection is logged in already, as another user or on another device"
        }
        NoticeCode::AddressLimit => "too many connections from this address",
        NoticeCode::ServerFull => "this server holds as many connections as it may",
        NoticeCode::NotMember => "not in that room; join it first",
        NoticeCode::NoRoute => "no route for this business code and target",
        NoticeCode::RoomLimit => "in as many rooms as a session may be",
        NoticeCode::Busy => "the server is at a limit; try again later",
        NoticeCode::TooLong => "the message is too long for a frame to some receiver",
        NoticeCode::BadContent => "a value in the business packet cannot be used; the packet was dropped",
    }
}

//! The one type of errors, and the one form in which callers get them: `{code, message, request_id}`.

use std::fmt;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_server::body::BodyError;
use logs::{error, warn};
use serde::Serialize;
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;
use utoipa::ToSchema;

use crate::request_id;

/// Why a request was refused, or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The HTTP status.
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people: what is wrong, and what is wanted.
    pub message: String,
    /// After how many s the same request may be sent again: the header `Retry-After`.
    pub retry_after_s: Option<u32>,
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    /// For programs.
    code: &'static str,
    /// For people: what is wrong, and what is wanted.
    message: String,
    /// Names the request in the logs.
    request_id: String,
}

impl Error {
    /// An error of its own.
    pub fn new(status: StatusCode, code: &'static str, message: impl fmt::Display) -> Self {
        Self { status, code, message: message.to_string(), retry_after_s: None }
    }

    /// 400: the caller's mistake; `message` names the field and what it wants.
    pub fn bad_request(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 401: the caller must log in or sign.
    pub fn unauthorized(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 403: the caller is known, and may not do this.
    pub fn forbidden(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404: there is no such thing.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 409: it conflicts with stored data; `code` says how.
    pub fn conflict(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 429: too often.
    pub fn too_many(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
    }

    /// 503: something that the response needs is away; the same request may be sent again.
    pub fn unavailable(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// 500: our own fault.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// The same error, with the time to wait.
    pub fn retry_after_ms(mut self, ms: i64) -> Self {
        self.retry_after_s = Some(u32::try_from(ms.max(1)).unwrap_or(u32::MAX).div_ceil(1_000));
        self
    }

    /// Whether the same request may succeed later without any change.
    pub fn is_transient(&self) -> bool {
        self.status.is_server_error()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match Trouble::of(&error) {
            Some(Trouble::Away) => Self::of_database(&error),
            Some(Trouble::Busy) => Self::unavailable("database_busy", error),
            None if Self::is_duplicate(&error) => Self::conflict("duplicate", "it is there already"),
            None => Self::internal(error),
        }
    }
}

impl Error {
    /// Whether the database, or the connection to it, is in such trouble that the connection must not be used
    /// again.
    pub(crate) fn is_of_database(error: &sqlx::Error) -> bool {
        Trouble::of(error) == Some(Trouble::Away)
    }

    /// Whether a statement broke a UNIQUE constraint.
    pub(crate) fn is_duplicate(error: &sqlx::Error) -> bool {
        error.as_database_error().is_some_and(|error| error.is_unique_violation())
    }

    /// 503 with the database's own words.
    pub(crate) fn of_database(error: &sqlx::Error) -> Self {
        Self::unavailable("database_unavailable", error)
    }
}

/// Why a database fails. `tests/scenarios/trouble.rs` makes databases fail so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    /// Others are in the way for the moment: a deadlock, a lock that took too long. The connection is good.
    Busy,
    /// The database cannot work: its disk is full or fails, its file is damaged, it is read-only, stops, or
    /// has ended the connection.
    Away,
}

impl Trouble {
    /// `None` if it is the caller's fault or our own.
    fn of(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Some(Self::Away),
            sqlx::Error::Database(error) => Self::said(&**error),
            _ => None,
        }
    }

    fn said(error: &dyn DatabaseError) -> Option<Self> {
        if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
            let is_in = |numbers: &[u16]| numbers.contains(&error.number());
            return match () {
                () if is_in(MYSQL_BUSY) => Some(Self::Busy),
                () if is_in(MYSQL_AWAY) => Some(Self::Away),
                () => None,
            };
        }
        // Extended codes are in the upper bits.
        match error.code().and_then(|code| code.parse::<u32>().ok())? & 0xff {
            5 | 6 => Some(Self::Busy), // BUSY, LOCKED
            // NOMEM, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB
            7 | 8 | 9 | 10 | 11 | 13 | 14 | 15 | 26 => Some(Self::Away),
            _ => None,
        }
    }
}

/// The number by which MySQL's own clients say that they cannot connect.
pub(crate) const CANNOT_CONNECT: u16 = 2003;

/// Numbers of MySQL and MariaDB. The SQLSTATE does not help: a lock that took too long and a read-only server
/// are HY000, as our own faults are.
const MYSQL_BUSY: &[u16] = &[
    1020, // a row changed since it was read
    1040, // too many connections
    1203, 1226, // too many of this user
    1205, // a lock took too long
    1213, // a deadlock
    1317, // the query was killed
    1412, // a table changed meanwhile
    1615, // a statement is to be prepared again
    1969, // the statement took too long
    3024, // the same, of MySQL
    3572, // a lock was not free
];
const MYSQL_AWAY: &[u16] = &[
    // A call of the server to its system failed: a file cannot be made, read, written, closed, deleted,
    // locked or synced, memory is short, the disk is full. 22 and 28 are a caller's: an unknown character set
    // or collation.
    1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 29, 30, 31,
    32, 33, //
    1004, 1012, 1013, 1015, 1016, 1017, 1018, 1023, 1024, 1026, 1039,
    1878, // the same, of later versions
    1030, 1296, 1297, // the engine failed
    1028, // a sort was given up, since there was no room for its file
    1021, 1114, 3019, // its disk, a table or the undo log is full
    1033, 1034, 1035, 1194, 1195, 1712, 1817, 1877, 3000, // a table, an index or a file is damaged
    1812, 1814, 1932, // a table has lost its file
    1037, 1038, 1041, 1135, 1206, 3015, // out of memory
    2003, // CANNOT_CONNECT
    1047, // a cluster that is not ready
    1053, // it shuts down
    1077, 1078, 1079, // it has shut down
    1129, // it refuses this host, since connections broke
    1158, 1159, 1160, 1161, // the connection broke
    1180, 1181, // a commit or a rollback failed
    1036, 1290, 1792, 1836, 1874, 1881, // it is read-only, as a primary is while another takes over
    1927, 3169, // the connection was killed
    3032, 3168, // it is not available
    4031, // the connection was idle for too long
];

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLong(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error),
            BodyError::TooSlow => Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", error),
            BodyError::Busy => Self::unavailable("busy", error),
            BodyError::Broken(_) => Self::bad_request(error),
        }
    }
}

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        Self::unavailable("redis_unavailable", error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(format!("JSON: {error}"))
    }
}

/// The error code of a login when no login code can be sent.
pub const NO_SENDER: &str = "no_sender";

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let request_id = request_id::current();
        let message = match self.status {
            StatusCode::INTERNAL_SERVER_ERROR => {
                error!(request_id, code = self.code, message = self.message, "request failed");
                "internal error; the server's log has more under this request_id (at level debug if there are many)"
                    .to_owned()
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                warn!(request_id, code = self.code, message = self.message, "request failed");
                // Time alone does not help if the operator has set no sender.
                if self.code == NO_SENDER {
                    "this server cannot send login codes; its operator must set backend.sms_url".to_owned()
                } else {
                    "a service that this request needs is not available; send the same request again later"
                        .to_owned()
                }
            }
            _ => self.message,
        };
        // Nobody knows how long something will be away.
        let is_away = self.status == StatusCode::SERVICE_UNAVAILABLE;
        let retry_after_s = self.retry_after_s.or(is_away.then_some(1));
        let retry_after = retry_after_s.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        (self.status, retry_after, Json(ErrorBody { code: self.code, message, request_id })).into_response()
    }
}

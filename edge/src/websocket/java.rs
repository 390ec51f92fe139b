//! The handshake's path of the Java platform's clients, which logs them in:
//! `/{token}/{userId}/{code}/{roomId}`, or without the room.

use super::{Login, Opened};
use crate::{Form, Refusal};

/// The code of a login.
const LOGIN: &str = "1001";

/// What a path says, if it is one of the Java platform's: three or four parts, of which all but the first are
/// integers. The user is not looked at, since the token says who it is.
///
/// # Errors
/// A code that is not that of a login, or a token with characters that no token has.
pub(super) fn login(path: &str) -> Result<Option<Opened>, Refusal> {
    let path = path.split('?').next().unwrap_or_default();
    let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
    let (Some(token), Some(user), Some(code)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(None);
    };
    let room = parts.next().map(str::parse::<i64>);
    let is_java = user.parse::<i64>().is_ok()
        && code.parse::<i32>().is_ok()
        && room.as_ref().is_none_or(Result::is_ok)
        && parts.next().is_none();
    if !is_java {
        return Ok(None);
    }
    let is_of_token = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if code != LOGIN || token.is_empty() || !token.bytes().all(is_of_token) {
        return Err(Refusal::HttpJavaPath);
    }
    let login = Login { token: token.to_owned(), room: room.and_then(Result::ok) };
    Ok(Some(Opened { form: Form::Java, login: Some(login) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_logs_in_and_may_name_a_room() {
        for (path, room) in [
            ("/t.k_n-1/10001/1001", None),
            ("/t.k_n-1/10001/1001/7", Some(7)),
            ("/t.k_n-1/10001/1001/-7?a=b/c", Some(-7)),
        ] {
            let opened = login(path).unwrap().unwrap();
            assert_eq!(opened.form, Form::Java, "{path}");
            assert_eq!(opened.login, Some(Login { token: "t.k_n-1".into(), room }), "{path}");
        }
    }

    #[test]
    fn another_path_is_none_of_the_java_platforms() {
        for path in [
            "/",
            "",
            "/chat",
            "/t/10001",
            "/t/me/1001",
            "/t/1/login",
            "/t/1/1001/x",
            "/t/1/1001/7/8",
            "/t/1/1001/",
        ] {
            assert_eq!(login(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn another_code_and_a_token_that_is_none_are_refused() {
        for path in ["/t/1/1003", "/t/1/1002/7", "//1/1001", "/t%20/1/1001", "/t\"/1/1001"] {
            assert_eq!(login(path), Err(Refusal::HttpJavaPath), "{path}");
        }
    }
}

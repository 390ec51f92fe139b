//! Whether a page of another site makes its reader's browser send a request.

use axum::http::{HeaderMap, Method, Uri, header};

/// Whether a request that changes something surely comes from no page of another site. Browsers let pages of
/// other sites send forms and texts with the reader's cookies and without asking; JSON and a bearer token
/// they do not, and they say where a request comes from.
pub fn is_own(method: &Method, headers: &HeaderMap) -> bool {
    method.is_safe() || is_json(headers) || bears_token(headers) || is_of_this_site(headers)
}

/// Whether the body is said to be JSON.
pub fn is_json(headers: &HeaderMap) -> bool {
    let kind = text(headers, "content-type").split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

fn bears_token(headers: &HeaderMap) -> bool {
    let value = text(headers, header::AUTHORIZATION.as_str());
    value.split_at_checked(7).is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer "))
}

/// Whether the browser says that the page is of this site, or that its user typed the address.
fn is_of_this_site(headers: &HeaderMap) -> bool {
    match text(headers, "sec-fetch-site") {
        "same-origin" | "none" => true,
        // A browser does not say it of a site without TLS.
        "" => {
            let origin: Option<Uri> = text(headers, header::ORIGIN.as_str()).parse().ok();
            let of_page = origin.as_ref().and_then(Uri::authority).map(|authority| authority.as_str());
            of_page.is_some_and(|of_page| of_page == text(headers, header::HOST.as_str()))
        }
        _ => false,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_own(method: Method, lines: &[(&'static str, &'static str)]) -> bool {
        let headers = lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        super::is_own(&method, &headers.collect())
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let form = ("content-type", "application/x-www-form-urlencoded");
        let cookie = ("cookie", "sailfish_login=x");
        for lines in [
            &[][..],
            &[cookie],
            &[form, cookie],
            &[("content-type", "text/plain; application/json")],
            &[("sec-fetch-site", "cross-site"), ("origin", "http://a"), ("host", "a")],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "https://evil.example"), ("host", "a.example")],
            &[("origin", "null"), ("host", "a.example")],
            &[("authorization", "Basic Bearer ")],
        ] {
            assert!(!is_own(Method::POST, lines), "{lines:?}");
            assert!(!is_own(Method::DELETE, lines), "{lines:?}");
            assert!(is_own(Method::GET, lines), "{lines:?}");
        }
    }

    #[test]
    fn programs_and_own_pages_do() {
        for lines in [
            &[("content-type", "application/json")][..],
            &[("content-type", "Application/JSON; charset=utf-8")],
            &[("authorization", "bearer x")],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://10.0.0.1:5348"), ("host", "10.0.0.1:5348")],
        ] {
            assert!(is_own(Method::POST, lines), "{lines:?}");
        }
    }
}

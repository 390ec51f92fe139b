//! Which requests are counted together.

use http_server::Class;

/// The class of a path's requests. The bridge, services and probes do not wait for other callers.
pub fn class_of(path: &str) -> Option<Class> {
    let is_service = path.starts_with("/bridge/")
        || path.starts_with("/internal/")
        || ["/readyz", "/healthz"].contains(&path);
    Some(if is_service { Class::Services } else { Class::Callers })
}

//! Whose requests are counted together.

use http_server::Class;

/// Which requests a path's are counted with. The bridge, services and probes do not wait for callers.
pub fn class_of(path: &str) -> Option<Class> {
    let is_service = path.starts_with("/bridge/")
        || path.starts_with("/internal/")
        || ["/readyz", "/healthz"].contains(&path);
    Some(if is_service { Class::Services } else { Class::Callers })
}

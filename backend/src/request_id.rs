//! The id of the request at work, which errors and logs name.

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request at work; empty outside of a request.
pub fn current() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// Works on the request `id`.
pub async fn scope<T>(id: String, work: impl Future<Output = T>) -> T {
    CURRENT.scope(id, work).await
}

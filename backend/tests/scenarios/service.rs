//! The service as such: it starts, says how it is, and ends.

use crate::common::call;

both!(
    /// What there is not is said in the shape of every error.
    unknown_paths_are_said_in_the_shape_of_errors,
    |stack| async move {
        let node = stack.backend().await;
        let (status, body) = call("GET", format!("{}/nothing", node.url()), None, None).await;
        assert_eq!((status, body["code"].as_str()), (404, Some("not_found")));
        assert_eq!(body["request_id"].as_str().unwrap().len(), 16);
        node.stop().await;
    }
);

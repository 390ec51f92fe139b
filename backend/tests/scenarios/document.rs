//! The OpenAPI document, compared with what the service does.

use serde_json::{Value, json};

use crate::bridge;
use crate::common::{Node, Stack, request};
use crate::gift::people;
use crate::login::{log_in, phone};
use crate::pay;

/// An operation of the document.
struct Operation<'a> {
    method: String,
    path: &'a str,
    text: &'a Value,
}

async fn document(node: &Node) -> Value {
    request("GET", &format!("{}/openapi.json", node.url()), &[], Vec::new()).await.json()
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().expect("paths");
    let methods = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("an object of methods");
        methods.iter().map(move |(method, text)| Operation { method: method.to_uppercase(), path, text })
    });
    methods.collect()
}

impl Operation<'_> {
    /// The first security scheme that it wants; none if everybody may call.
    fn scheme(&self) -> Option<&str> {
        let schemes = self.text["security"].as_array().expect("each operation says who may call");
        Some(schemes.first()?.as_object()?.keys().next()?)
    }

    /// The first example of the body.
    fn example(&self, document: &Value) -> Option<Value> {
        let schema = &self.text["requestBody"]["content"]["application/json"]["schema"];
        let name = schema["$ref"].as_str()?.rsplit('/').next()?;
        let examples = &document["components"]["schemas"][name]["examples"];
        Some(examples[0].clone())
    }

    async fn call(&self, node: &Node, headers: &[(&str, String)], body: Option<&Value>) -> (u16, String) {
        let path = self.path.replace("{phone}", &phone(5_301)).replace("{provider}", "mock");
        let path = path.replace("{id}", "7").replace("{order_id}", "7");
        let json = ("content-type", "application/json".to_owned());
        let headers: Vec<_> = headers.iter().cloned().chain([json]).collect();
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let answer = request(&self.method, &format!("{}{path}", node.url()), &headers, body).await;
        (answer.status, format!("{} {path}: {} {}", self.method, answer.status, answer.text()))
    }
}

/// Who may call is what the document says, in both directions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_says_who_may_call() {
    let node = Stack::embedded().await.backend().await;
    let document = document(&node).await;
    for operation in operations(&document) {
        let (status, answer) = operation.call(&node, &[], operation.example(&document).as_ref()).await;
        // A wrong code is a 401 of another kind.
        let wants_more = status == 401 && operation.path != "/login";
        assert_eq!(wants_more, operation.scheme().is_some(), "{answer}");
        if let Some(scheme) = operation.scheme() {
            assert!(document["components"]["securitySchemes"][scheme].is_object(), "{scheme}");
        }
        assert!(operation.text["responses"][status.to_string()].is_object(), "not in the document: {answer}");
    }
    node.stop().await;
}

/// A page of another site makes its reader's browser send a form, with the reader's cookie: nothing that
/// changes anything takes it, or is even asked whose cookie it is. What is signed needs no cookie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_takes_a_form_with_a_cookie() {
    let node = Stack::embedded().await.backend().await;
    let (_, token) = log_in(&node, &phone(5_303)).await;
    let document = document(&node).await;
    let is_safe = |operation: &Operation<'_>| matches!(operation.method.as_str(), "GET" | "HEAD" | "OPTIONS");
    let is_signed = |operation: &Operation<'_>| matches!(operation.scheme(), Some("bridge" | "provider"));
    let mut seen = 0;
    for operation in operations(&document).iter().filter(|one| !is_safe(one) && !is_signed(one)) {
        let url = format!("{}{}", node.url(), operation.path.replace(['{', '}'], ""));
        for form in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "text/plain"] {
            let cookie = ("cookie", format!("sailfish_login={token}"));
            let headers = [cookie, ("content-type", form.to_owned())];
            let answer = request(&operation.method, &url, &headers, b"{}".to_vec()).await;
            assert_eq!(answer.status, 415, "{} {url} {form}: {}", operation.method, answer.text());
        }
        seen += 1;
    }
    assert!(seen > 15, "{seen} operations");
    node.stop().await;
}

/// Who sends an example is understood. What it asks for need not exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_are_bodies_that_the_service_takes() {
    let node = Stack::embedded().await.backend().await;
    people(&node).await;
    let (_, token) = log_in(&node, &phone(5_302)).await;
    let document = document(&node).await;
    let mut seen = 0;
    for operation in
        operations(&document).into_iter().filter(|operation| operation.text["requestBody"].is_object())
    {
        let mut body = operation.example(&document).expect("the body is a named type");
        assert!(body.is_object(), "{} {} has no example", operation.method, operation.path);
        let bearer = |token: &str| vec![("authorization", format!("Bearer {token}"))];
        let headers = match operation.scheme() {
            Some("login") => bearer(&token),
            Some("internal") => bearer("internal-secret"),
            Some("bridge") => bridge::signature("bridge-secret", 0, &body.to_string()).to_vec(),
            Some("provider") => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
                body["timestamp_ms"] = json!(now.as_millis() as u64);
                vec![("x-signature", pay::signature("provider-secret", &body.to_string()))]
            }
            _ => Vec::new(),
        };
        let (status, answer) = operation.call(&node, &headers, Some(&body)).await;
        let is_wrong_code = operation.path == "/login" && status == 401;
        assert!(matches!(status, 200 | 404 | 409) || is_wrong_code, "{answer}");
        assert!(operation.text["responses"][status.to_string()].is_object(), "not in the document: {answer}");
        seen += 1;
    }
    assert!(seen > 15, "{seen} operations with a body");
    node.stop().await;
}

/// What the document calls a part of the path is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_puts_parameters_where_they_are() {
    let node = Stack::embedded().await.backend().await;
    let page = document(&node).await;
    let paths = page["paths"].as_object().expect("paths");
    let mut seen = 0;
    for (path, methods) in paths {
        for parameter in
            methods.as_object().unwrap().values().flat_map(|method| method["parameters"].as_array()).flatten()
        {
            let is_in_path = path.contains(&format!("{{{}}}", parameter["name"].as_str().unwrap()));
            assert_eq!(parameter["in"] == "path", is_in_path, "{path}: {parameter}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} parameters");
    node.stop().await;
}

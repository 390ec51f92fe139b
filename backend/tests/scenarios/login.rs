//! Login by phone and code, login tokens, IM tokens.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use backend::{Queue, Topic};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{Node, Stack, call, request, until};
use crate::users::count;

/// A phone that no other test uses.
pub fn phone(number: u32) -> String {
    format!("+86138{number:08}")
}

/// Asks for a code and reads it where the mock sender shows it.
pub async fn code(node: &Node, phone: &str) -> String {
    let (status, body) =
        call("POST", format!("{}/login/code", node.url()), None, Some(json!({ "phone": phone }))).await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = call("GET", format!("{}/mock/sms/{phone}", node.url()), None, None).await;
    assert_eq!(status, 200, "{body}");
    body["code"].as_str().unwrap().to_owned()
}

/// Tries to log in.
pub async fn try_log_in(node: &Node, phone: &str, code: &str) -> (u16, Value) {
    let body = json!({ "phone": phone, "code": code });
    call("POST", format!("{}/login", node.url()), None, Some(body)).await
}

/// Logs a phone in; the user's id and token.
pub async fn log_in(node: &Node, phone: &str) -> (i64, String) {
    let code = code(node, phone).await;
    let (status, body) = try_log_in(node, phone, &code).await;
    assert_eq!(status, 200, "{body}");
    (body["user_id"].as_i64().unwrap(), body["token"].as_str().unwrap().to_owned())
}

async fn is_logged_in(node: &Node, token: &str) -> bool {
    let (status, body) = call("GET", format!("{}/users/me", node.url()), Some(token), None).await;
    assert!(status == 200 || status == 401, "{body}");
    status == 200
}

/// Other digits.
pub fn another(code: &str) -> String {
    format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000)
}

both!(
    /// B7: a code logs in once; the first login makes the user, the next one finds it.
    a_code_logs_in_once,
    |stack| async move {
        let node = stack.backend().await;
        let first = code(&node, "+8613800000001").await;
        assert_eq!(first.len(), 6);
        let (status, body) = try_log_in(&node, "+86 138-0000-0001", &first).await;
        assert_eq!((status, &body["is_new"]), (200, &json!(true)), "{body}");
        assert_eq!(body["token"].as_str().unwrap().len(), 64);
        let days = (body["expires_ms"].as_i64().unwrap() - stack.clock().now_ms()) as f64 / 86_400_000.0;
        assert!((29.9..=30.0).contains(&days), "{days}");
        let (status, again) = try_log_in(&node, "13800000001", &first).await;
        assert_eq!((status, again["code"].as_str()), (401, Some("wrong_code")), "a code is good once");

        stack.clock().advance_ms(61_000);
        forget_sends(&node, "+8613800000001").await;
        let second = code(&node, "+8613800000001").await;
        let (status, again) = try_log_in(&node, "008613800000001", &second).await;
        assert_eq!((status, &again["is_new"]), (200, &json!(false)), "{again}");
        assert_eq!(again["user_id"], body["user_id"]);
        assert!(is_logged_in(&node, body["token"].as_str().unwrap()).await, "other devices stay");
        node.stop().await;
    }
);

/// In Redis the clock does not move the minute after which a code is sent again.
pub async fn forget_sends(node: &Node, phone: &str) {
    let hash: String = Sha256::digest(phone).iter().map(|byte| format!("{byte:02x}")).collect();
    node.app().store.cache.delete(&format!("login_code_sends:{hash}")).await.unwrap();
}

both!(
    /// B7: one code a minute for a phone, and none is shown where it was not sent.
    a_phone_gets_one_code_a_minute,
    |stack| async move {
        let node = stack.backend().await;
        let url = format!("{}/login/code", node.url());
        let (status, _) = call("POST", url.clone(), None, Some(json!({ "phone": phone(1) }))).await;
        assert_eq!(status, 200);
        for same in [phone(1), "00".to_owned() + &phone(1)[1..], phone(1)[3..].to_owned()] {
            let (status, body) = call("POST", url.clone(), None, Some(json!({ "phone": same }))).await;
            assert_eq!((status, body["code"].as_str()), (429, Some("too_many_requests")), "{same}");
        }
        let (status, _) = call("POST", url, None, Some(json!({ "phone": phone(2) }))).await;
        assert_eq!(status, 200, "another phone has a minute of its own");
        let (status, _) = call("GET", format!("{}/mock/sms/{}", node.url(), phone(3)), None, None).await;
        assert_eq!(status, 404);
        node.stop().await;
    }
);

/// B7, where the clock moves the cache too.
#[tokio::test]
async fn after_a_minute_the_next_code_is_sent_and_the_one_before_is_void() {
    let stack = Stack::embedded().await;
    let node = stack.backend().await;
    let first = code(&node, &phone(1)).await;
    stack.clock().advance_ms(59_000);
    let (status, _) =
        call("POST", format!("{}/login/code", node.url()), None, Some(json!({ "phone": phone(1) }))).await;
    assert_eq!(status, 429);
    stack.clock().advance_ms(1_001);
    let second = code(&node, &phone(1)).await;
    if first != second {
        assert_eq!(try_log_in(&node, &phone(1), &first).await.0, 401);
    }
    assert_eq!(try_log_in(&node, &phone(1), &second).await.0, 200);
    node.stop().await;
}

both!(
    /// B7: a code is good for 60 s.
    a_code_ends_after_a_minute,
    |stack| async move {
        let node = stack.backend().await;
        let (early, late) = (code(&node, &phone(1)).await, code(&node, &phone(2)).await);
        stack.clock().advance_ms(50_000);
        assert_eq!(try_log_in(&node, &phone(1), &early).await.0, 200);
        stack.clock().advance_ms(10_000);
        let (status, body) = try_log_in(&node, &phone(2), &late).await;
        assert_eq!((status, body["code"].as_str()), (401, Some("wrong_code")));
        node.stop().await;
    }
);

both!(
    /// B7: the fifth try may be right; the sixth, from the same address, has to wait, also when all come at
    /// once.
    a_code_is_tried_five_times,
    |stack| async move {
        let node = stack.backend().await;
        for (number, wrong, status_wanted) in [(1, 4, 200), (2, 5, 429)] {
            let phone = phone(number);
            let right = code(&node, &phone).await;
            let tries = (0..wrong).map(|_| {
                let (url, wrong, phone) = (node.url(), another(&right), phone.clone());
                let body = json!({ "phone": phone, "code": wrong });
                tokio::spawn(async move { call("POST", format!("{url}/login"), None, Some(body)).await.0 })
            });
            for tried in tries.collect::<Vec<_>>() {
                assert_eq!(tried.await.unwrap(), 401);
            }
            assert_eq!(try_log_in(&node, &phone, &right).await.0, status_wanted, "after {wrong} wrong ones");
        }
        node.stop().await;
    }
);

both!(
    /// B7: logins of a phone are limited, whatever the code.
    logins_of_a_phone_are_limited,
    |stack| async move {
        // No minute ends by chance.
        stack.clock().advance_ms(60_000 - stack.clock().now_ms() % 60_000);
        let node = stack.backend_with(backend::Config { logins_per_minute: 3, ..stack.config() }).await;
        for _ in 0..3 {
            assert_eq!(try_log_in(&node, &phone(1), "000000").await.0, 401);
        }
        let right = code(&node, &phone(1)).await;
        assert_eq!(try_log_in(&node, &phone(1), &right).await.0, 429);
        assert_eq!(try_log_in(&node, &phone(2), "000000").await.0, 401, "another phone has a limit of its own");
        node.stop().await;
    }
);

both!(
    /// B1, B7: logins at once with one code make one user and one login.
    logins_at_once_make_one_user,
    |stack| async move {
        let node = stack.backend().await;
        // With Redis, two processes know the code.
        let second = match stack.config().redis.is_empty() {
            true => None,
            false => Some(stack.backend().await),
        };
        for number in 0..10 {
            let code = code(&node, &phone(number)).await;
            let logins = (0..5).map(|login| {
                let url = second.as_ref().filter(|_| login % 2 == 1).unwrap_or(&node).url();
                let body = json!({ "phone": phone(number), "code": code });
                tokio::spawn(async move { call("POST", format!("{url}/login"), None, Some(body)).await })
            });
            let mut statuses = Vec::new();
            for login in logins.collect::<Vec<_>>() {
                statuses.push(login.await.unwrap().0);
            }
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 401, 401, 401, 401]);
            assert_eq!(count(&node, "t_user_phone").await, i64::from(number) + 1);
        }
        let mut users = 0;
        for part in 0..100 {
            users += count(&node, &format!("t_user_{part:02}")).await;
        }
        assert_eq!(users, 10);
        node.stop().await;
    }
);

both!(
    /// B7: a login lasts 30 days, by header and by cookie, until it is ended.
    a_login_lasts_until_its_end,
    |stack| async move {
        let node = stack.backend().await;
        let right = code(&node, &phone(1)).await;
        let body = json!({ "phone": phone(1), "code": right }).to_string();
        let json = [("content-type", "application/json".to_owned())];
        let answer = request("POST", &format!("{}/login", node.url()), &json, body.into()).await;
        assert_eq!(answer.status, 200);
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        let wanted = format!("sailfish_login={token}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax");
        assert_eq!(cookie, wanted);

        let me = format!("{}/users/me", node.url());
        let cookie = [("cookie", format!("a=b; sailfish_login={token}; c=d"))];
        assert_eq!(request("GET", &me, &cookie, Vec::new()).await.status, 200);
        for wrong in ["", "x", &token[1..], &token.to_uppercase(), &"0".repeat(64), "' OR '1'='1"] {
            let (status, _) = call("GET", me.clone(), Some(wrong), None).await;
            assert_eq!(status, if wrong == token { 200 } else { 401 }, "{wrong}");
        }
        stack.clock().advance_ms(30 * 86_400_000 - 60_000);
        assert!(is_logged_in(&node, &token).await);
        stack.clock().advance_ms(60_000);
        assert!(!is_logged_in(&node, &token).await);

        let (_, token) = log_in(&node, &phone(2)).await;
        let (_, other) = log_in(&node, &phone(3)).await;
        assert!(is_logged_in(&node, &token).await);
        let logout = format!("{}/logout", node.url());
        let cookie = ("cookie", format!("sailfish_login={token}"));
        let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
        let elsewhere = [cookie.clone(), form, ("sec-fetch-site", "cross-site".to_owned())];
        assert_eq!(request("POST", &logout, &elsewhere, Vec::new()).await.status, 415, "a page of another site");
        assert!(is_logged_in(&node, &token).await);
        let own_page = [cookie, ("sec-fetch-site", "same-origin".to_owned())];
        let answer = request("POST", &logout, &own_page, Vec::new()).await;
        assert_eq!(answer.status, 200);
        assert!(answer.headers["set-cookie"].to_str().unwrap().starts_with("sailfish_login=; Path=/; Max-Age=0"));
        assert!(!is_logged_in(&node, &token).await);
        assert!(is_logged_in(&node, &other).await);
        assert_eq!(call("POST", logout, None, Some(json!({}))).await.0, 401);
        node.stop().await;
        let public = backend::Config { public_url: "https://api.example".into(), ..stack.config() };
        let listens = |address: &str| backend::Config { listen: address.parse().unwrap(), ..stack.config() };
        let open = [public, listens("0.0.0.0:5348"), listens("[::]:5348"), listens("203.0.113.7:5348")];
        for (number, config) in (4..).zip(open) {
            let reached = (config.public_url.clone(), config.listen);
            let node = stack.backend_with(config).await;
            let right = code(&node, &phone(number)).await;
            let body = json!({ "phone": phone(number), "code": right }).to_string();
            let answer = request("POST", &format!("{}/login", node.url()), &json, body.into()).await;
            let cookie = answer.headers["set-cookie"].to_str().unwrap();
            assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{reached:?}: {cookie}");
            node.stop().await;
        }
    }
);

both!(
    /// B7: a login outlives the cache and the process, and the database does not have the token itself.
    a_login_outlives_the_cache,
    |stack| async move {
        let node = stack.backend().await;
        let (_, token) = log_in(&node, &phone(1)).await;
        assert!(is_logged_in(&node, &token).await);
        let hash = Sha256::digest(&token);
        let row = sqlx::query("SELECT COUNT(*) FROM t_login_token WHERE token_hash = ?")
            .bind(hash.to_vec())
            .fetch_one(node.app().store.db.primary())
            .await
            .unwrap();
        assert_eq!(sqlx::Row::get::<i64, _>(&row, 0), 1);
        node.stop().await;
        // Another prefix is an empty Redis.
        let flushed = backend::Config { prefix: format!("{}-flushed", stack.config().prefix), ..stack.config() };
        let node = stack.backend_with(flushed).await;
        assert!(is_logged_in(&node, &token).await);
        node.stop().await;
    }
);

both!(
    /// A user's logins are bounded: the oldest ends when there are too many, and so do its IM tokens.
    the_oldest_of_too_many_logins_ends,
    |stack| async move {
        let gateways = Gateways::start().await;
        let push_url = gateways.url.clone();
        let config = backend::Config { logins_per_minute: 1_000, codes_per_phone_day: 1_000, ..stack.config() };
        let node = stack.backend_with(backend::Config { push_url, ..config }).await;
        let (mut tokens, mut oldest) = (Vec::new(), [String::new(), String::new()]);
        for _ in 0..22 {
            forget_sends(&node, &phone(1)).await;
            tokens.push(log_in(&node, &phone(1)).await.1);
            stack.clock().advance_ms(1);
            if tokens.len() == 2 {
                oldest = [im_login(&node, &tokens[0], "web").await, im_login(&node, &tokens[1], "web").await];
            }
        }
        assert_eq!(count(&node, "t_login_token").await, 20);
        until("the gateways are told", async || gateways.said.lock().unwrap().revoked.len() == 2).await;
        let revoked = std::mem::take(&mut gateways.said.lock().unwrap().revoked);
        let logins: BTreeSet<&str> = revoked.iter().map(|one| one["login"].as_str().unwrap()).collect();
        assert_eq!(logins, oldest.iter().map(String::as_str).collect());
        for (index, token) in tokens.iter().enumerate() {
            assert_eq!(is_logged_in(&node, token).await, index >= 2, "{index}");
        }
        node.stop().await;
    }
);

both!(
    /// B7: an IM token is what the gateway checks: HS256 over app, user, device and expiry.
    an_im_token_is_signed_for_the_gateway,
    |stack| async move {
        let config = backend::Config {
            im_address: "im.example.org:5346".into(),
            im_websocket: "wss://im.example.org".into(),
            im_audience: "im".into(),
            im_issuer: "us".into(),
            app: 7,
            ..stack.config()
        };
        let secret = config.im_secret.clone();
        let node = stack.backend_with(config).await;
        let (user_id, login) = log_in(&node, &phone(1)).await;
        let url = format!("{}/im/token", node.url());
        for (body, device) in [(json!({}), "phone"), (json!({ "device": "web" }), "web")] {
            let now_s = stack.clock().now_ms() / 1_000;
            let (status, made) = call("POST", url.clone(), Some(&login), Some(body)).await;
            assert_eq!(status, 200, "{made}");
            let token = made["token"].as_str().unwrap();
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let hmac = Hmac::<Sha256>::new_from_slice(&secret).unwrap().chain_update(signed);
            hmac.verify_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
            let part = |part: &str| -> Value {
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
            };
            let (header, claims) = signed.split_once('.').unwrap();
            assert_eq!(part(header)["alg"], "HS256");
            let exp = part(claims)["exp"].as_i64().unwrap();
            assert!((600..610).contains(&(exp - now_s)), "{exp}");
            let sid = part(claims)["sid"].clone();
            let wanted = json!({ "app": 7, "user": user_id, "device": device, "exp": exp, "iat": exp - 600,
                "sid": sid, "aud": "im", "iss": "us" });
            assert_eq!(part(claims), wanted);
            let rest = json!({
                "token": token, "address": "im.example.org:5346", "websocket": "wss://im.example.org",
                "expires_ms": exp * 1_000, "app": 7, "user_id": user_id
            });
            assert_eq!(made, rest);
        }
        for wrong in [json!({ "device": "fridge" }), json!({ "device": 1 }), json!({ "user": 1 }), json!([])] {
            assert_eq!(call("POST", url.clone(), Some(&login), Some(wrong)).await.0, 400);
        }
        assert_eq!(call("POST", url.clone(), None, Some(json!({}))).await.0, 401);
        for _ in 2..10 {
            assert_eq!(call("POST", url.clone(), Some(&login), Some(json!({}))).await.0, 200);
        }
        assert_eq!(call("POST", url, Some(&login), Some(json!({}))).await.0, 429);
        node.stop().await;
    }
);

/// What gateways are told of tokens by the push API.
struct Gateways {
    url: String,
    said: Arc<Mutex<Said>>,
}

#[derive(Default)]
struct Said {
    is_away: bool,
    /// Calls while it was away.
    refusals: usize,
    revoked: Vec<Value>,
}

impl Gateways {
    async fn start() -> Self {
        let said = Arc::<Mutex<Said>>::default();
        let router = Router::new().route("/v1/revoke", post(Self::take)).with_state(said.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, said }
    }

    async fn take(
        State(said): State<Arc<Mutex<Said>>>,
        Json(one): Json<Value>,
    ) -> Result<Json<Value>, StatusCode> {
        let mut said = said.lock().unwrap();
        if said.is_away {
            said.refusals += 1;
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        said.revoked.push(one);
        Ok(Json(json!({ "shards": 1 })))
    }
}

/// What the IM tokens of a login call it.
async fn im_login(node: &Node, login: &str, device: &str) -> String {
    let body = Some(json!({ "device": device }));
    let (status, made) = call("POST", format!("{}/im/token", node.url()), Some(login), body).await;
    assert_eq!(status, 200, "{device}");
    let claims = made["token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims = serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["sid"].as_str().unwrap().to_owned()
}

both!(
    /// A logout takes back what the login got: its tokens are refused, and no others. The company's own
    /// services take back all.
    a_logout_revokes_the_tokens_of_the_login,
    |stack| async move {
        let gateways = Gateways::start().await;
        let node = stack.backend_with(backend::Config { push_url: gateways.url.clone(), ..stack.config() }).await;
        let url = node.url();
        let login_of = async |login: &str, device: &str| im_login(&node, login, device).await;
        let logout = async |login: &str| call("POST", format!("{url}/logout"), Some(login), None).await.0;
        let said = || std::mem::take(&mut gateways.said.lock().unwrap().revoked);
        let one_said = async || {
            until("the gateways are told", async || !gateways.said.lock().unwrap().revoked.is_empty()).await;
            let said = said();
            assert_eq!(said.len(), 1, "{said:?}");
            said[0].clone()
        };

        let (user, first) = log_in(&node, &phone(1)).await;
        forget_sends(&node, &phone(1)).await;
        let (_, second) = log_in(&node, &phone(1)).await;
        let [web, on_phone] = [login_of(&first, "web").await, login_of(&first, "phone").await];
        assert_eq!(web, on_phone);
        assert_ne!(web, login_of(&second, "phone").await);
        assert!(web.len() == 32 && !first.starts_with(&web), "nobody calls by it: {web}");
        assert_eq!(logout(&first).await, 200);
        let now_s = |one: &Value| one["before_s"].as_i64().unwrap();
        let one = one_said().await;
        assert_eq!(one, json!({ "app": 1, "user": user, "login": web, "before_s": now_s(&one), "ttl_s": 660 }));
        assert_eq!(logout(&first).await, 200);
        assert_eq!(said(), [Value::Null; 0], "once");

        let of_user = format!("{url}/internal/users/{user}/logout");
        assert_eq!(call("POST", of_user.clone(), Some(&second), None).await.0, 401);
        assert_eq!((said(), is_logged_in(&node, &second).await), (vec![], true));
        let now_ms = || stack.clock().now_ms();
        let from_s = now_ms() / 1_000;
        assert_eq!(call("POST", of_user, Some("internal-secret"), None).await.0, 200);
        assert!(!is_logged_in(&node, &second).await);
        let one = one_said().await;
        assert_eq!(one, json!({ "app": 1, "user": user, "before_s": now_s(&one), "ttl_s": 660 }));
        assert!((from_s..now_ms() / 1_000 + 10).contains(&(now_s(&one) - 1)), "{one}");
        node.stop().await;
    }
);

both!(
    /// A logout while no gateway answers is done all the same: its revocation comes when they do, also from
    /// another process, and not once its tokens have expired.
    a_revocation_waits_for_the_gateways,
    |stack| async move {
        let gateways = Gateways::start().await;
        let config = backend::Config { push_url: gateways.url.clone(), ..stack.config() };
        let node = stack.backend_with(config.clone()).await;
        gateways.said.lock().unwrap().is_away = true;
        let [first, second, third] = [1, 2, 3].map(phone);
        let [first, second, third] = [log_in(&node, &first).await, log_in(&node, &second).await, log_in(&node, &third).await];
        let logout = async |node: &Node, login: &str| {
            call("POST", format!("{}/logout", node.url()), Some(login), None).await.0
        };
        let refusals = || gateways.said.lock().unwrap().refusals;
        let users = || {
            let said = gateways.said.lock().unwrap();
            said.revoked.iter().map(|one| one["user"].as_i64().unwrap()).collect::<BTreeSet<_>>()
        };
        let jobs = async |node: &Node| node.app().store.queue.count(Topic::Revocation).await.unwrap();
        assert_eq!(logout(&node, &first.1).await, 200);
        assert!(!is_logged_in(&node, &first.1).await);
        until("it was tried", async || refusals() >= 1).await;
        stack.clock().advance_ms(700_000); // its tokens have expired
        assert_eq!(logout(&node, &second.1).await, 200);
        let of_user = format!("{}/internal/users/{}/logout", node.url(), third.0);
        assert_eq!(call("POST", of_user, Some("internal-secret"), None).await.0, 200);
        // More often than the queue gives jobs that fail.
        for tries in 0..20 {
            let before = refusals();
            until("it is tried again", async || {
                stack.clock().advance_ms(100);
                refusals() >= before + 2
            })
            .await;
            assert_eq!(jobs(&node).await.1, 0, "no dead letter after {tries}");
        }
        node.kill().await;
        gateways.said.lock().unwrap().is_away = false;
        let node = stack.backend_with(config).await;
        until("all came that are of use", async || {
            stack.clock().advance_ms(1_000);
            jobs(&node).await == (0, 0)
        })
        .await;
        assert_eq!(users(), BTreeSet::from([second.0, third.0]));
        node.stop().await;
    }
);

/// What an operator has not set is refused, not made up.
#[tokio::test]
async fn without_a_secret_no_im_token_is_made_and_without_mock_no_code_is_shown() {
    let stack = Stack::embedded().await;
    let node = stack.backend().await;
    let (_, login) = log_in(&node, &phone(1)).await;
    node.stop().await;
    let config = backend::Config { im_secret: Vec::new(), mock: false, ..stack.config() };
    let node = stack.backend_with(config).await;
    let (status, body) =
        call("POST", format!("{}/im/token", node.url()), Some(&login), Some(json!({}))).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("no_im_secret")));
    assert_eq!(call("GET", format!("{}/mock/sms/{}", node.url(), phone(2)), None, None).await.0, 404);
    node.stop().await;
}

both!(
    /// What is no phone, no code and no body is refused with the field's name.
    bad_logins_are_refused,
    |stack| async move {
        let node = stack.backend().await;
        let url = node.url();
        for phone in ["", "abc", "+86138'; DROP TABLE t_user_00; --", "🐟🐟🐟🐟🐟🐟🐟", "138\u{0}0000001"] {
            for (path, body) in
                [("login/code", json!({ "phone": phone })), ("login", json!({ "phone": phone, "code": "123456" }))]
            {
                let (status, body) = call("POST", format!("{url}/{path}"), None, Some(body)).await;
                assert_eq!(status, 400, "{phone} {body}");
                assert!(body["message"].as_str().unwrap().starts_with("phone: "), "{body}");
            }
        }
        for code in ["", "12345", "1234567", "12345x", "１２３４５６", "' OR 1", "-12345"] {
            let (status, body) = try_log_in(&node, &phone(1), code).await;
            assert_eq!((status, body["message"].as_str()), (400, Some("code: want six digits")), "{code}");
        }
        for body in [json!({}), json!({ "phone": 1, "code": "123456" }), json!({ "phone": phone(1), "code": "123456", "x": 1 })] {
            assert_eq!(call("POST", format!("{url}/login"), None, Some(body)).await.0, 400);
        }
        node.stop().await;
    }
);

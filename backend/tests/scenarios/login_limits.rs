//! How often codes are sent and tried, who that counts against, and how codes reach phones.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use backend::Config;
use hmac::{Hmac, KeyInit, Mac};
use http_server::Limits;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::common::{Answer, Node, Stack, call, request};
use crate::login::{another, code, forget_sends, phone};

const DAY_MS: i64 = 86_400_000;

/// What these tests add to a configuration: callers say where they are, as behind a proxy.
fn behind_a_proxy(stack: &Stack) -> Config {
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    Config { http: Limits { trusted_proxies, ..Limits::default() }, ..stack.config() }
}

/// Moves the clock to the beginning of the next day, so that no minute, hour or day ends by chance.
fn to_midnight(stack: &Stack) {
    stack.clock().advance_ms(DAY_MS - stack.clock().now_ms() % DAY_MS);
}

/// The address of somebody, by number.
fn address(number: u32) -> String {
    format!("198.51.100.{number}")
}

async fn ask(node: &Node, from: &str, path: &str, body: Value) -> Answer {
    let headers = [("content-type", "application/json".to_owned()), ("x-forwarded-for", from.to_owned())];
    request("POST", &format!("{}/{path}", node.url()), &headers, body.to_string().into_bytes()).await
}

async fn send(node: &Node, from: &str, phone: &str) -> Answer {
    ask(node, from, "login/code", json!({ "phone": phone })).await
}

async fn try_code(node: &Node, from: &str, phone: &str, code: &str) -> Answer {
    ask(node, from, "login", json!({ "phone": phone, "code": code })).await
}

async fn shown_code(node: &Node, phone: &str) -> String {
    let (status, body) = call("GET", format!("{}/mock/sms/{phone}", node.url()), None, None).await;
    assert_eq!(status, 200, "{body}");
    body["code"].as_str().unwrap().to_owned()
}

/// Checks that it is refused for a while, and returns for how many ms.
fn wait_ms(answer: &Answer) -> i64 {
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (429, Some("too_many_requests")),
        "{answer:?}"
    );
    let seconds: i64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    seconds * 1_000
}

both!(
    /// One address has so many codes sent in an hour, whatever the phones; others have an hour of their own.
    codes_of_an_address_are_limited,
    |stack| async move {
        to_midnight(&stack);
        let node = stack.backend_with(Config { codes_per_address_hour: 3, ..behind_a_proxy(&stack) }).await;
        for number in 0..3 {
            assert_eq!(send(&node, &address(1), &phone(number)).await.status, 200);
        }
        let wait_ms = wait_ms(&send(&node, &address(1), &phone(3)).await);
        assert!((3_000_000..=3_600_000).contains(&wait_ms), "{wait_ms}");
        assert_eq!(send(&node, &address(2), &phone(3)).await.status, 200);
        let same = "2001:db8::1, 2001:db8:0:0:ffff::2";
        for number in 4..7 {
            assert_eq!(send(&node, same, &phone(number)).await.status, 200);
        }
        assert_eq!(send(&node, "2001:db8::3", &phone(7)).await.status, 429, "a /64 is one customer");
        stack.clock().advance_ms(wait_ms);
        assert_eq!(send(&node, &address(1), &phone(8)).await.status, 200);
        node.stop().await;
    }
);

both!(
    /// Without a trusted proxy, nobody is somebody else by a header.
    a_header_makes_no_address,
    |stack| async move {
        to_midnight(&stack);
        let node = stack.backend_with(Config { codes_per_address_hour: 2, ..stack.config() }).await;
        assert_eq!(send(&node, &address(1), &phone(1)).await.status, 200);
        assert_eq!(send(&node, &address(2), &phone(2)).await.status, 200);
        wait_ms(&send(&node, &address(3), &phone(3)).await);
        node.stop().await;
    }
);

both!(
    /// Codes in all are limited too.
    codes_in_all_are_limited,
    |stack| async move {
        to_midnight(&stack);
        let node = stack.backend_with(Config { codes_per_minute: 4, ..behind_a_proxy(&stack) }).await;
        for number in 0..4 {
            assert_eq!(send(&node, &address(number), &phone(number)).await.status, 200);
        }
        let wait_ms = wait_ms(&send(&node, &address(4), &phone(4)).await);
        assert!(wait_ms <= 60_000, "{wait_ms}");
        stack.clock().advance_ms(wait_ms);
        assert_eq!(send(&node, &address(4), &phone(4)).await.status, 200);
        node.stop().await;
    }
);

both!(
    /// Ten networks that ask for all codes of a minute leave some of them to the next one; the addresses of a
    /// network are one asker.
    codes_in_all_have_shares,
    |stack| async move {
        to_midnight(&stack);
        let config = Config { codes_per_minute: 60, codes_per_address_hour: 60, ..behind_a_proxy(&stack) };
        let node = stack.backend_with(config).await;
        let mut phones = 0;
        let mut send = async |from: &str| {
            phones += 1;
            send(&node, from, &phone(phones)).await.status
        };
        for round in 0..10 {
            for network in 0..10 {
                send(&format!("2001:db8:{network}:{round}::1")).await;
            }
        }
        assert_eq!(send("2001:db8:1:99::1").await, 429, "a network has its share, whatever the address in it");
        assert_eq!(send("203.0.113.1").await, 200, "some are left for others");
        node.stop().await;
    }
);

both!(
    /// A phone gets so many codes in a day, one address has half of them sent, and strangers' codes are not
    /// counted against an address from where the phone has logged in.
    codes_of_a_phone_are_limited_and_strangers_do_not_take_the_owners,
    |stack| async move {
        to_midnight(&stack);
        let node = stack.backend_with(Config { codes_per_phone_day: 4, ..behind_a_proxy(&stack) }).await;
        let (owner, phone) = (address(100), phone(1));
        let send = async |from: &str| {
            forget_sends(&node, &phone).await;
            send(&node, from, &phone).await
        };
        assert_eq!(send(&owner).await.status, 200);
        let right = shown_code(&node, &phone).await;
        assert_eq!(try_code(&node, &owner, &phone, &right).await.status, 200);

        assert_eq!(send(&address(1)).await.status, 200);
        assert_eq!(send(&address(1)).await.status, 200);
        let share_ms = wait_ms(&send(&address(1)).await);
        assert!((80_000_000..=DAY_MS).contains(&share_ms), "{share_ms}");
        assert_eq!(send(&address(2)).await.status, 200);
        wait_ms(&send(&address(2)).await);
        wait_ms(&send(&address(3)).await);

        assert_eq!(send(&owner).await.status, 200, "strangers have taken their own");
        wait_ms(&send(&owner).await);
        stack.clock().advance_ms(DAY_MS);
        assert_eq!(send(&address(3)).await.status, 200);
        node.stop().await;
    }
);

both!(
    /// Strangers who try digits, from however many addresses, do not keep the owner out: neither one who
    /// asked for the code, nor one who has logged in from there before.
    wrong_tries_of_strangers_do_not_lock_the_owner_out,
    |stack| async move {
        to_midnight(&stack);
        let node = stack.backend_with(behind_a_proxy(&stack)).await;
        let (owner, phone) = (address(100), phone(1));
        for asker in [owner.clone(), address(1)] {
            forget_sends(&node, &phone).await;
            assert_eq!(send(&node, &asker, &phone).await.status, 200);
            let right = shown_code(&node, &phone).await;
            for number in 10..20 {
                for _ in 0..5 {
                    let tried = try_code(&node, &address(number), &phone, &another(&right)).await;
                    assert!([401, 429].contains(&tried.status), "{tried:?}");
                }
            }
            assert_eq!(try_code(&node, &address(20), &phone, &right).await.status, 401, "strangers have had 50 tries");
            assert_eq!(try_code(&node, &owner, &phone, &right).await.status, 200);
            // Strangers may try again, with the next code.
            stack.clock().advance_ms(DAY_MS);
        }
        node.stop().await;
    }
);

both!(
    /// After five wrong tries an address waits, and twice as long after each further one.
    waits_grow_with_wrong_tries,
    |stack| async move {
        to_midnight(&stack);
        let node = stack.backend_with(behind_a_proxy(&stack)).await;
        let (guesser, phone) = (address(1), phone(1));
        let mut waits = Vec::new();
        for tries in [5, 1, 1, 1] {
            forget_sends(&node, &phone).await;
            assert_eq!(send(&node, &address(2), &phone).await.status, 200);
            let right = shown_code(&node, &phone).await;
            for _ in 0..tries {
                assert_eq!(try_code(&node, &guesser, &phone, &another(&right)).await.status, 401);
            }
            let refused = try_code(&node, &guesser, &phone, &right).await;
            waits.push(wait_ms(&refused));
            stack.clock().advance_ms(wait_ms(&refused).max(60_000));
        }
        let grows = waits.iter().zip([15_000, 30_000, 60_000, 120_000]);
        assert!(grows.clone().all(|(wait, most)| (most / 2..=most).contains(wait)), "{waits:?}");
        assert_eq!(try_code(&node, &address(3), &phone, "000000").await.status, 401, "others do not wait");
        node.stop().await;
    }
);

both!(
    /// One address tries so many logins in a minute, whatever the phones.
    tries_of_an_address_are_limited,
    |stack| async move {
        to_midnight(&stack);
        let node = stack.backend_with(Config { login_tries_per_address_minute: 3, ..behind_a_proxy(&stack) }).await;
        for number in 0..3 {
            assert_eq!(try_code(&node, &address(1), &phone(number), "000000").await.status, 401);
        }
        wait_ms(&try_code(&node, &address(1), &phone(3), "000000").await);
        assert_eq!(try_code(&node, &address(2), &phone(3), "000000").await.status, 401);
        node.stop().await;
    }
);

/// An SMS service, which keeps what it was told and answers as it is told to.
#[derive(Clone, Default)]
struct Service {
    told: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    answer: Arc<Mutex<Option<StatusCode>>>,
}

impl Service {
    /// Its URL.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/codes", listener.local_addr().unwrap());
        let router = Router::new().route("/codes", post(Self::take)).with_state(self.clone());
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    async fn take(State(service): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        service.told.lock().unwrap().push((headers, body));
        let answer = *service.answer.lock().unwrap();
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    fn answer(&self, status: u16) {
        *self.answer.lock().unwrap() = Some(StatusCode::from_u16(status).unwrap());
    }
}

const SMS_SECRET: &str = "the SMS service's secret";

both!(
    /// The operator's service is told of each code, by a request that is signed as the bridge's are, and the
    /// code logs in.
    a_webhook_sends_codes,
    |stack| async move {
        let service = Service::default();
        service.answer(204);
        let sms_url = service.start().await;
        let config = Config { sms_url, sms_secret: SMS_SECRET.into(), mock: false, ..stack.config() };
        let node = stack.backend_with(config).await;
        let sent = send(&node, "", &phone(1)).await;
        assert_eq!(sent.status, 200);
        let (headers, body) = service.told.lock().unwrap().pop().unwrap();
        let message: Value = serde_json::from_slice(&body).unwrap();
        let right = message["code"].as_str().unwrap();
        assert_eq!(message, json!({ "phone": phone(1), "code": right, "expires_ms": sent.json()["expires_ms"] }));
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let timestamp = header("x-sailfish-timestamp");
        assert!((stack.clock().now_ms() - timestamp.parse::<i64>().unwrap()).abs() < 60_000);
        let mac = Hmac::<Sha256>::new_from_slice(SMS_SECRET.as_bytes()).unwrap();
        let mac = mac.chain_update(&timestamp).chain_update(".").chain_update(&body).finalize().into_bytes();
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((header("x-sailfish-signature"), header("content-type")), (hex, "application/json".into()));
        assert_eq!(try_code(&node, "", &phone(1), right).await.status, 200);
        node.stop().await;
    }
);

both!(
    /// What the service does not take, or is silent about, is 503, and does not count against the phone.
    a_webhook_that_fails_costs_the_phone_nothing,
    |stack| async move {
        let service = Service::default();
        let sms_url = service.start().await;
        let config = Config {
            sms_url,
            sms_secret: SMS_SECRET.into(),
            codes_per_phone_day: 2,
            ..stack.config()
        };
        let node = stack.backend_with(config).await;
        for answer in [500, 302, 400, 404] {
            service.answer(answer);
            let sent = send(&node, "", &phone(1)).await;
            assert_eq!((sent.status, sent.json()["code"].as_str()), (503, Some("sms_unavailable")), "{answer}");
            let shown = call("GET", format!("{}/mock/sms/{}", node.url(), phone(1)), None, None).await;
            assert_eq!(shown.0, 404, "what was not sent is no code");
        }
        *service.answer.lock().unwrap() = None;
        assert_eq!(send(&node, "", &phone(1)).await.status, 503, "it is silent");
        service.answer(200);
        assert_eq!(send(&node, "", &phone(1)).await.status, 200);
        node.stop().await;
        let nobody = format!("http://127.0.0.1:{}/", crate::common::free_port());
        let config = Config { sms_url: nobody, sms_secret: SMS_SECRET.into(), ..stack.config() };
        let node = stack.backend_with(config).await;
        assert_eq!(send(&node, "", &phone(2)).await.status, 503);
        node.stop().await;
    }
);

both!(
    /// Where no way to phones is configured, that is said, and nothing is sent.
    without_a_sender_there_are_no_codes,
    |stack| async move {
        let node = stack.backend_with(Config { mock: false, ..stack.config() }).await;
        let sent = send(&node, "", &phone(1)).await;
        assert_eq!((sent.status, sent.json()["code"].as_str()), (503, Some("no_sender")));
        assert_eq!(call("GET", format!("{}/mock/sms/{}", node.url(), phone(1)), None, None).await.0, 404);
        node.stop().await;
        let node = stack.backend().await;
        assert_eq!(code(&node, &phone(1)).await.len(), 6, "it did not count");
        node.stop().await;
    }
);

//! Recharge: products, orders, callbacks of payment providers, the mock provider, expiry.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::Row;

use crate::common::{Answer, Node, Stack, call, request, until};
use crate::login::{log_in, phone};

const INTERNAL: Option<&str> = Some("internal-secret");
const MINUTE_MS: i64 = 60_000;

/// Puts a product that costs `price_cents` and gives `coins`.
async fn put_product(node: &Node, id: i64, price_cents: i64, coins: i64) {
    let body =
        json!({ "name": "a bag of coins", "price_cents": price_cents, "coins": coins, "is_on_sale": true });
    let (status, body) =
        call("PUT", format!("{}/internal/products/{id}", node.url()), INTERNAL, Some(body)).await;
    assert_eq!(status, 200, "{body}");
}

async fn try_order(node: &Node, token: &str, body: Value) -> (u16, Value) {
    call("POST", format!("{}/orders", node.url()), Some(token), Some(body)).await
}

/// Orders product 1; the order's id.
async fn order(node: &Node, token: &str, id: &str) -> String {
    let (status, body) = try_order(node, token, json!({ "id": id, "product_id": 1 })).await;
    assert_eq!(status, 200, "{body}");
    body["order_id"].as_str().unwrap().to_owned()
}

async fn find(node: &Node, token: &str, order_id: &str) -> Value {
    let (status, body) = call("GET", format!("{}/orders/{order_id}", node.url()), Some(token), None).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// What a provider tells, of an order of 600 cents.
fn paid(stack: &Stack, order_id: &str, trade_no: &str) -> Value {
    json!({ "order_id": order_id, "trade_no": trade_no, "amount_cents": 600, "status": "paid",
        "timestamp_ms": stack.clock().now_ms() })
}

pub fn signature(secret: &str, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn post(node: &Node, provider: &str, signature: &str, body: &str) -> Answer {
    let url = format!("{}/payment/callback/{provider}", node.url());
    request("POST", &url, &[("x-signature", signature.to_owned())], body.into()).await
}

/// A callback as the provider makes it.
async fn callback(node: &Node, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let answer = post(node, "default", &signature("provider-secret", &body), &body).await;
    (answer.status, answer.json())
}

async fn balance(node: &Node, token: &str) -> i64 {
    let (status, body) = call("GET", format!("{}/wallet", node.url()), Some(token), None).await;
    assert_eq!(status, 200, "{body}");
    body["balance"].as_i64().unwrap()
}

/// The sum of all balances, which is that of all ledger rows.
async fn audit(node: &Node) -> i64 {
    let (status, body) = call("GET", format!("{}/internal/audit", node.url()), INTERNAL, None).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((&body["differing"], &body["ledger"]), (&json!(0), &body["balances"]), "{body}");
    body["balances"].as_i64().unwrap()
}

/// What is in the outbox for a user: business code and payload.
async fn outbox(node: &Node, user_id: i64) -> Vec<(i64, Value)> {
    let select = "SELECT biz_code, payload FROM t_outbox WHERE is_room = 0 AND target_id = ? ORDER BY id";
    let rows = sqlx::query(select).bind(user_id).fetch_all(node.app().store.db.primary()).await.unwrap();
    let message = |row: &sqlx::any::AnyRow| (row.get(0), serde_json::from_str(row.get(1)).unwrap());
    rows.iter().map(message).collect()
}

both!(
    /// D1: what is for sale is listed, and changes are seen at once; what is not there is remembered as such.
    products_are_listed_while_they_are_on_sale,
    |stack| async move {
        let node = stack.backend().await;
        let list = || async {
            let (status, body) = call("GET", format!("{}/products", node.url()), None, None).await;
            assert_eq!(status, 200, "{body}");
            body["products"].as_array().unwrap().iter().map(|it| it["id"].as_i64().unwrap()).collect::<Vec<_>>()
        };
        let find = |id: i64| call("GET", format!("{}/products/{id}", node.url()), None, None);
        assert!(list().await.is_empty());
        assert_eq!(find(2).await.0, 404);
        put_product(&node, 2, 600, 60).await;
        put_product(&node, 1, 100, 10).await;
        // The replica follows.
        until("the products are listed", async || list().await == [1, 2]).await;
        until("the product is found", async || find(2).await.1["coins"] == 60).await;
        let url = format!("{}/internal/products", node.url());
        let off = json!({ "name": "off", "price_cents": 600, "coins": 60, "is_on_sale": false });
        assert_eq!(call("PUT", format!("{url}/2"), INTERNAL, Some(off.clone())).await.0, 200);
        until("it is off the list", async || list().await == [1]).await;
        until("it is not found", async || find(2).await.0 == 404).await;
        let (_, all) = call("GET", url.clone(), INTERNAL, None).await;
        assert_eq!(all["products"].as_array().unwrap().len(), 2);
        assert_eq!(call("DELETE", format!("{url}/2"), INTERNAL, None).await.0, 204);
        assert_eq!(call("DELETE", format!("{url}/2"), INTERNAL, None).await.0, 404);
        for secret in [None, Some("another")] {
            assert_eq!(call("PUT", format!("{url}/3"), secret, Some(off.clone())).await.0, 401);
            assert_eq!(call("DELETE", format!("{url}/1"), secret, None).await.0, 401);
        }
        for (field, value) in [
            ("name", json!("")), ("name", json!("x".repeat(65))), ("name", json!("a\u{0}b")),
            ("price_cents", json!(0)), ("price_cents", json!(-1)), ("price_cents", json!(1_000_000_001)),
            ("coins", json!(0)), ("coins", json!(i64::MAX)), ("coins", json!("1")), ("discount", json!(1)),
        ] {
            let mut body = off.clone();
            body[field] = value;
            let (status, body) = call("PUT", format!("{url}/3"), INTERNAL, Some(body)).await;
            assert!(status == 400 && body["message"].as_str().unwrap().contains(field), "{body}");
        }
        node.stop().await;
    }
);

both!(
    /// D1: an order goes from waiting to paying and answers with a link and its picture; the same order once
    /// more is the same.
    an_order_is_made_once,
    |stack| async move {
        let mut config = stack.config();
        config.public_url = "https://live.example/".into();
        let node = stack.backend_with(config).await;
        put_product(&node, 1, 600, 60).await;
        put_product(&node, 2, 600, 60).await;
        let (user_id, token) = log_in(&node, &phone(1)).await;
        let name = "' OR 1=1; -- 🐟";
        let body = json!({ "id": name, "product_id": 1 });
        let (first, second) =
            tokio::join!(try_order(&node, &token, body.clone()), try_order(&node, &token, body.clone()));
        assert_eq!(first.0, 200, "{}", first.1);
        assert_eq!(first, second, "at once");
        // The price is that of the moment of the order.
        put_product(&node, 1, 700, 60).await;
        assert_eq!(try_order(&node, &token, body).await, first, "and later");
        let made = first.1;
        let order_id = made["order_id"].as_str().unwrap();
        assert_eq!(made["pay_url"], format!("https://live.example/mock/pay/{order_id}"));
        assert_eq!(made["qr_url"], format!("https://live.example/orders/{order_id}/qr.svg"));
        let known = find(&node, &token, order_id).await;
        assert_eq!(known["expires_ms"].as_i64().unwrap() - known["created_ms"].as_i64().unwrap(), 30 * MINUTE_MS);
        for (field, value) in [
            ("id", json!(name)), ("status", json!("paying")), ("amount_cents", json!(600)), ("coins", json!(60)),
            ("biz_code", json!(5561)), ("user_id", json!(user_id)), ("late", json!(false)), ("paid_ms", Value::Null),
        ] {
            assert_eq!(known[field], value, "{field}");
        }
        let (_, orders) = (0, crate::users::count(&node, "t_pay_order").await);
        assert_eq!(orders, 1);
        for other in [json!({ "id": name, "product_id": 2 }), json!({ "id": name, "product_id": 1, "biz_code": 6001 })] {
            let (status, body) = try_order(&node, &token, other).await;
            assert_eq!((status, &body["code"]), (409, &json!("id_reused")));
        }
        let (status, _) = try_order(&node, &token, json!({ "id": "b", "product_id": 404 })).await;
        assert_eq!(status, 404);
        for wrong in [
            json!({ "id": "", "product_id": 1 }), json!({ "id": "x".repeat(65), "product_id": 1 }),
            json!({ "id": "c" }), json!({ "id": "c", "product_id": 1, "coins": 1_000_000 }),
            json!({ "id": "c", "product_id": "1" }), json!({ "id": "c", "product_id": 1, "biz_code": 1_u64 << 40 }),
        ] {
            assert_eq!(try_order(&node, &token, wrong).await.0, 400);
        }
        // It is nobody else's.
        let (_, other) = log_in(&node, &phone(2)).await;
        let url = format!("{}/orders/{order_id}", node.url());
        assert_eq!(call("GET", url.clone(), Some(&other), None).await.0, 404);
        assert_eq!(call("GET", url.clone(), None, None).await.0, 401);
        let answer = request("GET", &url, &[("cookie", format!("sailfish_login={token}"))], Vec::new()).await;
        assert_eq!(answer.status, 200);
        // The picture is for whatever shows pictures, as long as the order can be paid.
        let url = format!("{}/orders/{order_id}/qr.svg", node.url());
        let picture = request("GET", &url, &[], Vec::new()).await;
        assert_eq!((picture.status, &picture.headers["content-type"]), (200, &"image/svg+xml".parse().unwrap()));
        assert!(picture.text().contains("<svg") && picture.text().len() > 1_000);
        let guessed = format!("{}/orders/{}/qr.svg", node.url(), "0".repeat(32));
        assert_eq!(request("GET", &guessed, &[], Vec::new()).await.status, 404);
        stack.clock().advance_ms(30 * MINUTE_MS);
        assert_eq!(request("GET", &url, &[], Vec::new()).await.status, 404);
        node.stop().await;
    }
);

both!(
    /// D2: a payment that is told many times, at once and later, by two processes, pays once; the payer is
    /// told once.
    a_callback_pays_once,
    |stack| async move {
        let (node, other) = (stack.backend().await, stack.backend().await);
        put_product(&node, 1, 600, 60).await;
        let (user_id, token) = log_in(&node, &phone(1)).await;
        let order_id = order(&node, &token, "a").await;
        let told = paid(&stack, &order_id, "t-1");
        let answers = {
            let calls = (0..20).map(|turn| {
                let (told, order_id) = (told.to_string(), order_id.clone());
                let url = if turn % 2 == 0 { node.url() } else { other.url() };
                tokio::spawn(async move {
                    let url = format!("{url}/payment/callback/default");
                    let signature = signature("provider-secret", &told);
                    let answer = request("POST", &url, &[("x-signature", signature)], told.into()).await;
                    assert_eq!(answer.status, 200, "{order_id} {}", answer.text());
                    answer.json()
                })
            });
            let mut answers = Vec::new();
            for call in calls.collect::<Vec<_>>() {
                answers.push(call.await.unwrap());
            }
            answers
        };
        let first = json!({ "order_id": order_id, "status": "paid", "coins": 60, "late": false });
        assert!(answers.iter().all(|answer| *answer == first), "{answers:?}");
        stack.clock().advance_ms(10 * MINUTE_MS);
        assert_eq!(callback(&other, &told).await, (200, first));
        assert_eq!(balance(&node, &token).await, 60);
        assert_eq!(audit(&node).await, 60);
        let (_, ledger) = call("GET", format!("{}/wallet/ledger", node.url()), Some(&token), None).await;
        assert!(ledger.to_string().contains("recharge") && ledger.to_string().contains(&order_id), "{ledger}");
        let message = json!({ "orderId": order_id, "coins": 60, "status": "paid", "late": false });
        assert_eq!(outbox(&node, user_id).await, [(5561, message)]);
        assert_eq!(find(&node, &token, &order_id).await["status"], "paid");
        node.stop().await;
        other.stop().await;
    }
);

both!(
    /// D2: nobody but the provider is heard, and only what it has just signed.
    a_forged_callback_is_refused,
    |stack| async move {
        let node = stack.backend().await;
        put_product(&node, 1, 600, 60).await;
        let (_, token) = log_in(&node, &phone(1)).await;
        let order_id = order(&node, &token, "a").await;
        let told = paid(&stack, &order_id, "t-1").to_string();
        let right = signature("provider-secret", &told);
        for forged in ["", "00", "zz", &right[..62], &format!("{right}00"), &signature("another", &told)] {
            assert_eq!(post(&node, "default", forged, &told).await.status, 401, "{forged}");
        }
        let more = told.replace("\"paid\"", "\"paid\" ");
        assert_eq!(post(&node, "default", &right, &more).await.status, 401, "another body");
        assert_eq!(post(&node, "unknown", &right, &told).await.status, 404);
        for minutes in [-16, 16] {
            let mut stale = paid(&stack, &order_id, "t-1");
            stale["timestamp_ms"] = json!(stack.clock().now_ms() + minutes * MINUTE_MS);
            assert_eq!(callback(&node, &stale).await.0, 401, "a replay of {minutes} min");
        }
        let mut stale = paid(&stack, &order_id, "t-1");
        stale["timestamp_ms"] = json!(i64::MIN);
        assert_eq!(callback(&node, &stale).await.0, 401);
        for (field, value) in [
            ("order_id", json!(1)), ("trade_no", json!("")), ("trade_no", json!("x".repeat(97))),
            ("status", json!("perhaps")), ("amount_cents", json!(6.5)), ("tip", json!(1)),
        ] {
            let mut wrong = paid(&stack, &order_id, "t-1");
            wrong[field] = value;
            assert_eq!(callback(&node, &wrong).await.0, 400, "{field}");
        }
        assert_eq!(callback(&node, &paid(&stack, "' OR 1=1; --", "t-1")).await.0, 404);
        assert_eq!(callback(&node, &paid(&stack, &"0".repeat(10_000), "t-1")).await.0, 404);
        assert_eq!((balance(&node, &token).await, audit(&node).await), (0, 0));
        assert_eq!(find(&node, &token, &order_id).await["status"], "paying");
        assert_eq!(post(&node, "default", &right.to_uppercase(), &told).await.status, 200, "the right one");
        node.stop().await;
        let mut config = stack.config();
        (config.provider_secret, config.mock) = (String::new(), false);
        let node = stack.backend_with(config).await;
        assert_eq!(post(&node, "default", &signature("", &told), &told).await.status, 401, "no secret, no money");
        assert_eq!(post(&node, "mock", &right, &told).await.status, 404, "the mock provider is off");
        node.stop().await;
    }
);

both!(
    /// D2: what does not fit the order is refused and flagged, and pays nothing.
    a_payment_that_does_not_fit_is_flagged,
    |stack| async move {
        let node = stack.backend().await;
        put_product(&node, 1, 600, 60).await;
        let (user_id, token) = log_in(&node, &phone(1)).await;
        let (first, second) = (order(&node, &token, "a").await, order(&node, &token, "b").await);
        for amount in [599, 601, 0, -600, i64::MAX] {
            let mut told = paid(&stack, &first, "t-1");
            told["amount_cents"] = json!(amount);
            let (status, body) = callback(&node, &told).await;
            assert_eq!((status, &body["code"]), (409, &json!("wrong_amount")));
        }
        let known = find(&node, &token, &first).await;
        assert_eq!((&known["status"], &known["flag"]), (&json!("paying"), &json!("wrong_amount")));
        assert_eq!(audit(&node).await, 0);
        // The right one is heard all the same.
        assert_eq!(callback(&node, &paid(&stack, &first, "t-1")).await.0, 200);
        let (status, body) = callback(&node, &paid(&stack, &first, "t-2")).await;
        assert_eq!((status, &body["code"]), (409, &json!("paid_twice")));
        let (status, body) = callback(&node, &paid(&stack, &second, "t-1")).await;
        assert_eq!((status, &body["code"]), (409, &json!("trade_reused")));
        assert_eq!(find(&node, &token, &second).await["status"], "paying");
        assert_eq!((balance(&node, &token).await, audit(&node).await), (60, 60));
        assert_eq!(outbox(&node, user_id).await.len(), 1);
        let flagged = || call("GET", format!("{}/internal/orders/flagged", node.url()), INTERNAL, None);
        until("both are for people to look at", async || {
            flagged().await.1["orders"].as_array().unwrap().len() == 2
        })
        .await;
        assert_eq!(call("GET", format!("{}/internal/orders/flagged", node.url()), Some(&token), None).await.0, 401);
        node.stop().await;
    }
);

both!(
    /// D2: a failed payment is noted and the order can still be paid; one that is told after the payment
    /// changes nothing.
    callbacks_may_come_out_of_order,
    |stack| async move {
        let node = stack.backend().await;
        put_product(&node, 1, 600, 60).await;
        let (_, token) = log_in(&node, &phone(1)).await;
        let order_id = order(&node, &token, "a").await;
        let mut failed = paid(&stack, &order_id, "t-1");
        failed["status"] = json!("failed");
        let (status, body) = callback(&node, &failed).await;
        assert_eq!((status, &body["status"]), (200, &json!("paying")), "{body}");
        let known = find(&node, &token, &order_id).await;
        assert!(known["status"] == "paying" && known["failed_ms"].is_i64(), "{known}");
        assert_eq!(balance(&node, &token).await, 0);
        assert_eq!(callback(&node, &paid(&stack, &order_id, "t-2")).await.1["status"], "paid");
        let (status, body) = callback(&node, &failed).await;
        assert_eq!((status, &body["status"]), (200, &json!("paid")));
        assert_eq!((balance(&node, &token).await, audit(&node).await), (60, 60));
        node.stop().await;
    }
);

both!(
    /// D2, money rules 1 and 2: without the outbox row there is no credit and no step of the order.
    a_payment_is_all_or_nothing,
    |stack| async move {
        let node = stack.backend().await;
        put_product(&node, 1, 600, 60).await;
        let (user_id, token) = log_in(&node, &phone(1)).await;
        let order_id = order(&node, &token, "a").await;
        let execute = async |statement: &'static str| {
            sqlx::query(statement).execute(node.app().store.db.writer()).await.unwrap();
        };
        execute("ALTER TABLE t_outbox RENAME TO t_outbox_away").await;
        assert_eq!(callback(&node, &paid(&stack, &order_id, "t-1")).await.0, 500);
        execute("ALTER TABLE t_outbox_away RENAME TO t_outbox").await;
        assert_eq!(find(&node, &token, &order_id).await["status"], "paying");
        assert_eq!((balance(&node, &token).await, audit(&node).await), (0, 0));
        assert_eq!(callback(&node, &paid(&stack, &order_id, "t-1")).await.0, 200);
        assert_eq!((balance(&node, &token).await, audit(&node).await), (60, 60));
        assert_eq!(outbox(&node, user_id).await.len(), 1);
        node.stop().await;
    }
);

both!(
    /// D3: the mock provider's page pays by a callback; it is not there unless asked for.
    the_mock_provider_pays_by_callback,
    |stack| async move {
        let node = stack.backend().await;
        put_product(&node, 1, 605, 60).await;
        let (_, token) = log_in(&node, &phone(1)).await;
        let order_id = order(&node, &token, "a").await;
        let url = format!("{}/mock/pay/{order_id}", node.url());
        let page = request("GET", &url, &[], Vec::new()).await;
        assert!(page.status == 200 && page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
        assert!(page.text().contains("60 coins for 6.05") && page.text().contains("<form"), "{}", page.text());
        let own_page = [("sec-fetch-site", "same-origin".to_owned())];
        let elsewhere = [("sec-fetch-site", "cross-site".to_owned())];
        assert_eq!(request("POST", &url, &elsewhere, Vec::new()).await.status, 415, "a page of another site");
        let failed = request("POST", &format!("{url}?outcome=failed"), &own_page, Vec::new()).await;
        assert!(failed.status == 200 && failed.text().contains("paying"), "{}", failed.text());
        assert_eq!(balance(&node, &token).await, 0);
        for _ in 0..2 {
            let paid = request("POST", &url, &own_page, Vec::new()).await;
            assert!(paid.status == 200 && paid.text().contains(": paid") && !paid.text().contains("<form"));
        }
        assert_eq!((balance(&node, &token).await, audit(&node).await), (60, 60));
        assert_eq!(request("POST", &format!("{url}?outcome=perhaps"), &own_page, Vec::new()).await.status, 400);
        assert_eq!(request("GET", &format!("{}/mock/pay/none", node.url()), &[], Vec::new()).await.status, 404);
        node.stop().await;
        let mut config = stack.config();
        config.mock = false;
        let node = stack.backend_with(config).await;
        let url = format!("{}/mock/pay/{order_id}", node.url());
        for method in ["GET", "POST"] {
            assert_eq!(request(method, &url, &own_page, Vec::new()).await.status, 404);
        }
        let (status, body) = try_order(&node, &token, json!({ "id": "b", "product_id": 1 })).await;
        assert_eq!((status, &body["code"]), (403, &json!("payment_off")), "there is nowhere to pay");
        node.stop().await;
        let mut config = stack.config();
        config.pay_url = "https://pay.example/?o={order_id}&c={amount_cents}".into();
        let node = stack.backend_with(config).await;
        let (_, made) = try_order(&node, &token, json!({ "id": "c", "product_id": 1 })).await;
        let order_id = made["order_id"].as_str().unwrap();
        assert_eq!(made["pay_url"], format!("https://pay.example/?o={order_id}&c=605"));
        node.stop().await;
    }
);

both!(
    /// D4: an unpaid order expires in its time and not before; a payment that comes later still gives its
    /// coins.
    an_unpaid_order_expires_and_is_paid_late,
    |stack| async move {
        let node = stack.backend().await;
        put_product(&node, 1, 600, 60).await;
        let (user_id, token) = log_in(&node, &phone(1)).await;
        let (late, in_time) = (order(&node, &token, "a").await, order(&node, &token, "b").await);
        stack.clock().advance_ms(29 * MINUTE_MS);
        assert_eq!(callback(&node, &paid(&stack, &in_time, "t-1")).await.1["late"], false);
        // Long enough for the worker to look.
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        assert_eq!(find(&node, &token, &late).await["status"], "paying", "not before its time");
        stack.clock().advance_ms(2 * MINUTE_MS);
        until("the order expires", async || find(&node, &token, &late).await["status"] == "expired").await;
        assert_eq!(find(&node, &token, &in_time).await["status"], "paid", "one that is paid does not");
        // The same order once more is answered as before, and stays as it is.
        assert_eq!(order(&node, &token, "a").await, late);
        assert_eq!(find(&node, &token, &late).await["status"], "expired");
        let (status, body) = callback(&node, &paid(&stack, &late, "t-2")).await;
        assert_eq!((status, body), (200, json!({ "order_id": late, "status": "paid", "coins": 60, "late": true })));
        let known = find(&node, &token, &late).await;
        assert_eq!((&known["status"], &known["late"]), (&json!("paid"), &json!(true)));
        assert_eq!(callback(&node, &paid(&stack, &late, "t-2")).await.1["late"], true, "and again");
        assert_eq!((balance(&node, &token).await, audit(&node).await), (120, 120));
        let told: Vec<Value> = outbox(&node, user_id).await.into_iter().map(|(_, told)| told["late"].clone()).collect();
        assert_eq!(told, [json!(false), json!(true)]);
        node.stop().await;
    }
);

both!(
    /// D4: jobs that come early, late, twice, after the payment, or for no order harm nothing; one that was
    /// lost is made up for.
    expiry_jobs_may_come_in_any_way,
    |stack| async move {
        use backend::{Queue, Topic};
        let node = stack.backend().await;
        put_product(&node, 1, 600, 60).await;
        let (_, token) = log_in(&node, &phone(1)).await;
        let (open, done) = (order(&node, &token, "a").await, order(&node, &token, "b").await);
        assert_eq!(callback(&node, &paid(&stack, &done, "t-1")).await.0, 200);
        let push = async |ids: &[&str]| {
            let payloads: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            node.app().store.queue.push(Topic::OrderExpiry, &payloads, std::time::Duration::ZERO).await.unwrap();
        };
        push(&[&open, &open, &done, "no order", "' OR 1=1; --", ""]).await;
        // What was early is put off: its two jobs, and those that the orders were made with.
        until("the jobs are dealt with", async || {
            node.app().store.queue.count(Topic::OrderExpiry).await.unwrap() == (3, 0)
        })
        .await;
        assert_eq!(find(&node, &token, &open).await["status"], "paying");
        assert_eq!(find(&node, &token, &done).await["status"], "paid");
        stack.clock().advance_ms(31 * MINUTE_MS);
        push(&[&open, &done, &open]).await;
        until("all jobs are done", async || {
            node.app().store.queue.count(Topic::OrderExpiry).await.unwrap() == (0, 0)
        })
        .await;
        assert_eq!(find(&node, &token, &open).await["status"], "expired");
        assert_eq!(find(&node, &token, &done).await["status"], "paid");
        assert_eq!(audit(&node).await, 60);
        node.stop().await;
    }
);

both!(
    /// D4: an order whose job was lost with the queue expires by the sweep of the next start.
    an_order_without_a_job_expires_by_the_sweep,
    |stack| async move {
        use backend::{Queue, Topic};
        let node = stack.backend().await;
        put_product(&node, 1, 600, 60).await;
        let (_, token) = log_in(&node, &phone(1)).await;
        let order_id = order(&node, &token, "a").await;
        node.stop().await;
        // The queue is flushed: in Redis all of it, in the database its table.
        let app = stack.app().await;
        match stack.config().redis.is_empty() {
            true => {
                sqlx::query("DELETE FROM t_job").execute(app.store.db.writer()).await.unwrap();
            }
            false => {
                let client = redis::Client::open(stack.config().redis).unwrap();
                let mut connection = client.get_multiplexed_async_connection().await.unwrap();
                let delayed = format!("{}:delayed", stack.stream(Topic::OrderExpiry));
                let gone: i64 = redis::cmd("DEL").arg(delayed).query_async(&mut connection).await.unwrap();
                assert_eq!(gone, 1);
            }
        }
        assert_eq!(app.store.queue.count(Topic::OrderExpiry).await.unwrap(), (0, 0));
        app.store.db.close().await;
        stack.clock().advance_ms(31 * MINUTE_MS);
        let node = stack.backend().await;
        until("the order expires", async || find(&node, &token, &order_id).await["status"] == "expired").await;
        node.stop().await;
    }
);

both!(
    /// C3: what the cache had as available is forgotten with the payment, so that the coins can be spent at
    /// once.
    coins_can_be_spent_at_once,
    |stack| async move {
        use backend::Hold;
        let node = stack.backend().await;
        put_product(&node, 1, 600, 60).await;
        let (user_id, token) = log_in(&node, &phone(1)).await;
        let ask = crate::cache::ask;
        let cache = &node.app().store.cache;
        crate::cache::set_available(cache, user_id, 0).await;
        assert_eq!(cache.hold(ask(user_id, "x", 1)).await.unwrap(), Hold::Short);
        let order_id = order(&node, &token, "a").await;
        assert_eq!(callback(&node, &paid(&stack, &order_id, "t-1")).await.0, 200);
        assert_eq!(cache.hold(ask(user_id, "x", 1)).await.unwrap(), Hold::Unknown);
        node.stop().await;
    }
);

both!(
    /// F2: a user has so many unpaid orders at once; a repeat of one is none, and one that expires or is paid
    /// makes room.
    a_user_has_a_share_of_unpaid_orders,
    |stack| async move {
        let mut config = stack.config();
        config.orders_open_max = 3;
        let node = stack.backend_with(config).await;
        put_product(&node, 1, 600, 60).await;
        let ((_, token), (_, other)) = (log_in(&node, &phone(1)).await, log_in(&node, &phone(2)).await);
        let first = order(&node, &token, "o1").await;
        for id in ["o2", "o3"] {
            order(&node, &token, id).await;
        }
        let body = json!({ "id": "o4", "product_id": 1 });
        let (status, answer) = try_order(&node, &token, body.clone()).await;
        assert_eq!((status, &answer["code"]), (409, &json!("orders_open")), "{answer}");
        assert_eq!(order(&node, &token, "o1").await, first, "a repeat");
        order(&node, &other, "o1").await;
        assert_eq!(callback(&node, &paid(&stack, &first, "t1")).await.0, 200);
        order(&node, &token, "o4").await;
        assert_eq!(try_order(&node, &token, json!({ "id": "o5", "product_id": 1 })).await.0, 409);
        stack.clock().advance_ms(31 * MINUTE_MS);
        until("they have expired", async || try_order(&node, &token, json!({ "id": "o5", "product_id": 1 })).await.0 == 200).await;
        node.stop().await;
    }
);

//! `sailfish demo`: makes users, a room, gifts, products and coins in a backend, through its public API.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use crate::backend::Client;
use crate::cli::ConfigArgs;
use crate::ctl::http::Method;
use crate::printable::printable;

/// Gifts of the demonstration: name, and price in coins.
const GIFTS: [(&str, i64); 4] = [("rose", 10), ("beer", 50), ("yacht", 1_000), ("rocket", 5_000)];
/// Products: id, name, price in cents, coins.
const PRODUCTS: [(i64, &str, i64, i64); 3] = [
    (1, "a handful of coins", 600, 60),
    (2, "a bag of coins", 3_000, 300),
    (3, "a chest of coins", 12_800, 1_280),
];

/// Makes users, a room, gifts, products and money in a running backend, and prints commands to use them.
///
/// The backend needs backend.mock = true, because nobody reads the users' phones. Existing data stays.
#[derive(clap::Args)]
pub struct DemoArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where the backend serves its API.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5348")]
    backend: String,
    /// The backend's internal secret [default: backend.internal_secret, or the one that the first run made].
    #[arg(long, value_name = "SECRET")]
    backend_secret: Option<String>,
    /// Users, each with a phone of its own.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    users: u32,
    /// Coins for each user, once.
    #[arg(long, value_name = "COINS", default_value_t = 10_000)]
    coins: i64,
}

/// A user who has logged in.
struct User {
    phone: String,
    id: i64,
    token: String,
}

/// The backend, through its public API.
struct Backend(Client);

/// Runs `sailfish demo`.
pub fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    crate::cli::warn_of_secret(
        "--backend-secret",
        args.backend_secret.as_ref(),
        "SAILFISH_BACKEND__INTERNAL_SECRET",
    );
    let client = Client::new(&args.backend, args.backend_secret.as_deref(), &args.config.load()?)?;
    let backend = Backend(client);
    let gifts = backend.gifts()?; // first, as it says best what is wrong with the backend or the secret
    let users = (0..args.users).map(|number| backend.user(number)).collect::<anyhow::Result<Vec<_>>>()?;
    let grants = users.iter().map(|user| json!({ "user_id": user.id, "amount": args.coins, "id": "demo" }));
    for grants in grants.collect::<Vec<_>>().chunks(500) {
        backend.post_internal("/internal/wallet/grants", json!({ "grants": grants }))?;
    }
    for (id, name, price_cents, coins) in PRODUCTS {
        let product = json!({ "name": name, "price_cents": price_cents, "coins": coins, "is_on_sale": true });
        backend.0.ask_internal(Method::Put(product), &format!("/internal/products/{id}"))?;
    }
    let room = backend.post(&users[0].token, "/rooms", json!({ "title": "the demonstration" }))?;
    let room = room["id"].as_i64().context("a room has an id")?;
    crate::cli::print(&text(&backend, &users, &gifts, room));
    Ok(ExitCode::SUCCESS)
}

fn text(backend: &Backend, users: &[User], gifts: &[(i64, String, i64)], room: i64) -> String {
    let mut text = String::from("users (log in again by POST /login/code and POST /login)\n");
    for user in users {
        let _ = writeln!(text, "  {}  phone {}  token {}", user.id, user.phone, printable(&user.token));
    }
    let _ = writeln!(text, "gifts");
    for (id, name, price) in gifts {
        let _ = writeln!(text, "  {id}  {name}, {price} coins");
    }
    let (sender, watcher) = (&users[0], &users[users.len() - 1]);
    let (url, gift) = (&backend.0.url, gifts[0].0);
    let _ = write!(
        text,
        "room\n  {room}, opened by {owner}\n\n\
         Watch the room as one of them, in another terminal:\n  sailfish chat --user {watcher} --room {room}\n\
         Send a gift as another:\n  curl {url}/gift/send -H 'Authorization: Bearer {token}' \\\n       \
         --json '{{\"id\":\"my first gift\",\"gift_id\":{gift},\"room_id\":{room},\"receiver_id\":{watcher},\"count\":1}}'\n\
         See what it cost:\n  curl {url}/wallet -H 'Authorization: Bearer {token}'\n\
         Buy coins:\n  curl {url}/orders -H 'Authorization: Bearer {token}' --json '{{\"id\":\"my first order\",\"product_id\":1}}'\n\
         and pay the order: open its pay_url in a browser, or\n  curl PAY_URL --json '{{}}'\n\
         All of the API: {url}/docs\n",
        owner = sender.id,
        watcher = watcher.id,
        token = printable(&sender.token),
    );
    text
}

impl Backend {
    /// Logs a user in; the first time makes it.
    fn user(&self, number: u32) -> anyhow::Result<User> {
        let phone = format!("+86139{number:08}");
        let sent = self.0.ask("", Method::Post(json!({ "phone": phone })), "/login/code");
        // A demonstration within the last minute has used the code up.
        sent.context("a phone gets one code a minute, and codes are read with backend.mock=true only")?;
        let mock = self.0.ask("", Method::Get, &format!("/mock/sms/{}", phone.replace('+', "%2B")));
        let mock =
            mock.context("the codes that users get; start the backend with --set backend.mock=true")?;
        let login = self.post("", "/login", json!({ "phone": phone, "code": mock["code"] }))?;
        let id = login["user_id"].as_i64().context("a login names the user")?;
        let token = login["token"].as_str().context("a login has a token")?.to_owned();
        Ok(User { phone, id, token })
    }

    /// The gifts of the demonstration: id, name, price. Existing ones are not made again.
    fn gifts(&self) -> anyhow::Result<Vec<(i64, String, i64)>> {
        let known = self.0.ask("", Method::Get, "/gifts")?;
        let known = known["gifts"].as_array().cloned().unwrap_or_default();
        let mut gifts = Vec::new();
        for (name, price) in GIFTS {
            let there = known.iter().find(|gift| gift["name"] == name && gift["price"] == price).cloned();
            let gift = match there {
                Some(gift) => gift,
                None => self.post_internal(
                    "/internal/gifts",
                    json!({ "name": name, "price": price, "is_on_sale": true }),
                )?,
            };
            gifts.push((gift["id"].as_i64().context("a gift has an id")?, name.to_owned(), price));
        }
        Ok(gifts)
    }

    fn post_internal(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.0.ask_internal(Method::Post(body), path)
    }

    fn post(&self, bearer: &str, path: &str, body: Value) -> anyhow::Result<Value> {
        self.0.ask(bearer, Method::Post(body), path)
    }
}

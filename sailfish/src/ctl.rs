//! `sailfish ctl`: the control API from a terminal.

pub mod http;
mod render;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};
use wire::DeviceClass;

use crate::cli::ConfigArgs;
use crate::config::Config;
use crate::printable::{printable, printable_json};
use crate::serve::reachable;
use crate::token::{device, duration};
use http::{Answer, Method, Request};

/// Asks a running node who is online, and sends it orders: push, kick, revoke, drain.
#[derive(clap::Args)]
pub struct CtlArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The node's admin port: HOST:PORT [default: node.admin].
    #[arg(long, value_name = "HOST:PORT", global = true)]
    admin: Option<String>,
    /// The secret of the control API [default: control.secret].
    #[arg(long, value_name = "SECRET", global = true)]
    secret: Option<String>,
    /// Prints the node's answer as raw JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    order: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Prints which of these users are online.
    Online {
        #[command(flatten)]
        app: AppArg,
        /// One or several.
        #[arg(required = true, value_name = "USER", allow_negative_numbers = true)]
        users: Vec<i64>,
    },
    /// Prints the node, shard and login time of each session of a user.
    Where {
        #[command(flatten)]
        app: AppArg,
        /// Who.
        #[arg(value_name = "USER", allow_negative_numbers = true)]
        user: i64,
    },
    /// Ends the sessions of a user.
    Kick {
        #[command(flatten)]
        app: AppArg,
        /// Who.
        #[arg(value_name = "USER", allow_negative_numbers = true)]
        user: i64,
        /// Only on phone, tablet, web, desktop, tv or bot.
        #[arg(long, value_parser = device)]
        device: Option<DeviceClass>,
        /// How long new logins are refused: 90s, 15m, 1h or 7d; 0 lifts a ban.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        ban: Option<Duration>,
    },
    /// Refuses tokens of a user that were made until now, and ends the sessions that have them.
    Revoke {
        #[command(flatten)]
        app: AppArg,
        /// Who.
        #[arg(value_name = "USER", allow_negative_numbers = true)]
        user: i64,
        /// Only tokens of this login, whenever they were made: their sid, or jti if they have no sid.
        #[arg(long, value_name = "ID")]
        login: Option<String>,
        /// For how long: as long as such tokens are valid, up to 7d.
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1d")]
        ttl: Duration,
    },
    /// Sends a message to a user, a room or everybody.
    Push(PushArgs),
    /// Drains a node: the one that is asked, or another.
    Drain {
        /// Its number.
        #[arg(long, value_name = "N")]
        node: Option<u16>,
    },
    /// Lists the nodes that this one knows.
    Nodes,
    /// Prints whether a node, or the backend at that address, is ready: for health checks.
    Ready,
}

#[derive(clap::Args)]
struct AppArg {
    /// The app of the users.
    #[arg(long, default_value_t = 1)]
    app: i32,
}

#[derive(clap::Args)]
struct PushArgs {
    #[command(flatten)]
    app: AppArg,
    #[command(flatten)]
    target: Target,
    /// The message.
    #[arg(long)]
    text: String,
    /// The business code [default: 6001 to a user, 5555 to a room or all].
    #[arg(long, value_name = "CODE", allow_negative_numbers = true)]
    biz_code: Option<i32>,
    /// Class lossy: a slow receiver may lose it, and there is no outcome.
    #[arg(long)]
    lossy: bool,
    /// The client message id: a repeat is delivered once (with --all twice, and clients recognise it).
    #[arg(long, value_name = "NAME")]
    client_msg_id: Option<String>,
    /// How long to wait for the outcome, up to 30000 [default: 1000].
    #[arg(long, value_name = "MS", conflicts_with = "all")]
    wait_ms: Option<u32>,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// Every session of this user.
    #[arg(long, allow_negative_numbers = true)]
    user: Option<i64>,
    /// The members of this room.
    #[arg(long, allow_negative_numbers = true)]
    room: Option<i64>,
    /// Every session of the app; always lossy.
    #[arg(long)]
    all: bool,
}

/// Runs `sailfish ctl`.
pub fn run(args: &CtlArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    let admin = args.admin.clone().unwrap_or_else(|| reachable(config.node.admin).to_string());
    let request = args.order.request();
    crate::cli::warn_of_secret("--secret", args.secret.as_ref(), "SAILFISH_CONTROL__SECRET");
    let answer = http::ask(http::Server::node(&admin, &config.tls.trusted), args.secret(&config), &request)?;
    if answer.is_secret_unused {
        crate::cli::tell(&format!(
            "sailfish: {admin} wants no secret: its control.secret is not set, so any program there may do this"
        ));
    }
    if let Order::Ready = args.order {
        // A node answers in plain text, and a backend that is not ready in JSON.
        let is_ready = answer.status == 200;
        let said = serde_json::from_str::<Value>(&answer.body).ok();
        let said = said.as_ref().and_then(|said| said["message"].as_str()).unwrap_or(answer.body.trim());
        let why = if is_ready { "ready".into() } else { format!("not ready: {}", printable(said)) };
        crate::cli::print(&format!("{why}\n"));
        return Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let (body, value) = args.order.check(&admin, answer)?;
    if args.json {
        crate::cli::print(&format!("{}\n", printable_json(body.trim_end())));
    } else {
        crate::cli::print(&args.order.render(&value));
    }
    let is_failed = value["outcome"] == "failed";
    Ok(if is_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl CtlArgs {
    fn secret<'a>(&'a self, config: &'a Config) -> &'a str {
        self.secret.as_deref().unwrap_or(&config.control.secret)
    }
}

impl Order {
    fn request(&self) -> Request {
        let post = |path: &str, body: Value| Request { method: Method::Post(body), path: path.into() };
        match self {
            Self::Online { app, users } => post("/v1/online", json!({ "app": app.app, "users": users })),
            Self::Where { app, user } => {
                Request { method: Method::Get, path: format!("/v1/users/{}/{user}", app.app) }
            }
            Self::Kick { app, user, device, ban } => {
                let device = device.map(DeviceClass::name);
                let ban_ms = ban.map(|ban| ban.as_millis() as u64);
                post("/v1/kick", json!({ "app": app.app, "user": user, "device": device, "ban_ms": ban_ms }))
            }
            Self::Revoke { app, user, login, ttl } => {
                let (app, ttl_s) = (app.app, ttl.as_secs());
                post("/v1/revoke", json!({ "app": app, "user": user, "login": login, "ttl_s": ttl_s }))
            }
            Self::Push(push) => push.request(),
            Self::Drain { node } => post("/v1/drain", json!({ "node": node })),
            Self::Nodes => Request { method: Method::Get, path: "/v1/nodes".into() },
            Self::Ready => Request { method: Method::Get, path: "/readyz".into() },
        }
    }

    /// The answer's body, as it came and read; or one line that says why there is none.
    fn check(&self, admin: &str, answer: Answer) -> anyhow::Result<(String, Value)> {
        let Answer { status, body, .. } = answer;
        let value: Option<Value> = serde_json::from_str(&body).ok();
        if status == 200 {
            let value = value.with_context(|| format!("{admin} is no admin port of Sailfish"))?;
            return Ok((body, value));
        }
        let message = value.as_ref().and_then(|value| value["message"].as_str());
        match (status, message) {
            (401, Some(_)) => {
                anyhow::bail!(
                    "{admin} refuses the secret; give the node's control.secret by --secret or SAILFISH_CONTROL__SECRET"
                )
            }
            // A backend names its own page; a node would name its document.
            (404, Some(message)) if message.contains("/docs lists") => {
                anyhow::bail!("{admin} looks like a backend; want the admin port of a node as --admin")
            }
            (_, Some(message)) => anyhow::bail!("{admin}: {}", printable(message)),
            (_, None) => anyhow::bail!("{admin} is no admin port of Sailfish: it answers {status}"),
        }
    }

    fn render(&self, answer: &Value) -> String {
        match self {
            Self::Online { .. } => render::online(answer),
            Self::Where { .. } => render::user(answer),
            Self::Kick { .. } => format!("{} kicked\n", render::count(&answer["kicked"], "session")),
            Self::Revoke { .. } => {
                format!("{} told\n", render::count(&answer["shards"], "gateway shard"))
            }
            Self::Push(_) => render::push(answer),
            Self::Drain { .. } => format!("node {} drains\n", printable(&answer["node"].to_string())),
            Self::Nodes => render::nodes(answer),
            Self::Ready => String::new(), // `run` has printed it
        }
    }
}

impl PushArgs {
    fn request(&self) -> Request {
        let Target { user, room, all: _ } = &self.target;
        let mut body = json!({ "app": self.app.app, "data": self.text });
        let path = match (user, room) {
            (Some(user), _) => {
                body["user"] = json!(user);
                "/v1/push/user"
            }
            (None, Some(room)) => {
                body["room"] = json!(room);
                "/v1/push/room"
            }
            (None, None) => "/v1/push/all",
        };
        body["biz_code"] = json!(self.biz_code.unwrap_or(if user.is_some() { 6001 } else { 5555 }));
        if user.is_some() || room.is_some() {
            body["class"] = json!(if self.lossy { "lossy" } else { "reliable" });
            body["wait_ms"] = json!(self.wait_ms);
        }
        body["client_msg_id"] = json!(self.client_msg_id);
        Request { method: Method::Post(body), path: path.into() }
    }
}

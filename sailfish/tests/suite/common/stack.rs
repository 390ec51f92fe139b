//! The real backend with what it stores in: within `sailfish up`, behind a cluster, or several on one
//! database.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};
use testbed::{MariaDb, Redis, free_port};

use super::cluster::{Cluster, Node};
use super::{Folder, SECRET, Server, http, sailfish};

/// What callers of `/internal/` send.
pub const INTERNAL_SECRET: &str = "the internal secret of the tests";
const BRIDGE_SECRET: &str = "--set=bridge.secret=the bridge's secret of the tests";
/// The last byte of addresses of backends is this and more, above that of bridges.
const BACKENDS: u8 = 48;
const API_PORT: u16 = 5348;

/// MariaDB and Redis, which tests share for as long as any of them runs.
pub struct Servers {
    pub database: MariaDb,
    pub redis: Redis,
}

impl Servers {
    /// The shared ones. Who kills them takes [`Servers::start`].
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Servers>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let servers = Arc::new(Self::start());
            *shared = Arc::downgrade(&servers);
            servers
        })
    }

    pub fn start() -> Self {
        Self { database: MariaDb::primary(), redis: Redis::start() }
    }

    /// A database and a prefix of one's own, as flags.
    pub fn flags(&self) -> Vec<String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.database.create(&name);
        let (database, redis) = (self.database.url(&name), self.redis.url());
        vec![
            format!("--database={database}"),
            format!("--redis={redis}"),
            format!("--set=backend.prefix={name}"),
        ]
    }
}

/// Where a backend keeps what it has.
pub struct Store {
    flags: Vec<String>,
    _folder: Option<Folder>,
    _servers: Option<Arc<Servers>>,
}

impl Store {
    /// SQLite, and nothing else.
    pub fn sqlite() -> Self {
        let folder = Folder::new("backend");
        let flags = vec![format!("--database=sqlite:{}", folder.path("backend.db"))];
        Self { flags, _folder: Some(folder), _servers: None }
    }

    /// The MariaDB and the Redis that all tests share.
    pub fn servers() -> Self {
        let servers = Servers::shared();
        Self { flags: servers.flags(), _folder: None, _servers: Some(servers) }
    }

    /// SQLite for the database, and this Redis for cache and queue.
    pub fn sqlite_and(redis: &Redis) -> Self {
        let mut store = Self::sqlite();
        store.flags.push(format!("--redis={}", redis.url()));
        store
    }

    /// As these flags say; whoever has what they name keeps it.
    pub fn of(flags: Vec<String>) -> Self {
        Self { flags, _folder: None, _servers: None }
    }
}

/// A router, gateways, a bridge and a backend, as processes of their own.
pub struct Stack {
    pub cluster: Cluster,
    pub backend: Node,
    pub api: Api,
    _store: Store,
}

impl Stack {
    /// Starts them; the bridge sends events by HTTP.
    pub fn start(gateways: u8, store: Store) -> Self {
        Self::start_with(gateways, store, |api| {
            vec!["--set=bridge.mode=http".into(), format!("--set=bridge.url=http://{api}")]
        })
    }

    /// The same with these flags for bridge and backend, made from where the backend is.
    pub fn start_with(gateways: u8, store: Store, flags: impl Fn(SocketAddr) -> Vec<String>) -> Self {
        Self::start_on(Cluster::empty(), (1, gateways), store, flags)
    }

    /// The same with that many routers and gateways, in a cluster that has no nodes yet.
    pub fn start_on(
        mut cluster: Cluster,
        (routers, gateways): (u8, u8),
        store: Store,
        flags: impl Fn(SocketAddr) -> Vec<String>,
    ) -> Self {
        let address = cluster.address(3, BACKENDS, API_PORT);
        let push_url = format!("--push-url=http://{}", cluster.bridge_admin(1));
        // What waits for the backend goes on soon after that is back.
        let waits = ["--set=bridge.retry_max_ms=300", "--set=bridge.breaker_pause_ms=300"];
        let mut flags = flags(address);
        flags.push(BRIDGE_SECRET.into());
        flags.extend(waits.map(str::to_owned));
        let more: Vec<String> = flags.iter().cloned().chain([push_url]).chain(store.flags.clone()).collect();
        let mut backend = node(address, &more);
        backend.start();
        cluster.add_with_bridges(routers, gateways, 1, &flags.iter().map(String::as_str).collect::<Vec<_>>());
        Self { cluster, backend, api: Api(address), _store: store }
    }
}

/// Backends alone, on one store.
pub fn backends(count: u8, store: &Store) -> Vec<(Node, Api)> {
    let cluster = Cluster::empty();
    let backend = |number| {
        let address = cluster.address(3, BACKENDS + number, API_PORT);
        let mut node = node(address, &store.flags);
        node.start();
        (node, Api(address))
    };
    (0..count).map(backend).collect()
}

fn node(address: SocketAddr, more: &[String]) -> Node {
    let words = ["backend".into(), format!("--listen={address}"), format!("--set=token.secret={SECRET}")];
    Node::new(words.into_iter().chain(common_flags()).chain(more.iter().cloned()).collect())
}

fn common_flags() -> [String; 2] {
    [format!("--set=backend.internal_secret={INTERNAL_SECRET}"), "--set=backend.mock=true".into()]
}

/// `sailfish up` with its own backend, on SQLite.
pub struct Up {
    pub server: Server,
    pub api: Api,
    /// What clients of the API are told of where the gateway is, and what the backend is told of itself.
    ports: [u16; 2],
    folder: Folder,
}

impl Up {
    /// Starts it with a state of its own.
    pub fn start(token_secret: &str) -> Self {
        let (folder, ports) = (Folder::new("up"), [free_port(), free_port()]);
        let (server, api) = Self::spawn(&folder, ports, token_secret);
        Self { server, api, ports, folder }
    }

    /// Ends it, and starts it again with the state that it left.
    pub fn restart(&mut self, token_secret: &str) {
        self.server.signal(rustix::process::Signal::TERM);
        assert!(self.server.wait().success());
        (self.server, self.api) = Self::spawn(&self.folder, self.ports, token_secret);
    }

    /// Kills it, and starts it again with the state that it left.
    pub fn kill_and_restart(&mut self, token_secret: &str) {
        self.server.signal(rustix::process::Signal::KILL);
        self.server.wait();
        (self.server, self.api) = Self::spawn(&self.folder, self.ports, token_secret);
    }

    fn spawn(folder: &Folder, [clients, api]: [u16; 2], token_secret: &str) -> (Server, Api) {
        let mut command = sailfish();
        command.args(["up", "--admin=127.0.0.1:0", "--shards=2"]).args(common_flags());
        command.arg(format!("--listen=127.0.0.1:{clients}"));
        command.arg(format!("--set=backend.listen=127.0.0.1:{api}"));
        command.arg(format!("--set=token.secret={token_secret}"));
        command.env_remove("SAILFISH_BRIDGE__MODE").env("XDG_STATE_HOME", &folder.0);
        let server = Server::spawn(&mut command);
        let address = server.stdout.lines().next().unwrap().rsplit_once("backend=").unwrap().1;
        let api = Api(address.parse().unwrap());
        (server, api)
    }
}

/// A backend's API.
#[derive(Clone, Copy)]
pub struct Api(pub SocketAddr);

/// A user who has logged in by phone.
pub struct User {
    pub id: i64,
    /// The login token.
    pub token: String,
}

impl Api {
    /// Status and JSON of an answer.
    pub fn ask(&self, method: &str, path: &str, bearer: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {bearer}\r\n"
        );
        let (status, _, body) = http(self.0, &head, &body);
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// What a GET answers that must succeed.
    pub fn get(&self, path: &str, bearer: &str) -> Value {
        let (status, answer) = self.ask("GET", path, bearer, &Value::Null);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// What a POST answers that must succeed.
    pub fn post(&self, path: &str, bearer: &str, body: Value) -> Value {
        let (status, answer) = self.ask("POST", path, bearer, &body);
        assert_eq!(status, 200, "{path} {body}: {answer}");
        answer
    }

    /// A user who was not there before.
    pub fn user(&self) -> User {
        static PHONES: AtomicU32 = AtomicU32::new(0);
        let number = PHONES.fetch_add(1, Ordering::Relaxed);
        let phone = format!("+86138{number:08}");
        self.post("/login/code", "", json!({ "phone": phone }));
        let code = self.get(&format!("/mock/sms/{}", phone.replace('+', "%2B")), "")["code"].clone();
        let login = self.post("/login", "", json!({ "phone": phone, "code": code }));
        assert_eq!(login["is_new"], true, "{login}");
        User { id: login["user_id"].as_i64().unwrap(), token: login["token"].as_str().unwrap().to_owned() }
    }

    /// A user with that many coins.
    pub fn user_with(&self, coins: i64) -> User {
        let user = self.user();
        let grant = json!({ "user_id": user.id, "amount": coins, "id": "of the test" });
        self.post("/internal/wallet/grant", INTERNAL_SECRET, grant);
        user
    }

    /// Opens a room of this number, and all below it, with owners of their own.
    pub fn open_room(&self, room: i64) {
        let owners =
            self.post("/internal/users", INTERNAL_SECRET, json!({ "count": room }))["user_ids"].clone();
        let body = json!({ "owner_ids": owners, "title": "rooms of the test" });
        let rooms = self.post("/internal/rooms", INTERNAL_SECRET, body)["room_ids"].clone();
        assert!(rooms.as_array().unwrap().contains(&json!(room)), "{rooms}");
    }

    /// A gift of that price; its id.
    pub fn gift(&self, price: i64) -> i64 {
        let gift = json!({ "name": "rose", "price": price, "is_on_sale": true });
        self.post("/internal/gifts", INTERNAL_SECRET, gift)["id"].as_i64().unwrap()
    }

    pub fn balance(&self, user: &User) -> i64 {
        self.get("/wallet", &user.token)["balance"].as_i64().unwrap()
    }

    /// How many gifts were committed; the books balance.
    pub fn committed(&self) -> i64 {
        let books = self.get("/internal/audit", INTERNAL_SECRET);
        assert_eq!((&books["ledger"], &books["differing"]), (&books["balances"], &json!(0)), "{books}");
        books["gifts_committed"].as_i64().unwrap()
    }
}

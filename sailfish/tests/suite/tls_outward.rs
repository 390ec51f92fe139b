//! Connections to others by TLS: to backend and bridge, Redis, MariaDB, an admin port, and who has the keys
//! of tokens. Each is refused whose certificate is for another host, has expired, or is of nobody who is
//! trusted.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use testbed::{MariaDb, Redis, free_port};
use wire::client::{NoticeCode, Outcome, ServerFrame};

use crate::common::{Folder, SECRET, Server, output, sailfish, until};

/// What a server shows, and what those who connect say of it.
#[derive(Clone, Copy, Debug)]
enum Shown {
    Good,
    WrongHost,
    Expired,
    UnknownRoot,
}

/// The bad ones.
const BAD: [Shown; 3] = [Shown::WrongHost, Shown::Expired, Shown::UnknownRoot];

impl Shown {
    /// Chain, key and roots.
    fn files(self) -> [PathBuf; 3] {
        let names = match self {
            Self::Good => ["one.pem", "one.key", "ca.pem"],
            Self::WrongHost => ["two.pem", "two.key", "ca.pem"],
            Self::Expired => ["expired.pem", "one.key", "ca.pem"],
            Self::UnknownRoot => ["one.pem", "one.key", "two.pem"],
        };
        names.map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge/tests/pem").join(name))
    }

    fn roots(self) -> String {
        let [.., roots] = self.files();
        format!("tls.roots={}", roots.display())
    }

    /// What a line says that tells why.
    fn why(self) -> &'static str {
        match self {
            Self::Good => "",
            Self::WrongHost => "certificate not valid for name",
            Self::Expired => "certificate expired",
            Self::UnknownRoot => "UnknownIssuer",
        }
    }
}

/// Puts a certificate and its key where a node has them.
fn put(folder: &Folder, chain: &Path, key: &Path) {
    let own_key = folder.path("im.key");
    std::fs::copy(chain, folder.path("im.pem")).unwrap();
    std::fs::copy(key, &own_key).unwrap();
    std::fs::set_permissions(&own_key, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
}

/// `node.certificates` of a node. Only its owner and group may read a key there.
fn certificates(folder: &Folder) -> String {
    let [chain, key, _] = Shown::Good.files();
    let (own_chain, own_key) = (folder.path("im.pem"), folder.path("im.key"));
    put(folder, &chain, &key);
    format!("node.certificates=[{{ chain = {own_chain:?}, key = {own_key:?} }}]")
}

/// A process whose log is looked at.
struct Process(Child, PathBuf);

impl Process {
    fn start(folder: &Folder, name: &str, arguments: &[&str]) -> Self {
        let log = PathBuf::from(folder.path(name));
        let mut command = sailfish();
        command.args(arguments).env("SAILFISH_TOKEN__SECRET", SECRET).env("HOME", &folder.0);
        command.env("SAILFISH_BRIDGE__SECRET", "the bridge secret of the tests");
        command.env("SAILFISH_CLUSTER__SECRET", "the cluster secret of the tests");
        let file = std::fs::File::create(&log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Self(child, log)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.1).unwrap()
    }

    fn says(&self, what: &str) {
        until(&format!("{what}: {}", self.log()), || self.log().contains(what));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::KILL); // it may have ended
        let _ = self.0.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// `ctl` asks the admin port of a node; its line if it fails.
fn ctl(url: &str, roots: &str) -> Result<String, String> {
    let done = output(sailfish().args(["ctl", "--admin", url, "--set", roots, "nodes"]), "");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr)) }
}

#[test]
fn an_admin_port_speaks_tls_and_is_asked_by_tls() {
    let folder = Folder::new("admin-tls");
    let server = Server::start(&["--set", "node.admin_tls=true", "--set", &certificates(&folder)]);
    let url = format!("https://{}", server.admin);
    assert!(ctl(&url, &Shown::Good.roots()).is_ok_and(|said| said.starts_with("node 0: up")));
    let line = ctl(&url, &Shown::UnknownRoot.roots()).unwrap_err();
    assert!(line.contains(Shown::UnknownRoot.why()) && line.contains("no TLS with"), "{line}");
    assert_eq!(server.get("/healthz").0, 200, "programs of this machine may come in clear");
    // The file is replaced: connections to come get the new one.
    for bad in [Shown::WrongHost, Shown::Expired] {
        let [chain, key, _] = bad.files();
        put(&folder, &chain, &key);
        server.signal(Signal::HUP);
        match bad {
            Shown::WrongHost => {
                until("it is shown", || ctl(&url, &bad.roots()).is_err_and(|line| line.contains(bad.why())));
            }
            // Nobody shows that.
            _ => until("it is refused", || server.log().contains("im.pem: a certificate that expired")),
        }
    }
}

#[test]
fn roots_that_are_none_are_refused_at_the_start() {
    let folder = Folder::new("no-roots");
    let file = folder.path("roots.pem");
    let refused = || {
        let mut command = sailfish();
        command.args(["up", "--listen", "127.0.0.1:0", "--set", &format!("tls.roots={file}")]);
        let done = output(&mut command, "");
        assert_eq!(done.status.code(), Some(2));
        String::from_utf8(done.stderr).unwrap()
    };
    assert!(refused().contains(&format!("tls.roots: {file}: No such file")), "{}", refused());
    folder.file("roots.pem", "none");
    assert!(refused().contains(&format!("tls.roots: {file}: no certificate in PEM")), "{}", refused());
    for (setting, line) in [
        ("node.admin_tls=true", "node.admin_tls: want a certificate and its key in node.certificates"),
        ("backend.tls=true", "backend.tls: want a certificate and its key in node.certificates"),
        (
            "backend.database=mysql://h/n?ssl-mode=REQUIRED",
            "backend.database: ssl-mode: want VERIFY_IDENTITY",
        ),
        ("backend.redis=rediss://h/#insecure", "backend.redis: want redis://HOST:PORT"),
        ("directory.redis=rediss://a,redis://b", "directory.redis: want either redis or rediss"),
        (
            "token.jwks_url=http://login.example/keys",
            "token.jwks_url = \"http://login.example/keys\": want https://",
        ),
    ] {
        let done = output(sailfish().args(["up", "--set", setting]), "");
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.code() == Some(2) && said.contains(line), "{setting}: {said}");
    }
}

/// Status and body of the answer to a request by curl, which trusts the certificates of the tests alone.
fn curl(arguments: &[&str]) -> Option<(String, String)> {
    let [.., roots] = Shown::Good.files();
    let mut command = std::process::Command::new("curl");
    command.args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--cacert"]).arg(roots);
    let done = output(command.args(arguments), "");
    let text = String::from_utf8(done.stdout).unwrap();
    let (body, status) = text.trim_end().rsplit_once('\n')?;
    done.status.success().then(|| (status.to_owned(), body.to_owned()))
}

/// Clients' packets go from bridge to backend, and the backend's word from there to bridge and gateway, with
/// database and Redis behind: all by TLS.
#[test]
fn a_bridge_and_a_backend_speak_tls_with_each_other_and_with_what_is_behind() {
    let folder = Folder::new("all-tls");
    let [chain, key, _] = Shown::Good.files();
    let (database, redis) = (MariaDb::primary_with_tls(&chain, &key), Redis::start_with_tls(&chain, &key));
    database.create("live");
    let [api, router, bridge, clients, admin_1, admin_2, admin_3] =
        [(); 7].map(|()| format!("127.0.0.1:{}", free_port()));
    let (roots, certificates) = (Shown::Good.roots(), certificates(&folder));
    let url = format!("{}?ssl-mode=VERIFY_IDENTITY", database.url("live"));
    let (redis_url, push_url) = (redis.tls_url(), format!("https://{admin_2}"));
    let trusts = ["--set", &roots, "--set", &certificates];
    let secret = format!("backend.internal_secret={}", crate::common::stack::INTERNAL_SECRET);
    let own = ["backend", "--listen", &api, "--set", "backend.tls=true", "--set", &secret];
    let stores = ["--database", &url, "--redis", &redis_url, "--push-url", &push_url];
    let backend = Process::start(&folder, "backend.log", &[&own[..], &stores, &trusts].concat());
    let shards = ["--shards", "1"];
    let own = ["router", "--id", "1", "--listen", &router, "--admin", &admin_1];
    let _router = Process::start(&folder, "router.log", &[&own[..], &shards].concat());
    let backend_url = format!("bridge.url=https://{api}");
    let own = ["bridge", "--id", "17", "--listen", &bridge, "--admin", &admin_2, "--routers", &router];
    let to = ["--set", "bridge.mode=http", "--set", &backend_url, "--set", "node.admin_tls=true"];
    let _bridge = Process::start(&folder, "bridge.log", &[&own[..], &shards, &to, &trusts].concat());
    let own = ["gateway", "--id", "33", "--listen", &clients, "--admin", &admin_3];
    let to = ["--routers", &router, "--bridges", &bridge];
    let _gateway = Process::start(&folder, "gateway.log", &[&own[..], &shards, &to].concat());
    let answers = |url: &str| curl(&[url]).is_some_and(|(status, _)| status == "200");
    until("the backend is ready", || answers(&format!("https://{api}/readyz")));
    until("the gateway is ready", || answers(&format!("http://{admin_3}/readyz")));
    until("the bridge is ready", || answers(&format!("https://{admin_2}/readyz")));
    assert!(redis.command(&["CLIENT", "LIST"]).lines().count() > 1, "the backend is there");

    let mut client = crate::common::Client::connect(clients.parse().unwrap());
    client.login(10_001);
    client.say(5560, 0, "g1", "no gift");
    // The backend refuses what is no gift, and says so, in either order.
    let (mut outcome, mut told) = (None, None);
    while outcome.is_none() || told.is_none() {
        match client.next() {
            Some(ServerFrame::SendAck(ack)) => outcome = Some(ack.outcome),
            Some(ServerFrame::Deliver(message)) => {
                client.ack(message.id);
                told = Some(message.biz_code.0);
            }
            other => panic!("instead of an answer: {other:?}"),
        }
    }
    assert!(matches!(outcome, Some(Outcome::Failed(_))), "{outcome:?}");
    assert_eq!(told, Some(5557));
    let bearer = format!("Authorization: Bearer {}", crate::common::stack::INTERNAL_SECRET);
    let logout = format!("https://{api}/internal/users/10001/logout");
    let said = curl(&["--request", "POST", "--header", &bearer, &logout]);
    assert_eq!(said, Some(("200".into(), "{}".into())), "{}", backend.log());
    client.expect_farewell(NoticeCode::TokenInvalid);
}

#[test]
fn databases_and_redis_with_a_wrong_certificate_are_refused() {
    let folder = Folder::new("bad-tls");
    for bad in BAD {
        let [chain, key, _] = bad.files();
        let (database, redis) =
            (MariaDb::primary_with_tls(&chain, &key), Redis::start_with_tls(&chain, &key));
        database.create("live");
        let url = format!("{}?ssl-mode=VERIFY_IDENTITY", database.url("live"));
        let listen = format!("127.0.0.1:{}", free_port());
        let roots = bad.roots();
        let own = ["backend", "--listen", &listen, "--set", &roots];
        let of_database =
            Process::start(&folder, "database.log", &[&own[..], &["--database", &url]].concat());
        of_database.says(bad.why());
        drop(of_database);
        let admin = format!("127.0.0.1:{}", free_port());
        let set = format!("directory.redis={}", redis.tls_url());
        let arguments = [
            "router", "--shards", "1", "--listen", &listen, "--admin", &admin, "--set", &roots, "--set", &set,
        ];
        Process::start(&folder, "directory.log", &arguments).says(bad.why());
        let set = format!("bridge.redis={}", redis.tls_url());
        let own = ["bridge", "--shards", "1", "--listen", &listen, "--admin", &admin, "--set", &roots];
        let set = ["--set", "bridge.mode=redis", "--set", &set];
        Process::start(&folder, "bridge.log", &[&own[..], &set].concat()).says(bad.why());
    }
}

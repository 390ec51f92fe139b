//! The keys that tokens are checked with, and tokens that are revoked.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway::{Claims, MoreClaims, mint_hs256_with};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustix::process::Signal;
use serde_json::{Value, json};
use wire::client::{NoticeCode, ServerFrame};
use wire::{DeviceClass, UserId};

use crate::common::cluster::Cluster;
use crate::common::{Client, Folder, SECRET, Server, output, sailfish, until};

/// Who signs by ES256, under a name.
struct Issuer {
    kid: &'static str,
    pair: EcdsaKeyPair,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self { kid, pair: EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap() }
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": x, "y": y})
    }

    fn token(&self, user: i64) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({"alg": "ES256", "kid": self.kid}));
        let claims = json!({"app": 1, "user": user, "exp": now_secs() + 60, "aud": ["im"], "iss": "us"});
        let signed = format!("{header}.{}", part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn set(issuers: &[&Issuer]) -> String {
    json!({"keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>()}).to_string()
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What a login is told: nothing if it succeeds.
fn login(mut client: Client, token: &str) -> Result<Client, NoticeCode> {
    client.send_login(token);
    match client.next() {
        Some(ServerFrame::LoggedIn { .. }) => Ok(client),
        Some(ServerFrame::Notice { code, .. }) => Err(code),
        other => panic!("{other:?}"),
    }
}

/// Whether a token logs in.
fn is_good(server: &Server, token: &str) -> bool {
    match login(server.connect(), token) {
        Ok(_) => true,
        Err(code) => {
            assert_eq!(code, NoticeCode::TokenInvalid);
            false
        }
    }
}

#[test]
fn keys_of_a_file_are_taken_and_rotated_while_the_node_runs() {
    let folder = Folder::new("jwks");
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let file = folder.file("keys.json", &set(&[&old]));
    let jwks = format!("token.jwks_file={file}");
    let server = Server::start(&[
        "--set",
        &jwks,
        "--set",
        "token.audiences=[\"im\"]",
        "--set",
        "token.issuers=[\"us\"]",
    ]);
    assert_eq!(server.get("/readyz").0, 200);
    let mut before = login(server.connect(), &old.token(1)).ok().unwrap();
    assert!(!is_good(&server, &new.token(2)));
    assert_eq!(server.metric("sailfish_tokens_refused_total", "reason=\"unknown_key\""), 1.0);
    assert!(!is_good(&server, &crate::common::token(3, 60)), "it is for nobody");
    assert_eq!(server.metric("sailfish_tokens_refused_total", "reason=\"audience\""), 1.0);

    std::fs::write(&file, set(&[&old, &new])).unwrap();
    until("the next key is taken", || is_good(&server, &new.token(2)));
    assert!(is_good(&server, &old.token(5)), "both are good for a time");
    std::fs::write(&file, set(&[&new])).unwrap();
    server.signal(Signal::HUP);
    until("the old key is gone", || !is_good(&server, &old.token(4)));
    std::fs::write(&file, "{}").unwrap();
    until("the log says why", || server.log().contains("keys.json: no JSON Web Key Set"));
    assert!(server.log().contains("the keys before stay"), "{}", server.log());
    assert!(is_good(&server, &new.token(2)));
    before.join(7);
}

#[test]
fn keys_that_are_wrong_are_refused_at_the_start() {
    let folder = Folder::new("jwks-wrong");
    let file = folder.path("keys.json");
    let refused = |more: &[&str]| {
        let mut command = sailfish();
        command.args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).args(more);
        let done = output(command.env("SAILFISH_TOKEN__SECRET", SECRET), "");
        assert_eq!(done.status.code(), Some(2));
        String::from_utf8(done.stderr).unwrap()
    };
    let jwks = format!("token.jwks_file={file}");
    let of_file = || refused(&["--set", &jwks]);
    assert!(
        of_file().starts_with(&format!("sailfish: token.jwks_file: {file}: No such file")),
        "{}",
        of_file()
    );
    for (text, why) in
        [("", "no JSON Web Key Set: "), ("{\"keys\":[]}", "no key to verify tokens with; it is empty")]
    {
        folder.file("keys.json", text);
        assert!(of_file().starts_with(&format!("sailfish: token.jwks_file: {file}: {why}")), "{}", of_file());
    }
    // A file that everybody may read has no secrets.
    folder.file(
        "keys.json",
        &json!({"keys": [{"kty": "oct", "k": URL_SAFE_NO_PAD.encode([7; 32])}]}).to_string(),
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(of_file().contains("key 1: kty: a secret"), "{}", of_file());
    let line = refused(&["--set", "token.audiences=[\"\"]"]);
    assert!(line.contains("token.audiences: want at most 16 texts, none of them empty"), "{line}");
}

/// A token of the secret, made so many seconds ago for a login.
fn of_login(user: i64, sid: &str, ago_secs: u64) -> String {
    let now = now_secs();
    let claims =
        Claims { app: crate::common::APP, user: UserId(user), device: DeviceClass::Phone, exp: now + 600 };
    let more = MoreClaims { iat: Some(now - ago_secs), sid: Some(sid), ..MoreClaims::default() };
    mint_hs256_with(SECRET.as_bytes(), &claims, &more)
}

/// Revoked through one gateway, tokens are refused at all, also at those that start later and know it from
/// routers that know it from gateways.
#[test]
fn what_is_revoked_is_refused_at_every_gateway() {
    let mut cluster = Cluster::start(2, 2, &[]);
    let mut log_in = |gateway: usize, token: &str| login(cluster.gateway(gateway).connect(), token);
    let mut live = log_in(1, &of_login(1, "phone", 0)).ok().unwrap();
    let mut other = log_in(1, &of_login(2, "phone", 60)).ok().unwrap();
    let revoke = |cluster: &mut Cluster, body: Value| {
        let (status, answer) = cluster.gateway(0).post("/v1/revoke", &body.to_string());
        assert_eq!((status, answer["shards"].as_u64()), (200, Some(4)), "{answer}");
    };
    revoke(&mut cluster, json!({"app": 1, "user": 1, "login": "phone", "ttl_s": 600}));
    live.expect_farewell(NoticeCode::TokenInvalid);
    other.heartbeat();
    revoke(&mut cluster, json!({"app": 1, "user": 2, "ttl_s": 600}));
    other.expect_farewell(NoticeCode::TokenInvalid);
    let check = |cluster: &mut Cluster, gateway: usize| {
        let mut told = |token: &str| login(cluster.gateway(gateway).connect(), token).err();
        for token in [of_login(1, "phone", 0), of_login(2, "web", 60)] {
            assert_eq!(told(&token), Some(NoticeCode::TokenInvalid), "gateway {gateway}");
        }
        assert_eq!(told(&of_login(1, "web", 60)), None, "another login, at gateway {gateway}");
    };
    check(&mut cluster, 0);
    check(&mut cluster, 1);
    let owners_are_there = |cluster: &mut Cluster| {
        let mut owners = |gateway: usize| cluster.gateway(gateway).metric("sailfish_owners", "");
        until("all routers are owners", || owners(0) == 8.0 && owners(1) == 8.0);
    };
    for router in 0..2 {
        cluster.routers[router].kill();
        cluster.routers[router].start();
        owners_are_there(&mut cluster);
    }
    cluster.gateways[0].kill();
    cluster.gateways[0].start();
    owners_are_there(&mut cluster);
    check(&mut cluster, 0);
}

/// The user's token is good all the time. Its owner is one of two routers: each dies and comes back in turn,
/// then each is drained, and a gateway starts anew.
#[test]
fn a_ban_outlives_each_router() {
    let mut cluster = Cluster::start(2, 2, &[]);
    let token = of_login(1, "phone", 0);
    let mut live = login(cluster.gateway(1).connect(), &token).ok().unwrap();
    let ban = |cluster: &mut Cluster, ban_ms: u32| {
        let body = json!({"app": 1, "user": 1, "ban_ms": ban_ms});
        let (status, answer) = cluster.gateway(0).post("/v1/kick", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        answer["kicked"].as_u64().unwrap()
    };
    assert_eq!(ban(&mut cluster, 3_600_000), 1);
    live.expect_farewell(NoticeCode::Kicked);
    let check = |cluster: &mut Cluster, wanted: Option<NoticeCode>, when: &str| {
        for gateway in 0..2 {
            let told = login(cluster.gateway(gateway).connect(), &token).err();
            assert_eq!(told, wanted, "at gateway {gateway}, {when}");
        }
    };
    let refused = Some(NoticeCode::Kicked);
    check(&mut cluster, refused, "at first");
    let owners_are = |cluster: &mut Cluster, count: f64| {
        for gateway in 0..2 {
            let server = cluster.gateway(gateway);
            until("the owners are these", || server.metric("sailfish_owners", "") == count);
        }
    };
    for router in 0..2 {
        cluster.routers[router].kill();
        owners_are(&mut cluster, 4.0);
        check(&mut cluster, refused, "after a router has died");
        cluster.routers[router].start();
        owners_are(&mut cluster, 8.0);
        check(&mut cluster, refused, "after it has come back");
    }
    for router in 0..2 {
        cluster.router(router).signal(Signal::TERM);
        assert!(cluster.router(router).wait().success());
        owners_are(&mut cluster, 4.0);
        check(&mut cluster, refused, "after a router was drained");
        cluster.routers[router].start();
        owners_are(&mut cluster, 8.0);
    }
    for gateway in 0..2 {
        cluster.gateways[gateway].kill();
        cluster.gateways[gateway].start();
        owners_are(&mut cluster, 8.0);
        check(&mut cluster, refused, "after a gateway has started anew");
    }
    assert_eq!(ban(&mut cluster, 0), 0);
    until("the ban is lifted at both gateways", || {
        (0..2).all(|gateway| login(cluster.gateway(gateway).connect(), &token).is_ok())
    });
    cluster.routers[0].kill();
    cluster.routers[0].start();
    owners_are(&mut cluster, 8.0);
    check(&mut cluster, None, "after it was lifted");
}

/// Serves a key set by HTTP; while there is none it answers 500.
struct KeyServer {
    url: String,
    set: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicU32>,
}

impl KeyServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (set, asked) = (Arc::<Mutex<Option<String>>>::default(), Arc::<AtomicU32>::default());
        let (to_serve, count) = (set.clone(), asked.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request); // whatever it asks
                let body = to_serve.lock().unwrap().clone();
                let (status, body) = body.map_or(("500 No", String::new()), |body| ("200 OK", body));
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { url, set, asked }
    }

    fn serve(&self, issuers: &[&Issuer]) {
        *self.set.lock().unwrap() = Some(set(issuers));
    }
}

/// A gateway without a secret has no key before the first fetch succeeds; what it knows then stays.
#[test]
fn a_gateway_waits_for_its_keys_and_keeps_them() {
    let (folder, issuer) = (Folder::new("jwks-url"), Issuer::new("one"));
    let keys = KeyServer::start();
    let mut command = sailfish();
    command.args(["gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1"]);
    command.args(["--set", &format!("token.jwks_url={}", keys.url)]).env("HOME", &folder.0);
    command.env("SAILFISH_CLUSTER__SECRET", "the cluster secret of the tests");
    let (asked, served) = (keys.asked.clone(), keys.set.clone());
    let set = set(&[&issuer]);
    let serves = std::thread::spawn(move || {
        until("it is asked", || asked.load(Ordering::Relaxed) > 0);
        *served.lock().unwrap() = Some(set);
    });
    let server = Server::spawn(&mut command);
    serves.join().unwrap();
    let log = server.log();
    assert!(
        log.contains("no key to check tokens with, so the node is not ready") && log.contains("status 500"),
        "{log}"
    );
    let (status, why) = server.get("/readyz");
    assert_eq!((status, why.as_str()), (503, "no router is linked\n"), "it has keys");
}

#[test]
fn a_key_that_is_not_known_is_fetched_and_those_before_stay_without_the_server() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let keys = KeyServer::start();
    keys.serve(&[&old]);
    let server =
        Server::start(&["--set", &format!("token.jwks_url={}", keys.url), "--set", "token.jwks_refresh_s=5"]);
    until("the keys are there", || {
        let mut client = server.connect();
        client.send_login(&old.token(1));
        matches!(client.next(), Some(ServerFrame::LoggedIn { .. }))
    });
    assert!(!is_good(&server, &new.token(2)));
    keys.serve(&[&old, &new]);
    until("the next key is taken", || is_good(&server, &new.token(2)));
    *keys.set.lock().unwrap() = None;
    until("the log says so", || server.log().contains("token.jwks_url: the keys before stay"));
    assert!(is_good(&server, &old.token(1)) && is_good(&server, &new.token(2)));
}

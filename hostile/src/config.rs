//! Sections of the configuration, as TOML: what reads, is checked, and what passes the check can be used.

use gateway::{Gateway, TokenKeys};
use router::Router;
use serde::Deserialize;
use shard::{Instant, ShardId};

/// The sections that cores own.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Sections {
    heartbeat: gateway::Heartbeat,
    delivery: gateway::Delivery,
    limits: gateway::Limits,
    drain: gateway::Drain,
    routes: gateway::Routes,
    edge: edge::Rules,
    router: router::Limits,
    link: link::Config,
}

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(sections) = toml::from_str::<Sections>(text) else { return };
    let Sections { heartbeat, delivery, limits, drain, routes, edge, router, link } = sections;
    let config = gateway::Config { heartbeat, delivery, limits, drain, routes, edge };
    let (now, id) = (Instant::from_unix_nanos(1 << 60), ShardId::new(1, 0));
    if config.validate().is_ok() {
        let keys = TokenKeys::hs256(b"any");
        Gateway::new(now, gateway::Setup { id, keys, config, ports: Vec::new(), seed: 1 }).check_invariants();
    }
    if router.validate().is_ok() {
        Router::new(router::Config { id, seed: 1, limits: router, keeps: router::Keeps::default() })
            .check_invariants();
    }
    let _ = link.validate();
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "[heartbeat]\nperiod_ms = 30000\ngrace_ms = 100\n[delivery]\ntries = 3\nwindow = 64\n",
        "[limits]\nframe_bytes_max = 65536\nrooms_max = 16\noutbox_bytes_max = 268435456\n",
        "[drain]\nspread_ms = 5\nalternatives = [\"im2.example.com:5346\", \"[::1]:1\"]\n",
        "[[routes]]\nbiz_code = 5555\nto = \"room\"\nclass = \"lossy\"\n[[routes]]\nbiz_code = 1\nto = \"user\"\nclass = \"reliable\"\n",
        "[edge]\nproxy_from = [\"10.0.0.0/8\"]\norigins = [\"https://chat.example.com\"]\n",
        "[router]\npending_max = 65536\nsettle_ms = 0\ndedupe_max = 4096\n",
        "[link]\nlease_ms = 400\nping_ms = 10\ninterval_us = 0\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

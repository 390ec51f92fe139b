use std::collections::BTreeMap;

use gateway::Gateway;
use router::Router;
use shard::{Event, Instant, Shard, ShardId};
use wire::node::{Handed, Login, SessionId, Taken, ToBridge, ToRouter};
use wire::{AppId, DeviceClass, UserId};

use super::{Node, Outside};
use crate::{Bridge, HandoverLimits, Origin};

const LIMITS: HandoverLimits = HandoverLimits {
    queue_messages_max: 100,
    queue_bytes_max: 1 << 20,
    user_messages_max: 100,
    user_bytes_max: 1 << 20,
    window_bytes: 1 << 20,
};

/// Takes what is handed over when it is told to.
#[derive(Default)]
struct Slow {
    handed: Vec<(Origin, Handed)>,
}

impl Outside for Slow {
    fn bridge(&mut self, _now: Instant, of: Origin, handed: Handed) {
        self.handed.push((of, handed));
    }

    fn no_bridge(&mut self, _now: Instant, event: &ToBridge) {
        panic!("there is a bridge for {event:?}");
    }

    fn directory(&mut self, _now: Instant, _record: wire::node::ToDirectory) {}

    fn unbridged(&self) -> crate::Unbridged {
        crate::Unbridged::default()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn timeout(&mut self, _now: Instant) {}

    fn end(&mut self, _now: Instant) {}
}

fn node_of_all(now: Instant, handover: HandoverLimits) -> Node<Slow> {
    let id = ShardId::new(1, 0);
    let router = Router::new(router::Config {
        id,
        seed: 1,
        limits: router::Limits::default(),
        keeps: router::Keeps::default(),
    });
    let (keys, config) = (gateway::TokenKeys::hs256(b"a secret"), gateway::Config::default());
    let gateway = Gateway::new(now, gateway::Setup { id, keys, config, ports: Vec::new(), seed: 2 });
    let cores = crate::Cores::Alone { gateway, router };
    let (outside, patience) = (Slow::default(), std::time::Duration::from_secs(1));
    let setup = crate::Setup {
        id,
        shards: 1,
        incarnation: 1,
        bridge: Bridge::Inside,
        handover,
        cores,
        outside,
        patience,
    };
    Node::new(now, setup)
}

#[test]
fn a_bridge_that_fell_behind_is_told_again_where_everybody_is() {
    let now = Instant::from_unix_nanos(1_800_000_000_000_000_000);
    let mut node = node_of_all(now, HandoverLimits { queue_messages_max: 8, ..LIMITS });
    let (app, device, me) = (AppId(1), DeviceClass::Web, node.id);
    let turn = |node: &mut Node<Slow>, mail| {
        node.handle(now, Event::Mail { from: me, mail });
        while node.poll_effect(now).is_some() {}
        node.check_invariants();
    };
    let say = |node: &mut Node<Slow>, mail| {
        turn(node, crate::Mail::ToRouter(mail));
    };
    for user in (1..=40).map(UserId) {
        let (session, login, fresh) = (SessionId(user.0 as u64), Login(now.unix_nanos()), true);
        say(&mut node, ToRouter::Bind { app, user, device, session, login, fresh });
    }
    for user in (1..=10).map(UserId) {
        let (session, moved) = (SessionId(user.0 as u64), false);
        say(&mut node, ToRouter::Unbind { app, user, device, session, moved });
    }
    let dropped = |node: &Node<Slow>| node.handover().map_or(0, |metrics| metrics.dropped.iter().sum());
    assert_eq!(dropped(&node), 32 + 10, "the bridge takes nothing");
    // Of each user whether it is online, by the last that was told.
    let mut told = BTreeMap::new();
    for turns in 0.. {
        assert!(turns < 100, "it comes to an end");
        let handed = std::mem::take(&mut node.outside.handed);
        let Some((of, _)) = handed.first() else { break };
        let (of, mut results) = (*of, Vec::new());
        for (_, Handed { seq, event }) in handed {
            results.push((seq, Taken::Ok));
            match event {
                ToBridge::Online { user, .. } => told.insert(user, true),
                ToBridge::Offline { user, .. } => told.insert(user, false),
                other => panic!("{other:?}"),
            };
        }
        turn(&mut node, crate::Mail::Control(crate::Control::Taken { of, results }));
    }
    assert_eq!(told, (1..=40).map(|user| (UserId(user), user > 10)).collect());
    assert_eq!(dropped(&node), 42, "what is told again finds room");
}

//! The page of `/metrics`.

use std::fmt::Display;
use std::sync::Arc;

use biz_bridge::{EventKind, PushOutcome};
use edge::Refusal as EdgeRefusal;
use engine::Stats;
use gateway::{Histogram, Latency, RouteClass, TokenError};
use http_server::process::Process;
use wire::client::{Code, FailReason, NoticeCode};
use wire::node::link::Refusal;

use super::Admin;
use super::exposition::{Exposition, Kind, Labels};
use crate::control::Shards;
use crate::directory;
use crate::role::Role;
use node::{EVENTS, HandoverMetrics, ShardMetrics, Unbridged};

/// The core metrics of each shard; `None` for one that did not answer.
type Cores = [Option<Core>];

/// The metrics of a shard's cores; zeros for a core that it does not have.
#[derive(Default)]
struct Core {
    gateway: gateway::Metrics,
    router: router::Metrics,
    links: link::Metrics,
    link_overflows: u64,
    handover: HandoverMetrics,
    unbridged: Unbridged,
}

impl From<&ShardMetrics> for Core {
    fn from(metrics: &ShardMetrics) -> Self {
        Self {
            gateway: metrics.gateway.clone().unwrap_or_default(),
            router: metrics.router.unwrap_or_default(),
            links: metrics.links.clone().unwrap_or_default(),
            link_overflows: metrics.link_overflows,
            handover: metrics.handover.unwrap_or_default(),
            unbridged: metrics.unbridged,
        }
    }
}

/// Histogram buckets from about a microsecond to about a second; shorter times count in the first.
const TURN_BUCKETS: std::ops::Range<usize> = 10..30;

/// Every metric of the node. Engine counters are always there; a shard that does not answer lacks the others
/// and has `sailfish_shard_up` 0.
pub fn text(admin: &Admin, cores: &[Option<Box<ShardMetrics>>], process: Process) -> String {
    let cores: Vec<Option<Core>> = cores.iter().map(|core| core.as_deref().map(Core::from)).collect();
    let (cores, shards) = (&cores[..], &admin.shards);
    let role = shards.role();
    let mut page =
        Page { out: Exposition::default(), shards: (0..cores.len()).map(|at| at.to_string()).collect() };
    page.build(shards);
    page.up(cores);
    if role != Role::Router {
        page.connections(cores);
        page.frames(cores);
        page.delivery(cores);
        page.latency(cores);
        page.owners(cores);
    }
    if matches!(role, Role::Up | Role::Router) {
        page.router(cores);
        page.cluster(cores);
    }
    if role != Role::Up {
        page.links(cores);
    }
    if let Some(directory) = &admin.directory {
        page.directory(directory);
    }
    page.bridge(cores);
    if let Some(bridge) = &admin.bridge {
        page.backend(bridge);
    }
    page.engine(shards.stats());
    page.http(&admin.http.counts());
    page.process(process);
    page.out.into_text()
}

struct Page {
    out: Exposition,
    /// The value of each shard's label.
    shards: Vec<String>,
}

use Kind::{Counter, Gauge};

impl Page {
    fn build(&mut self, shards: &Shards) {
        let mut family = self.out.family("sailfish_build_info", Gauge, "The version that runs.");
        family.sample(Labels(&[("version", env!("CARGO_PKG_VERSION"))]), 1);
        let draining = u8::from(shards.is_draining());
        self.number("sailfish_draining", Gauge, "1 while the node drains.", draining);
    }

    fn up(&mut self, cores: &Cores) {
        let mut up = self.out.family("sailfish_shard_up", Gauge, "1 if the shard answered within a second.");
        for (shard, core) in self.shards.iter().zip(cores) {
            up.sample(Labels(&[("shard", shard)]), u8::from(core.is_some()));
        }
    }

    fn connections(&mut self, cores: &Cores) {
        self.core("sailfish_connections", Gauge, "Connections, closing ones included.", cores, |m| {
            m.gateway.connections
        });
        self.core("sailfish_sessions", Gauge, "Logged-in sessions.", cores, |m| m.gateway.sessions);
        self.core("sailfish_accepted_total", Counter, "Accepted connections.", cores, |m| m.gateway.accepted);
        self.core("sailfish_logins_total", Counter, "Logins that were answered.", cores, |m| {
            m.gateway.logins
        });
        self.core("sailfish_rooms", Gauge, "Rooms with members on the shard.", cores, |m| m.gateway.rooms);
        self.core("sailfish_memberships", Gauge, "Memberships of all sessions.", cores, |m| {
            m.gateway.memberships
        });
        self.core("sailfish_timers", Gauge, "Armed timers of the gateway core.", cores, |m| m.gateway.timers);
    }

    fn frames(&mut self, cores: &Cores) {
        let names = Code::ALL.map(code_name);
        let help = "Frames from clients.";
        self.by("sailfish_frames_in_total", help, "code", &names, cores, |m| &m.gateway.frames_in);
        let help = "Frames to clients, retries included.";
        self.by("sailfish_frames_out_total", help, "code", &names, cores, |m| &m.gateway.frames_out);
        let help = "Connections that became WebSocket connections.";
        self.core("sailfish_websockets_total", Counter, help, cores, |m| m.gateway.websockets);
        let help = "TLS handshakes of clients that were done; a ticket makes one short (resumed).";
        let kinds = ["full", "resumed"];
        self.by("sailfish_tls_handshakes_total", help, "kind", &kinds, cores, |m| &m.gateway.tls_handshakes);
        let names = EdgeRefusal::ALL.map(EdgeRefusal::name);
        let help = "Connections ended before their frames could be read: by PROXY, TLS, HTTP or WebSocket.";
        self.by("sailfish_edge_refusals_total", help, "reason", &names, cores, |m| &m.gateway.edge_refusals);
        let names = TokenError::ALL.map(TokenError::name);
        let help = "Login tokens that were refused.";
        self.by("sailfish_tokens_refused_total", help, "reason", &names, cores, |m| {
            &m.gateway.tokens_refused
        });
        let names = NoticeCode::ALL.map(NoticeCode::name);
        let help = "Notices to clients; most end the connection.";
        self.by("sailfish_notices_total", help, "notice", &names, cores, |m| &m.gateway.notices);
        let help = "Connections closed because their client does not read or ack.";
        let name = "sailfish_slow_reader_closes_total";
        self.core(name, Counter, help, cores, |m| m.gateway.notices_of(NoticeCode::SlowReader));
    }

    fn delivery(&mut self, cores: &Cores) {
        let classes = ["reliable", "lossy"];
        let help = "Messages queued for a connection.";
        self.by_value("sailfish_deliveries_total", help, "class", &classes, cores, |m| {
            vec![m.gateway.deliveries_reliable, m.gateway.deliveries_lossy]
        });
        let help = "Lossy messages dropped because their receiver is slow.";
        self.core("sailfish_lossy_dropped_total", Counter, help, cores, |m| m.gateway.lossy_dropped);
        let outcomes = ["complete", "too_old"];
        let help = "Joins that wanted earlier messages of their room, by whether all followed.";
        self.by_value("sailfish_recoveries_total", help, "recovery", &outcomes, cores, |m| {
            vec![m.gateway.recoveries_complete, m.gateway.recoveries_too_old]
        });
        let help = "Owners that were asked once more for their rooms' messages.";
        self.core("sailfish_recalls_repeated_total", Counter, help, cores, |m| m.gateway.recalls_repeated);
        let help = "Acks that ended a delivery.";
        self.core("sailfish_acks_total", Counter, help, cores, |m| m.gateway.acks);
        let help = "Acks for messages that are not in flight: late, repeated or invented.";
        self.core("sailfish_acks_unknown_total", Counter, help, cores, |m| m.gateway.acks_unknown);
        let help = "Reliable messages written again.";
        self.core("sailfish_retries_total", Counter, help, cores, |m| m.gateway.retries);
        let reasons = FailReason::ALL.map(FailReason::name);
        let help = "Reliable deliveries to a connection that ended without an ack.";
        self.by("sailfish_undelivered_total", help, "reason", &reasons, cores, |m| &m.gateway.undelivered);
        let help = "Messages refused to their sender by the gateway core.";
        self.by("sailfish_refused_total", help, "reason", &reasons, cores, |m| &m.gateway.refused);
        let help = "Bytes that wait or are in flight for all connections.";
        self.core("sailfish_outbox_bytes", Gauge, help, cores, |m| m.gateway.outbox_bytes);
    }

    /// How long messages take; a route class without a message has no samples.
    fn latency(&mut self, cores: &Cores) {
        let help = "At the sender's gateway: from a message's arrival to its outcome, which is the receiver's ack for a user, and the \
                    place in the order for a room.";
        self.latency_of("sailfish_delivery_outcome_seconds", help, cores, |latency| &latency.outcome);
        let help = "At the receiver's gateway: from the router's mail to the write to the socket.";
        self.latency_of("sailfish_delivery_write_seconds", help, cores, |latency| &latency.write);
        let help = "At the receiver's gateway: from the router's mail to the ack of the client.";
        self.latency_of("sailfish_delivery_ack_seconds", help, cores, |latency| &latency.ack);
    }

    fn latency_of(
        &mut self,
        name: &'static str,
        help: &str,
        cores: &Cores,
        of: impl Fn(&Latency) -> &[Histogram; RouteClass::ALL.len()],
    ) {
        let mut series = Vec::new();
        for (shard, core) in answered(&self.shards, cores) {
            for (route, histogram) in RouteClass::ALL.into_iter().zip(of(&core.gateway.latency)) {
                if histogram.count() > 0 {
                    series.push(([("shard", shard), ("route", route.name())], histogram));
                }
            }
        }
        let series = series.iter().map(|(labels, histogram)| {
            (Labels(labels), histogram.cumulated().collect(), histogram.count(), histogram.sum_seconds())
        });
        self.out.histogram(name, help, series);
    }

    fn histories(&mut self, cores: &Cores) {
        let help = "Rooms whose last messages are kept.";
        self.core("sailfish_router_history_rooms", Gauge, help, cores, |m| m.router.history_rooms);
        let help = "Messages that rooms keep for members who were away.";
        self.core("sailfish_router_history_messages", Gauge, help, cores, |m| m.router.history_messages);
        let help = "Bytes of these.";
        self.core("sailfish_router_history_bytes", Gauge, help, cores, |m| m.router.history_bytes);
        let help = "Messages that rooms forgot because all of them kept too much.";
        self.core("sailfish_router_history_evicted_total", Counter, help, cores, |m| {
            m.router.history_evicted
        });
        let help = "Parts of histories of rooms that were sent to their next owners.";
        self.core("sailfish_router_history_moved_total", Counter, help, cores, |m| m.router.history_moved);
        let help = "Parts of histories of rooms that came from earlier owners and were used.";
        self.core("sailfish_router_history_taken_total", Counter, help, cores, |m| m.router.history_taken);
        let help = "Histories of rooms that were read from the directory, whose owners before had died.";
        self.core("sailfish_router_streams_read_total", Counter, help, cores, |m| m.router.streams_read);
        let help = "Shards that wait for a room's messages.";
        self.core("sailfish_router_recalls_waiting", Gauge, help, cores, |m| m.router.recalls_waiting);
        let help = "Shards that were sent a room's messages.";
        self.core("sailfish_router_recalls_total", Counter, help, cores, |m| m.router.recalls);
        let help = "Shards that found no place to wait for these, and ask again.";
        self.core("sailfish_router_recalls_refused_total", Counter, help, cores, |m| {
            m.router.recalls_refused
        });
    }

    fn router(&mut self, cores: &Cores) {
        self.core("sailfish_router_bindings", Gauge, "Sessions whose users the shard owns.", cores, |m| {
            m.router.bindings
        });
        self.core("sailfish_router_users", Gauge, "Users online that the shard owns.", cores, |m| {
            m.router.users
        });
        self.core("sailfish_router_rooms", Gauge, "Rooms with members that the shard owns.", cores, |m| {
            m.router.rooms
        });
        let help = "Reliable messages that wait for their receivers.";
        self.core("sailfish_router_pending", Gauge, help, cores, |m| m.router.pending);
        let help = "Undelivered messages that wait for the bridge's answer.";
        self.core("sailfish_router_handed", Gauge, help, cores, |m| m.router.handed);
        let help = "Outcomes remembered for repeated messages.";
        self.core("sailfish_router_remembered", Gauge, help, cores, |m| m.router.remembered);
        self.histories(cores);
        let help = "Sessions kicked by a newer one of the same user and device class.";
        self.core("sailfish_router_kicks_total", Counter, help, cores, |m| m.router.kicks);
        let targets = ["user", "user", "room", "room"];
        let classes = ["reliable", "lossy", "reliable", "lossy"];
        let help = "Messages submitted to the owner of their target, repeats included.";
        let mut family = self.out.family("sailfish_router_submitted_total", Counter, help);
        for (shard, metrics) in answered(&self.shards, cores) {
            let router = &metrics.router;
            let counts = [
                router.submitted_user_reliable,
                router.submitted_user_lossy,
                router.submitted_room_reliable,
                router.submitted_room_lossy,
            ];
            for ((target, class), count) in targets.into_iter().zip(classes).zip(counts) {
                family.sample(Labels(&[("shard", shard), ("target", target), ("class", class)]), count);
            }
        }
        let help = "Submitted messages that repeat an earlier one; they are delivered once.";
        self.core("sailfish_router_repeats_total", Counter, help, cores, |m| {
            m.router.repeats_pending + m.router.repeats_done
        });
        let help = "Messages sent to sessions, one for each.";
        self.core("sailfish_router_forwarded_total", Counter, help, cores, |m| m.router.forwarded);
        let help = "Room messages sent to shards, one for each.";
        self.core("sailfish_router_broadcasts_total", Counter, help, cores, |m| m.router.broadcasts);
        let help = "Reliable messages to users that a receiver acked.";
        self.core("sailfish_router_delivered_total", Counter, help, cores, |m| m.router.delivered);
        let reasons = FailReason::ALL.map(FailReason::name);
        let help = "Reliable messages to users that no receiver acked.";
        self.by("sailfish_router_undelivered_total", help, "reason", &reasons, cores, |m| {
            &m.router.undelivered
        });
        let help = "Of these, those that the backend keeps.";
        self.core("sailfish_router_stored_total", Counter, help, cores, |m| m.router.stored);
        let help = "Lossy messages to users without a session.";
        self.core("sailfish_router_lossy_offline_total", Counter, help, cores, |m| m.router.lossy_offline);
        let help = "Sessions refused at router.bindings_max.";
        self.core("sailfish_router_binds_refused_total", Counter, help, cores, |m| m.router.refused);
        let help = "Gateway shards refused in a room at router.memberships_max.";
        self.core("sailfish_router_joins_refused_total", Counter, help, cores, |m| m.router.joins_refused);
        let help = "Messages refused as busy at a limit.";
        self.core("sailfish_router_busy_total", Counter, help, cores, |m| m.router.busy);
        let help = "Pending messages whose receiver's shard never answered.";
        self.core("sailfish_router_expired_total", Counter, help, cores, |m| m.router.expired);
    }

    fn owners(&mut self, cores: &Cores) {
        let help = "Messages that wait for their owners' answers.";
        self.core("sailfish_submitted", Gauge, help, cores, |m| m.gateway.submitted);
        self.core("sailfish_submitted_bytes", Gauge, "Bytes of these.", cores, |m| m.gateway.submitted_bytes);
        let help = "Router shards that own users and rooms, as the shard sees it.";
        self.core("sailfish_owners", Gauge, help, cores, |m| m.gateway.owners);
        let help = "Router shards that the shard is linked with.";
        self.core("sailfish_routers", Gauge, help, cores, |m| m.gateway.routers);
        let help = "Changes of owners.";
        self.core("sailfish_owner_changes_total", Counter, help, cores, |m| m.gateway.views);
        let help = "Messages submitted to another owner because the first one was lost.";
        self.core("sailfish_submitted_again_total", Counter, help, cores, |m| m.gateway.submitted_again);
        let help =
            "Room messages of a former owner that came after newer ones; reliable ones were handed over.";
        self.core("sailfish_room_late_total", Counter, help, cores, |m| m.gateway.room_late);
    }

    fn cluster(&mut self, cores: &Cores) {
        let help = "Gateway shards that the shard is linked with.";
        self.core("sailfish_router_gateways", Gauge, help, cores, |m| m.router.gateways);
        let help = "Router shards that all of these reach: the owners.";
        self.core("sailfish_router_common", Gauge, help, cores, |m| m.router.common);
        let help = "1 while gateways disagree about owners, or the shard has just started.";
        self.core("sailfish_router_unsettled", Gauge, help, cores, |m| m.router.unsettled);
        let help = "Messages parked until gateways agree.";
        self.core("sailfish_router_parked", Gauge, help, cores, |m| m.router.parked);
        let help = "Gateway shards that were lost, with their sessions.";
        self.core("sailfish_router_gateways_lost_total", Counter, help, cores, |m| m.router.gateways_lost);
        let help = "Sessions that gateways announced because their owner changed.";
        self.core("sailfish_router_announced_total", Counter, help, cores, |m| m.router.announced);
        let help =
            "Sessions of gateway shards that were lost and came back with them: nothing was announced.";
        self.core("sailfish_router_unchanged_total", Counter, help, cores, |m| m.router.unchanged);
        let help = "Of the bindings, those of gateway shards that were lost and may come back.";
        self.core("sailfish_router_away", Gauge, help, cores, |m| m.router.away);
    }

    fn links(&mut self, cores: &Cores) {
        self.core("sailfish_link_peers", Gauge, "Linked shards of other nodes.", cores, |m| m.links.peers);
        let help = "Of these, those without a connection at the moment.";
        self.core("sailfish_link_peers_away", Gauge, help, cores, |m| m.links.peers_away);
        let help = "Of these, those whose connection is not encrypted.";
        self.core("sailfish_link_peers_clear", Gauge, help, cores, |m| m.links.peers_clear);
        let help = "Of these, those whose queue is full, so that the shard does not read clients.";
        self.core("sailfish_link_peers_full", Gauge, help, cores, |m| m.links.peers_full);
        let help = "Bytes for peers that wait or are not confirmed.";
        self.core("sailfish_link_queued_bytes", Gauge, help, cores, |m| m.links.queued_bytes);
        let help = "Bytes from peers that wait for their turn.";
        self.core("sailfish_link_backlog_bytes", Gauge, help, cores, |m| m.links.backlog_bytes);
        let help = "Link sessions that began.";
        self.core("sailfish_link_sessions_total", Counter, help, cores, |m| m.links.sessions);
        let help = "Link sessions that were resumed after a broken connection.";
        self.core("sailfish_link_resumed_total", Counter, help, cores, |m| m.links.resumed);
        let help = "Link sessions that were given up.";
        self.core("sailfish_link_lost_total", Counter, help, cores, |m| m.links.lost);
        let help = "Messages that were lost with them: on their way, or waiting.";
        self.core("sailfish_link_messages_lost_total", Counter, help, cores, |m| m.links.messages_lost);
        let help = "Failed connects to peers.";
        self.core("sailfish_link_connect_failures_total", Counter, help, cores, |m| m.links.connect_failures);
        let reasons = Refusal::ALL.map(Refusal::name);
        let help = "Links refused, by this side or the other.";
        self.by("sailfish_link_refused_total", help, "reason", &reasons, cores, |m| &m.links.refused);
        let help = "Messages to peers.";
        self.core("sailfish_link_messages_out_total", Counter, help, cores, |m| m.links.messages_out);
        let help = "Messages from peers.";
        self.core("sailfish_link_messages_in_total", Counter, help, cores, |m| m.links.messages_in);
        let help = "Batches to peers.";
        self.core("sailfish_link_batches_out_total", Counter, help, cores, |m| m.links.batches_out);
        let help = "Batches from peers.";
        self.core("sailfish_link_batches_in_total", Counter, help, cores, |m| m.links.batches_in);
        let help = "Messages to shards that are not linked.";
        self.core("sailfish_link_unreachable_total", Counter, help, cores, |m| m.links.unreachable);
        let help = "Messages to peers with a full queue: dropped, or failed and handed over.";
        self.core("sailfish_link_overflows_total", Counter, help, cores, |m| m.link_overflows);
    }

    fn directory(&mut self, stats: &directory::Stats) {
        let help = "Commands to the directory, retries included.";
        let mut commands = self.out.family("sailfish_directory_commands_total", Counter, help);
        for (kind, count) in stats.commands() {
            commands.sample(Labels(&[("kind", kind)]), count);
        }
        let help = "Batches sent to the directory.";
        self.number("sailfish_directory_batches_total", Counter, help, stats.batches.get());
        let help = "Failed connects, broken connections and commands that the directory refused.";
        self.number("sailfish_directory_errors_total", Counter, help, stats.errors.get());
        let help = "Records dropped because the directory's queue was full.";
        self.number("sailfish_directory_dropped_total", Counter, help, stats.dropped.get());
        let help = "Records that wait for the directory.";
        self.number("sailfish_directory_queued", Gauge, help, stats.queued());
        let help = "1 while the directory answers.";
        self.number("sailfish_directory_connected", Gauge, help, stats.connected.get());
    }

    fn bridge(&mut self, cores: &Cores) {
        let help = "Events that no bridge has taken yet; they are kept.";
        self.core("sailfish_bridge_waiting", Gauge, help, cores, |m| m.handover.waiting);
        let help = "Their bytes.";
        self.core("sailfish_bridge_waiting_bytes", Gauge, help, cores, |m| m.handover.waiting_bytes);
        let help = "Events handed over to a bridge.";
        self.core("sailfish_bridge_handed_total", Counter, help, cores, |m| m.handover.handed);
        let help = "Events handed over again, because the first bridge was lost.";
        self.core("sailfish_bridge_resent_total", Counter, help, cores, |m| m.handover.resent);
        let help = "Events that a bridge has taken.";
        self.core("sailfish_bridge_taken_total", Counter, help, cores, |m| m.handover.taken);
        let help = "Events that a bridge has refused for good.";
        self.core("sailfish_bridge_refused_total", Counter, help, cores, |m| m.handover.refused);
        let help = "Presence events that were dropped because a newer one came while they waited.";
        self.core("sailfish_bridge_overtaken_total", Counter, help, cores, |m| m.handover.overtaken);
        let help = "Events dropped because no bridge is configured or the queue is full.";
        self.by_value("sailfish_bridge_dropped_total", help, "event", &EVENTS, cores, |m| {
            let none = &m.unbridged;
            let undelivered = none.undelivered.iter().sum();
            let none = [none.online, none.offline, none.joined, none.left, undelivered, none.requests];
            none.iter().zip(m.handover.dropped).map(|(none, full)| none + full).collect()
        });
        let reasons = FailReason::ALL.map(FailReason::name);
        let help = "Undelivered messages dropped because no bridge is configured.";
        self.by("sailfish_bridge_undelivered_total", help, "reason", &reasons, cores, |m| {
            &m.unbridged.undelivered
        });
    }

    /// Metrics of the way from the bridge of this process to the backend.
    fn backend(&mut self, bridge: &biz_bridge::Metrics) {
        let help = "Batches of events sent to the backend, by outcome.";
        let mut batches = self.out.family("sailfish_bridge_batches_total", Counter, help);
        let (taken, failed) = (&bridge.batches_taken, &bridge.batches_failed);
        for (outcome, count) in [("taken", taken), ("failed", failed), ("rejected", &bridge.batches_rejected)]
        {
            batches.sample(Labels(&[("outcome", outcome)]), count.get());
        }
        let help = "Events that the backend took, or refused for good.";
        let mut events = self.out.family("sailfish_bridge_events_total", Counter, help);
        for kind in EventKind::ALL {
            let counts = [("taken", bridge.taken(kind)), ("refused", bridge.refused(kind))];
            for (outcome, count) in counts {
                events.sample(Labels(&[("event", kind.name()), ("outcome", outcome)]), count.get());
            }
        }
        let help = "Pushes from the stream, by outcome.";
        let mut pushes = self.out.family("sailfish_bridge_pushes_total", Counter, help);
        for outcome in PushOutcome::ALL {
            pushes.sample(Labels(&[("outcome", outcome.name())]), bridge.pushes(outcome).get());
        }
        let help = "Events sent to the backend again.";
        self.number("sailfish_bridge_retries_total", Counter, help, bridge.retries.get());
        let help = "Events in the bridge that the backend has not taken.";
        self.number("sailfish_bridge_queued", Gauge, help, bridge.waiting.get());
        let help = "The breaker: 0 closed (batches are sent), 1 trying (one batch is sent), 2 open (nothing is sent).";
        self.number("sailfish_bridge_breaker", Gauge, help, bridge.breaker() as u64);
        let help = "How often the breaker opened.";
        self.number("sailfish_bridge_breaker_opened_total", Counter, help, bridge.breaker_opened.get());
        let help = "Failed connects, broken connections and refused commands of the push stream.";
        self.number(
            "sailfish_bridge_push_stream_errors_total",
            Counter,
            help,
            bridge.push_stream_errors.get(),
        );
        let help =
            "1 if Redis replies before its writes are on disk: a crash of Redis may lose answered events.";
        self.number("sailfish_bridge_redis_volatile", Gauge, help, bridge.redis_volatile.get());
        let help = "Spans for the trace collector, by outcome.";
        let mut spans = self.out.family("sailfish_trace_spans_total", Counter, help);
        for (outcome, count) in bridge.traces.spans() {
            spans.sample(Labels(&[("outcome", outcome)]), count);
        }
        let help = "Batches of spans that were not taken, each try.";
        self.number("sailfish_trace_tries_failed_total", Counter, help, bridge.traces.tries_failed());
    }

    fn engine(&mut self, stats: &[Arc<Stats>]) {
        self.stat("sailfish_turns_total", Counter, "Turns of the shard's loop.", stats, |s| s.turns.get());
        self.turn_time(stats);
        let help = "Time in which the shard could not run, in ms; deadlines do not count it.";
        self.stat("sailfish_stillness_ms_total", Counter, help, stats, |s| s.stillness_ms.get());
        self.stat("sailfish_events_total", Counter, "Events handed to the cores.", stats, |s| s.events.get());
        self.stat("sailfish_received_bytes_total", Counter, "Bytes received.", stats, |s| s.bytes_in.get());
        self.stat("sailfish_sent_bytes_total", Counter, "Bytes written.", stats, |s| s.bytes_out.get());
        self.stat("sailfish_receives_total", Counter, "Receives that brought bytes.", stats, |s| {
            s.receives.get()
        });
        self.stat("sailfish_sends_total", Counter, "Sends, one for each batch.", stats, |s| s.sends.get());
        let help = "Sockets the engine holds open.";
        self.stat("sailfish_sockets", Gauge, help, stats, |s| s.connections.get());
        let help = "Failed accepts: out of open files or memory.";
        self.stat("sailfish_accept_errors_total", Counter, help, stats, |s| s.accept_errors.get());
        let help = "Connections closed right after the accept: the shard was full, or the client was gone.";
        self.stat("sailfish_accepts_refused_total", Counter, help, stats, |s| s.accepts_refused.get());
        self.stat("sailfish_mail_in_total", Counter, "Mail handed to the cores.", stats, |s| s.mail_in.get());
        let help = "Mail to other shards and to the control thread.";
        self.stat("sailfish_mail_out_total", Counter, help, stats, |s| s.mail_out.get());
        let help = "Mail that waited with its sender because the mailbox was full.";
        self.stat("sailfish_mail_overflows_total", Counter, help, stats, |s| s.mail_overflows.get());
        let help = "Mail dropped because the receiver has stopped.";
        self.stat("sailfish_mail_dropped_total", Counter, help, stats, |s| s.mail_dropped.get());
        let help = "Times a receive found no free buffer and had to be started again.";
        self.stat("sailfish_receive_exhaustions_total", Counter, help, stats, |s| {
            s.receive_exhaustions.get()
        });
    }

    fn turn_time(&mut self, stats: &[Arc<Stats>]) {
        let labels: Vec<_> = self.shards.iter().map(|shard| [("shard", shard.as_str())]).collect();
        let series = labels.iter().zip(stats).map(|(labels, stats)| {
            let counts = stats.turn_time.buckets();
            let mut cumulative = counts[..TURN_BUCKETS.start].iter().sum::<u64>();
            let mut buckets = Vec::new();
            for at in TURN_BUCKETS {
                cumulative += counts[at];
                buckets.push((upper_seconds(at), cumulative));
            }
            let count = counts.iter().sum();
            // The middle of each bucket: within a factor of 1.5 of the truth.
            let sum =
                counts.iter().enumerate().map(|(at, count)| *count as f64 * upper_seconds(at) * 0.75).sum();
            (Labels(labels), buckets, count, sum)
        });
        self.out.histogram(
            "sailfish_turn_seconds",
            "Time of one turn of the shard's loop, without the wait at its end; the sum is an estimate.",
            series,
        );
    }

    fn http(&mut self, http: &http_server::Counts) {
        self.number(
            "sailfish_http_connections",
            Gauge,
            "Open connections of the admin port.",
            http.connections,
        );
        let help = "Bytes of requests' bodies in memory.";
        self.number("sailfish_http_bodies_bytes", Gauge, help, http.bodies_bytes);
        self.number(
            "sailfish_http_accepted_total",
            Counter,
            "Connections accepted at the admin port.",
            http.accepted,
        );
        let help = "Failed accepts at the admin port.";
        self.number("sailfish_http_accept_errors_total", Counter, help, http.accept_errors);
        let help = "Connections and requests refused at a limit there, by limit.";
        self.by_reason("sailfish_http_refused_total", help, &http.refused);
        let help = "Connections there that the server closed first.";
        self.by_reason("sailfish_http_cut_total", help, &http.cut);
    }

    fn by_reason(&mut self, name: &'static str, help: &str, counts: &[(&str, u64)]) {
        let mut family = self.out.family(name, Counter, help);
        for (reason, count) in counts {
            family.sample(Labels(&[("reason", reason)]), count);
        }
    }

    fn process(&mut self, process: Process) {
        for (name, help, value) in process.gauges() {
            self.number(name, Gauge, help, value);
        }
        let help = "CPU time, user and system.";
        self.number("process_cpu_seconds_total", Counter, help, process.cpu_seconds);
    }

    /// One number of the process.
    fn number(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.out.family(name, kind, help).sample(Labels(&[]), value);
    }

    /// One number of the cores.
    fn core(&mut self, name: &'static str, kind: Kind, help: &str, cores: &Cores, of: impl Fn(&Core) -> u64) {
        let mut family = self.out.family(name, kind, help);
        for (shard, metrics) in answered(&self.shards, cores) {
            family.sample(Labels(&[("shard", shard)]), of(metrics));
        }
    }

    /// One counter of the cores for each name.
    fn by<const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        label: &'static str,
        names: &[&'static str; N],
        cores: &Cores,
        of: impl Fn(&Core) -> &[u64; N],
    ) {
        self.by_value(name, help, label, names, cores, |metrics| of(metrics).to_vec());
    }

    fn by_value(
        &mut self,
        name: &'static str,
        help: &str,
        label: &'static str,
        names: &[&'static str],
        cores: &Cores,
        of: impl Fn(&Core) -> Vec<u64>,
    ) {
        let mut family = self.out.family(name, Counter, help);
        for (shard, metrics) in answered(&self.shards, cores) {
            for (value, count) in names.iter().zip(of(metrics)) {
                family.sample(Labels(&[("shard", shard), (label, value)]), count);
            }
        }
    }

    /// One number of the engines.
    fn stat(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
        stats: &[Arc<Stats>],
        of: impl Fn(&Stats) -> u64,
    ) {
        let mut family = self.out.family(name, kind, help);
        for (shard, stats) in self.shards.iter().zip(stats) {
            family.sample(Labels(&[("shard", shard)]), of(stats));
        }
    }
}

/// The shards that answered.
fn answered<'a>(shards: &'a [String], cores: &'a Cores) -> impl Iterator<Item = (&'a str, &'a Core)> {
    shards.iter().zip(cores).filter_map(|(shard, core)| Some((shard.as_str(), core.as_ref()?)))
}

/// Where bucket `at` of the engine's histogram ends.
fn upper_seconds(at: usize) -> f64 {
    2_f64.powi(at as i32 + 1) / 1e9
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Login => "login",
        Code::Logout => "logout",
        Code::Business => "business",
        Code::Heartbeat => "heartbeat",
        Code::Ack => "ack",
        Code::SendAck => "send_ack",
        Code::Notice => "notice",
        Code::Join => "join",
        Code::Leave => "leave",
    }
}

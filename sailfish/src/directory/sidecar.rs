//! The thread between the queue and Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use redis::{ConnectionInfo, ErrorKind, FromRedisValue, RedisError, RedisResult, Value};
use shard::{Prng, ShardId};
use tracing::{info, warn};
use trust::Roots;
use wire::node::{Entry, Stream};
use wire::{AppId, RoomId, UserId};

use super::keys::{self, Keys};
use super::leases::Leases;
use super::link::{Link, Reply};
use super::sentinels::Sentinels;
use super::streams::{self, Streams};
use super::{Binding, News, NodeInfo, Record, Role, RouterAddress, Shared, StreamBounds};
use crate::config::DirectoryConfig;
use crate::redis_urls;

/// Records of one round trip.
const BATCH_MAX: usize = 512;
/// How often a lease is renewed within its time.
const RENEWALS: u32 = 3;
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// How long after a resync for lost records the next one may come.
const RESYNC_EVERY: Duration = Duration::from_secs(10);
/// How often trouble is logged at most; each line has the totals.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The state of the thread.
pub struct Sidecar<N> {
    shared: Arc<Shared>,
    news: N,
    keys: Keys,
    streams: Streams,
    node: NodeInfo,
    /// The text of the own lease.
    lease_text: String,
    lease_ms: u32,
    timeout: Duration,
    seeds: Vec<ConnectionInfo>,
    sentinels: Option<Sentinels>,
    roots: Roots,
    link: Option<Link>,
    /// The server behind a new connection may not know the script: the first batch brings its text.
    by_text: bool,
    leases: Leases,
    /// When the own lease was last renewed.
    renewed_at: Option<Instant>,
    /// The last list of routers that was reported.
    routers: Option<Vec<RouterAddress>>,
    /// The runs of Redis that are known to hold the data; none before the first connect.
    run_ids: BTreeSet<String>,
    /// Redis lacks data that it had, and this was not reported yet.
    data_lost: bool,
    /// Some of the batch may have been written before.
    is_again: bool,
    /// Taken from the queue and not yet answered. Repeating it is safe: stamps make the result the same.
    batch: Vec<Record>,
    /// Smaller than [`BATCH_MAX`] while Redis is too slow for that within the timeout.
    batch_max: usize,
    tick_at: Instant,
    resync_from: Instant,
    retry: Retry,
    log_from: Instant,
    /// Whether a broken connection was logged and its end was not.
    troubled: bool,
}

impl<N: Fn(News)> Sidecar<N> {
    pub fn new(
        config: &DirectoryConfig,
        streams: StreamBounds,
        node: NodeInfo,
        shared: Arc<Shared>,
        news: N,
    ) -> anyhow::Result<Self> {
        let seeds = redis_urls::seeds(&config.redis).map_err(|wish| anyhow!("directory.redis: {wish}"))?;
        let sentinels = redis_urls::sentinels(&config.redis, &config.redis_sentinels)
            .map_err(|wish| anyhow!("directory.redis_sentinels: {wish}"))?
            .map(Sentinels::new);
        let now = Instant::now();
        Ok(Self {
            shared,
            news,
            keys: Keys::new(&config.prefix),
            streams: Streams::new(&config.prefix, streams),
            lease_text: keys::lease_text(&node),
            node,
            lease_ms: config.lease_ms,
            timeout: Duration::from_millis(config.timeout_ms.into()),
            seeds,
            sentinels,
            roots: config.roots.clone(),
            link: None,
            by_text: true,
            leases: Leases::new(Duration::from_millis(config.lease_ms.into())),
            renewed_at: None,
            routers: None,
            run_ids: BTreeSet::new(),
            data_lost: false,
            is_again: false,
            batch: Vec::new(),
            batch_max: BATCH_MAX,
            tick_at: now,
            resync_from: now,
            retry: Retry::new(now),
            log_from: now,
            troubled: false,
        })
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        while !self.shared.stopping.load(Ordering::Acquire) {
            if let Err(error) = self.turn() {
                self.fail(&error);
            }
        }
        self.farewell();
    }

    /// One step: connect, keep the leases, write a batch, or wait for one of these.
    fn turn(&mut self) -> RedisResult<()> {
        let now = Instant::now();
        let Some(link) = &self.link else {
            if now < self.retry.at {
                self.shared.park(self.retry.at);
                return Ok(());
            }
            return self.connect();
        };
        if now >= self.tick_at {
            link.check_master()?;
            if link.is_cluster() {
                self.look_for_lost_data()?;
            }
            return self.tick();
        }
        self.ask_for_lost_records(now);
        self.take_batch();
        if self.batch.is_empty() {
            self.shared.wait(self.tick_at);
            return Ok(());
        }
        self.carry()
    }

    fn connect(&mut self) -> RedisResult<()> {
        let sentinels = self.sentinels.clone();
        self.link = Some(Link::connect(&self.seeds, sentinels, &self.roots, self.timeout)?);
        self.by_text = true;
        self.look_for_lost_data()?;
        self.tick()?;
        self.retry.reset();
        self.shared.stats.connected.set(1);
        if self.troubled {
            self.troubled = false;
            info!(queued = self.shared.stats.queued(), "the directory's Redis answers again");
        }
        Ok(())
    }

    /// A restarted server, or a replica in its place, may have lost what was written last.
    fn look_for_lost_data(&mut self) -> RedisResult<()> {
        self.shared.stats.leases.add(1);
        let run_ids = self.link()?.run_ids()?;
        self.data_lost |= !self.run_ids.is_empty() && !run_ids.is_subset(&self.run_ids);
        self.run_ids = run_ids;
        Ok(())
    }

    /// Renews the own lease and reads those of the others.
    fn tick(&mut self) -> RedisResult<()> {
        let id = self.node.id;
        let commands = [
            self.keys.read_lease(id),
            self.keys.write_lease(id, &self.lease_text, self.lease_ms),
            self.keys.add_node(id),
            self.keys.read_nodes(),
        ];
        self.shared.stats.leases.add(commands.len() as u64);
        let replies = self.link()?.run(&commands)?;
        let now = Instant::now();
        self.tick_at = now + Duration::from_millis(self.lease_ms.into()) / RENEWALS;
        let [held, written, added, ids] = <[Reply; 4]>::try_from(replies).expect("a reply for each command");
        written?;
        let held: Option<String> = parse(held)?;
        let added: u32 = parse(added)?;
        if let Some(renewed_at) = self.renewed_at {
            self.data_lost |= added > 0; // the list of nodes was gone, and with it everything
            let lease = Duration::from_millis(self.lease_ms.into());
            let pause = now.saturating_duration_since(renewed_at);
            if held.is_none() || pause > lease * (RENEWALS - 1) / RENEWALS {
                // The other nodes need as long as this node to come back, and have their leases for it.
                self.leases.be_lenient(now + BACK_OFF_MAX + lease);
            }
        }
        self.renewed_at = Some(now);
        self.look_for_twin(held.as_deref());
        if self.node.role != Role::Up {
            self.discover(parse(ids)?)?;
        }
        if mem::take(&mut self.data_lost) {
            self.resync(now);
        }
        Ok(())
    }

    fn look_for_twin(&mut self, held: Option<&str>) {
        let is_newer = |other: &NodeInfo| other.incarnation > self.node.incarnation;
        if let Some(NodeInfo { id, admin, .. }) = held.and_then(keys::lease).filter(is_newer) {
            self.complain(&format!(
                "another process, with admin port {admin}, is node {id} too; each needs its own id"
            ));
        }
    }

    /// Reads the leases of all nodes, reports the routers if they have changed, and takes nodes that have
    /// been gone for long off the list. `listed` may lack known nodes: when Redis lost its data, until they
    /// have put themselves on the list again.
    fn discover(&mut self, mut listed: BTreeSet<u16>) -> RedisResult<()> {
        listed.extend(self.leases.ids());
        self.shared.stats.leases.add(listed.len() as u64);
        self.read_leases(&listed)?;
        let gone = self.leases.forget_gone(Instant::now());
        if !gone.is_empty() {
            let commands: Vec<_> = gone.iter().map(|id| self.keys.remove_node(*id)).collect();
            self.shared.stats.leases.add(commands.len() as u64);
            self.link()?.run(&commands)?;
        }
        let routers = self.leases.routers();
        if self.routers.as_ref() != Some(&routers) {
            self.routers = Some(routers.clone());
            (self.news)(News::Routers(routers));
        }
        Ok(())
    }

    fn read_leases(&mut self, ids: &BTreeSet<u16>) -> RedisResult<()> {
        let commands: Vec<_> = ids.iter().map(|id| self.keys.read_lease(*id)).collect();
        let replies = self.link()?.run(&commands)?;
        let now = Instant::now();
        for (id, reply) in ids.iter().zip(replies) {
            let text: Option<String> = self.accept(reply)?.flatten();
            self.leases.read(*id, text.as_deref().and_then(keys::lease), now);
        }
        Ok(())
    }

    /// Asks for records that the queue dropped, once it has room again.
    fn ask_for_lost_records(&mut self, now: Instant) {
        let queue = &self.shared.stats.queue;
        let has_room = queue.len() < queue.capacity() / 2;
        if has_room && now >= self.resync_from && self.shared.lost.load(Ordering::Acquire) {
            self.resync(now);
        }
    }

    fn resync(&mut self, now: Instant) {
        self.resync_from = now + RESYNC_EVERY;
        self.shared.lost.store(false, Ordering::Release);
        (self.news)(News::Resync);
    }

    /// Fills up what is left of a batch that has failed.
    fn take_batch(&mut self) {
        while self.batch.len() < self.batch_max
            && let Some(record) = self.shared.stats.pop()
        {
            self.batch.push(record);
        }
    }

    /// Writes records to Redis, and forgets them when that has worked.
    fn carry(&mut self) -> RedisResult<()> {
        let batch = mem::take(&mut self.batch);
        let count = batch.len().min(self.batch_max);
        let carried = self.carry_records(&batch[..count]);
        self.batch = batch;
        match carried {
            Ok(()) => {
                self.batch.drain(..count);
                self.batch_max = (self.batch_max * 2).min(BATCH_MAX);
            }
            Err(_) => self.batch_max = (self.batch_max / 2).max(1),
        }
        self.is_again = carried.is_err();
        carried
    }

    fn carry_records(&mut self, records: &[Record]) -> RedisResult<()> {
        let split = Split::new(records);
        self.shared.stats.batches.add(1);
        let mut replies = self.send(&split, self.by_text)?;
        self.by_text &= split.writes.is_empty();
        if replies.iter().any(|reply| reply.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT"))) {
            // A server of a Cluster that the first batch did not reach, or one that lost its scripts. All
            // records go again, so that look-ups still see the writes before them.
            replies = self.send(&split, true)?;
            self.is_again = true;
        }
        let mut replies = replies.into_iter();
        let mut next = |count| replies.by_ref().take(count).collect::<Vec<Reply>>();
        let (written, found) = (next(split.writes.len()), next(split.lookups.len()));
        let (kept, read) = (next(split.kept.len()), next(split.reads.len()));
        for reply in written {
            self.accept::<u32>(reply)?;
        }
        let mut told = BTreeSet::new();
        for (&(to, app, room, entry), reply) in split.kept.iter().zip(kept) {
            // An entry that is not newer than the stream comes from an earlier owner, or is a repeat.
            if !streams::is_stale(&reply) {
                self.accept::<Value>(reply)?;
            } else if entry.goes_on() && !self.is_again && told.insert((to, app, room)) {
                (self.news)(News::StreamIsAhead { to, app, room, refused: entry.sequence() });
            }
        }
        for (&(to, app, room), reply) in split.reads.iter().zip(read) {
            let entries = self.accept::<Value>(reply)?.map(|value| streams::entries(app, room, &value));
            let stream = Stream { app, room, entries: entries.unwrap_or_default() };
            (self.news)(News::Stream { to, stream });
        }
        self.answer(&split.lookups, found)
    }

    fn send(&mut self, split: &Split<'_>, by_text: bool) -> RedisResult<Vec<Reply>> {
        let Split { writes, lookups, kept, reads } = split;
        let binds = writes.iter().filter(|record| matches!(record, Record::Bind(_))).count();
        let stats = &self.shared.stats;
        stats.binds.add(binds as u64);
        stats.unbinds.add((writes.len() - binds) as u64);
        stats.lookups.add(lookups.len() as u64);
        let mut commands: Vec<_> = writes.iter().map(|record| self.keys.write(record, by_text)).collect();
        commands.extend(lookups.iter().map(|&(_, app, user)| self.keys.read_user(app, user)));
        commands.extend(kept.iter().map(|&(_, app, room, entry)| self.streams.add(app, room, entry)));
        commands.extend(reads.iter().map(|&(_, app, room)| self.streams.read(app, room)));
        // A room's time begins again with each of its messages.
        let rooms: BTreeSet<(AppId, RoomId)> = kept.iter().map(|&(_, app, room, _)| (app, room)).collect();
        commands.extend(rooms.iter().map(|&(app, room)| self.streams.expire(app, room)));
        stats.streams.add((kept.len() + reads.len() + rooms.len()) as u64);
        self.link()?.run(&commands)
    }

    fn answer(&mut self, lookups: &[LookUp], found: Vec<Reply>) -> RedisResult<()> {
        let mut answers = Vec::with_capacity(lookups.len());
        for (&(to, app, user), reply) in lookups.iter().zip(found) {
            let fields: Option<BTreeMap<String, String>> = self.accept(reply)?;
            let fields = fields.unwrap_or_default();
            let bindings =
                fields.iter().filter_map(|(device, value)| keys::binding(app, user, device, value));
            answers.push((to, app, user, bindings.collect::<Vec<Binding>>()));
        }
        let now = Instant::now();
        let nodes = answers.iter().flat_map(|(.., bindings)| bindings).map(|binding| binding.shard.node());
        let stale: BTreeSet<u16> = nodes.filter(|node| !self.leases.is_fresh(*node, now)).collect();
        if !stale.is_empty() {
            self.shared.stats.lookups.add(stale.len() as u64);
            self.read_leases(&stale)?;
        }
        for (to, app, user, mut bindings) in answers {
            bindings.retain(|binding| self.leases.holds(binding));
            (self.news)(News::Found { to, app, user, bindings });
        }
        Ok(())
    }

    /// The value of a reply; `None` if only this command was refused, which repeating would not change. If
    /// the server refuses because of its own state, such as while it loads its data, the batch fails and is
    /// tried again.
    fn accept<T: FromRedisValue>(&mut self, reply: Reply) -> RedisResult<Option<T>> {
        match parse(reply) {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_final(&error) => {
                self.shared.stats.errors.add(1);
                self.complain(&format!("Redis refuses a command, or a key has an unexpected value: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Drops the connection; a new one follows after a while.
    fn fail(&mut self, error: &RedisError) {
        self.link = None;
        self.shared.stats.connected.set(0);
        self.shared.stats.errors.add(1);
        self.retry.later();
        self.troubled |= self.complain(&format!("Redis does not answer: {error}"));
    }

    /// Logs trouble, if that is due. Returns whether it did.
    fn complain(&mut self, what: &str) -> bool {
        let now = Instant::now();
        if now < self.log_from {
            return false;
        }
        self.log_from = now + LOG_EVERY;
        let stats = &self.shared.stats;
        let (errors, dropped, queued) = (stats.errors.get(), stats.dropped.get(), stats.queued());
        warn!(errors, dropped, queued, "directory: {what}");
        true
    }

    /// Writes queued records and gives the lease back, as far as Redis answers in time.
    fn farewell(mut self) {
        let deadline = Instant::now() + self.timeout;
        while self.link.is_some() && Instant::now() < deadline {
            self.take_batch();
            if self.batch.is_empty() {
                break;
            }
            if let Err(error) = self.carry() {
                self.fail(&error);
            }
        }
        let command = self.keys.give_lease_back(self.node.id, &self.lease_text);
        if let Ok(link) = self.link()
            && let Err(error) = link.run(&[command])
        {
            self.fail(&error);
        }
        self.shared.stats.connected.set(0);
    }

    fn link(&mut self) -> RedisResult<&mut Link> {
        self.link.as_mut().ok_or_else(|| io::Error::other("not connected").into())
    }
}

/// From, app and user of a [`Record::LookUp`].
type LookUp = (ShardId, AppId, UserId);

/// A batch, split by kind of command.
struct Split<'a> {
    /// One for each device: the last one with the highest stamp.
    writes: Vec<&'a Record>,
    lookups: Vec<LookUp>,
    /// Entries of streams, in order, each with its writer.
    kept: Vec<(ShardId, AppId, RoomId, &'a Entry)>,
    reads: Vec<(ShardId, AppId, RoomId)>,
}

impl<'a> Split<'a> {
    fn new(records: &'a [Record]) -> Self {
        let mut writes: BTreeMap<_, (u64, &Record)> = BTreeMap::new();
        let (mut lookups, mut kept, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for record in records {
            let (app, user, device, login) = match *record {
                Record::Keep { from, app, room, ref entry } => {
                    kept.push((from, app, room, &**entry));
                    continue;
                }
                Record::Read { from, app, room } => {
                    reads.push((from, app, room));
                    continue;
                }
                Record::Bind(Binding { app, user, device, login, .. }) => (app, user, device, login),
                Record::Unbind { app, user, device, login } => (app, user, device, login),
                Record::LookUp { from, app, user } => {
                    lookups.push((from, app, user));
                    continue;
                }
            };
            let held = writes.entry((app, user, device)).or_insert((login, record));
            if login >= held.0 {
                *held = (login, record);
            }
        }
        let writes = writes.into_values().map(|(_, record)| record).collect();
        Self { writes, lookups, kept, reads }
    }
}

/// When to connect again.
struct Retry {
    at: Instant,
    pause: Duration,
    prng: Prng,
}

impl Retry {
    fn new(now: Instant) -> Self {
        let prng = Prng::new(u64::from_ne_bytes(crate::secret::random()));
        Self { at: now, pause: BACK_OFF_MIN, prng }
    }

    /// Waits twice as long each time, and at random between half of that and all of it: nodes do not all come
    /// at once.
    fn later(&mut self) {
        let half = self.pause / 2;
        let jitter = Duration::from_nanos(self.prng.below(half.as_nanos() as u64));
        self.at = Instant::now() + half + jitter;
        self.pause = (self.pause * 2).min(BACK_OFF_MAX);
    }

    fn reset(&mut self) {
        self.pause = BACK_OFF_MIN;
    }
}

/// Whether the error concerns only the one command.
fn is_final(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType)
        || matches!(error.code(), Some("ERR" | "WRONGTYPE" | "NOPERM"))
}

fn parse<T: FromRedisValue>(reply: Reply) -> RedisResult<T> {
    Ok(redis::from_redis_value(reply?)?)
}

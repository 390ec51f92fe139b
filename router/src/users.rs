//! Where the sessions of users are.

use std::collections::BTreeMap;

use shard::ShardId;
use wire::node::{Login, RangeSet, SessionId, range_of, session_digest};
use wire::{AppId, DeviceClass, UserId};

use crate::hash::IdHash;
use crate::known::{Known, Part};
use crate::outbox::Seat;
use crate::stripes::Stripes;

/// The end of a chain. No binding has this index.
const NONE: u32 = u32::MAX;
const CHUNK_BINDINGS: usize = 1024;
/// By how much a newer session's stamp is above that of the session it replaces, at least: about a ms. Each
/// announcement of the older one, which does not know yet that it is kicked, raises its stamp by one.
const RAISE_NS: u64 = 1 << 20;

/// Faster clocks that are taken into account. Nodes whose clocks are right cause no more.
const FORWARDS_MAX: usize = 64;
/// In [`Binding::forwards`]: the clock of its stamp is unknown.
const BY_ANY_CLOCK: u8 = 127;
/// In [`Binding::forwards`]: only the directory knows the session.
const A_GUESS: u8 = 126;
/// A bit beside [`Binding::forwards`]: its gateway shard has yet to say that the session is still there.
const AWAY: u8 = 1 << 7;
const _: () = assert!(FORWARDS_MAX < A_GUESS as usize);

/// The bindings of every user, at most one for each class of device.
///
/// A binding costs 40 bytes, and 6 to 11 in the table that finds a user's first binding; further ones are
/// chained to it. Both grow without copying a binding.
#[derive(Debug)]
pub(crate) struct Users {
    hash: IdHash,
    bindings_max: u32,
    /// One index for each user, of the first binding.
    table: Stripes<u32>,
    bindings: Bindings,
    /// A summary of the bindings of each gateway shard.
    known: Known,
    /// How many bindings only the directory knows.
    guesses: usize,
    /// By how many ns each faster clock that was seen moved the clock of stamps forward, the first
    /// [`FORWARDS_MAX`].
    forwards: Vec<u64>,
    /// The earlier stamps of sessions whose stamps were put above that of an end: the end may belong to a
    /// newer session, which lives.
    ranks: BTreeMap<(AppId, UserId, DeviceClass), Login>,
}

/// A session that is bound, with its stamp.
pub(crate) type Stamped = (AppId, UserId, DeviceClass, Seat, Login);

/// A session that wants to be bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) device: DeviceClass,
    pub(crate) seat: Seat,
    pub(crate) login: Login,
    pub(crate) said_by: SaidBy,
    /// The era (see `Cluster`) in which it comes.
    pub(crate) era: u64,
    /// The highest stamp under which an end on this device was reported: its own must be above.
    pub(crate) ended: Login,
}

/// How a session is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SaidBy {
    /// It has just logged in, so it is newer than whatever is bound.
    Login,
    /// Its gateway announces it to another owner.
    Announcement,
    /// From the directory, which may be behind: the session may have ended since.
    Directory,
}

/// How much of a user is known while gateways change owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// No session is known.
    Unknown,
    /// A session has moved to another owner, and the others follow.
    Leaving,
    /// Sessions that came in this era; others may have yet to be announced.
    InPart,
    /// Sessions that were known when gateways agreed last; at that time all were.
    InFull,
}

/// The result of a bind, with the stamp of the session that is bound afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bound {
    /// The user had no session on that class of device.
    First(Login),
    /// The same session was bound already.
    Again(Login),
    /// The same session was bound, but only the directory knew it.
    Confirmed(Login),
    /// The same session was bound, and was away.
    Back(Login),
    /// This session was bound until now.
    Replaced(Seat, Login),
    /// No change: a newer session is bound.
    Older,
    /// No change: the bound session seems newer, under this stamp, but clocks may be wrong. A login that
    /// comes late may belong to a session that has ended: ask its gateway.
    AskAgain(Login),
    /// A newer session is bound, stamped by a slow clock: this is its stamp from here on.
    Behind(Seat, Login),
    /// No change: there are as many bindings as there may be.
    Full,
}

impl Users {
    pub(crate) fn new(seed: u64, bindings_max: u32) -> Self {
        let bindings = Bindings { chunks: Vec::new(), free: NONE, len: 0 };
        Self {
            hash: IdHash::new(seed),
            bindings_max,
            table: Stripes::new(),
            bindings,
            known: Known::default(),
            guesses: 0,
            forwards: Vec::new(),
            ranks: BTreeMap::new(),
        }
    }

    /// Bindings held.
    pub(crate) fn bindings(&self) -> usize {
        self.bindings.len
    }

    /// Users with a binding.
    pub(crate) fn users(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn bind(&mut self, app: AppId, user: UserId, claim: Claim) -> Bound {
        let Claim { device, seat, login, said_by, era, ended } = claim;
        let (above_end, forwards) = match said_by {
            SaidBy::Login => (Login(ended.0.saturating_add(RAISE_NS)), self.forwards.len() as u8),
            SaidBy::Announcement => (ended.raised(), BY_ANY_CLOCK),
            SaidBy::Directory => (ended, A_GUESS),
        };
        let above_end = if login > ended { login } else { login.max(above_end) };
        let first = self.first(app, user);
        if let Some(at) = self.on_device(first, device) {
            return self.bind_again(at, (app, user, device), claim, (above_end, forwards));
        }
        if self.bindings.len >= self.bindings_max as usize {
            return Bound::Full;
        }
        if said_by == SaidBy::Announcement && above_end > login {
            self.ranks.insert((app, user, device), login);
        }
        let login = above_end;
        let Seat { shard, session } = seat;
        let (next, device) = (NONE, Some(device));
        let mark = mark_of(era);
        let binding = Binding { user, session, login, app, shard, next, mark, device, forwards };
        let at = self.bindings.insert(binding);
        self.enter(at);
        if first == NONE {
            let (hash, bindings) = (self.hash, &self.bindings);
            self.table.insert_unique(hash.of(app, user.0), at, |&at| {
                let binding = bindings.get(at);
                hash.of(binding.app, binding.user.0)
            });
        } else {
            // After the first binding, which the table names.
            let second = std::mem::replace(&mut self.bindings.get_mut(first).next, at);
            self.bindings.get_mut(at).next = second;
        }
        Bound::First(login)
    }

    /// The user has a session on that class of device already: the same, or another.
    fn bind_again(
        &mut self,
        at: u32,
        name: (AppId, UserId, DeviceClass),
        claim: Claim,
        (above_end, forwards): (Login, u8),
    ) -> Bound {
        let Claim { seat, login, said_by, .. } = claim;
        let binding = *self.bindings.get(at);
        let (known, old) = (self.by_fastest_clock(&binding), binding.seat());
        if old == seat {
            let is_news = said_by != SaidBy::Directory && (binding.is_guess() || self.is_away(&binding));
            let login = match said_by {
                SaidBy::Login | SaidBy::Announcement if is_news => above_end,
                SaidBy::Login | SaidBy::Announcement => login,
                // If another owner gave it a stamp meanwhile, that owner has to end it.
                SaidBy::Directory if !binding.is_guess() => binding.login,
                SaidBy::Directory => login,
            };
            let login = binding.login.max(login);
            if login > claim.login && login > binding.login {
                self.ranks.entry(name).or_insert(claim.login.max(binding.login));
            }
            self.change(at, |binding| {
                binding.login = login;
                if is_news {
                    binding.forwards = BY_ANY_CLOCK;
                }
            });
            return match (is_news, binding.is_guess()) {
                (false, _) => Bound::Again(login),
                (true, true) => Bound::Confirmed(login),
                (true, false) => Bound::Back(login),
            };
        }
        if said_by == SaidBy::Login && known > login {
            return Bound::AskAgain(known);
        }
        let is_newer = self.ranks.get(&name).is_some_and(|rank| *rank < login);
        if known > login && !is_newer {
            if binding.login > login {
                return Bound::Older;
            }
            let away = binding.forwards & AWAY;
            self.change(at, |binding| (binding.login, binding.forwards) = (known, BY_ANY_CLOCK | away));
            return Bound::Behind(old, known);
        }
        let rank = self.ranks.remove(&name).map(|_| login);
        let login = login.max(Login(binding.login.0.saturating_add(RAISE_NS)));
        if let Some(rank) = rank.filter(|rank| *rank < login) {
            self.ranks.insert(name, rank);
        }
        self.change(at, |binding| {
            (binding.shard, binding.session, binding.login) = (seat.shard, seat.session, login);
            binding.forwards = forwards;
        });
        Bound::Replaced(old, login)
    }

    /// Changes a binding, and the summary of its shard with it.
    fn change(&mut self, at: u32, change: impl FnOnce(&mut Binding)) {
        self.exit(at);
        change(self.bindings.get_mut(at));
        self.enter(at);
    }

    fn enter(&mut self, at: u32) {
        let binding = self.bindings.get(at);
        self.guesses += usize::from(binding.is_guess());
        self.known.enter(binding.shard, binding.part());
    }

    fn exit(&mut self, at: u32) {
        let binding = self.bindings.get(at);
        self.guesses -= usize::from(binding.is_guess());
        self.known.exit(binding.shard, binding.part());
    }

    /// Whether the gateway shard of a session has yet to say that it is still there.
    fn is_away(&self, binding: &Binding) -> bool {
        binding.forwards & AWAY != 0 || self.known.is_away(binding.shard)
    }

    /// The summaries of the bindings of each gateway shard.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// The link with a gateway shard was lost: its sessions are away until they are resumed. False when it
    /// has none.
    pub(crate) fn suspend(&mut self, shard: ShardId) -> bool {
        self.known.set_away(shard, true)
    }

    /// A gateway shard says which ranges of its sessions are as they are known here. The sessions of the
    /// others stay away, each marked. If other owners have known sessions meanwhile, raises the stamps of
    /// those that are back, and returns these.
    pub(crate) fn resume(&mut self, shard: ShardId, unchanged: &RangeSet, moved: bool) -> Vec<Stamped> {
        let is_whole = self.known.is_within(shard, unchanged) && !self.known.has_marked(shard);
        let are_all_away = self.known.is_away(shard);
        self.known.set_away(shard, false);
        let mut stamped = Vec::new();
        if is_whole && !moved {
            return stamped;
        }
        for at in 0..self.places() {
            let binding = self.bindings.get(at);
            let Some(device) = binding.device.filter(|_| binding.shard == shard && !binding.is_guess())
            else {
                continue;
            };
            let is_back = unchanged.contains(range_of(binding.app, binding.user));
            self.change(at, |binding| {
                if is_back {
                    binding.forwards &= !AWAY;
                } else if are_all_away {
                    binding.forwards |= AWAY;
                }
                if is_back && moved {
                    binding.login = binding.login.raised();
                }
            });
            if is_back && moved {
                let binding = self.bindings.get(at);
                stamped.push((binding.app, binding.user, device, binding.seat(), binding.login));
            }
        }
        stamped
    }

    /// From now on only the marked sessions of a shard are away.
    pub(crate) fn end_suspension(&mut self, shard: ShardId) {
        self.known.set_away(shard, false);
    }

    /// The sessions of a user on one shard that are away.
    pub(crate) fn away_of(&self, app: AppId, user: UserId, shard: ShardId) -> Vec<Seat> {
        let bound = self.chain(self.first(app, user)).map(|at| self.bindings.get(at));
        bound.filter(|it| it.shard == shard && self.is_away(it)).map(Binding::seat).collect()
    }

    /// Whether some session of a user is away, as all of its shard are.
    pub(crate) fn has_away(&self, app: AppId, user: UserId) -> bool {
        self.known.are_some_away()
            && self.chain(self.first(app, user)).any(|at| self.is_away(self.bindings.get(at)))
    }

    /// Removes a session that is away if it is of that shard and ended under that stamp: its shard has told
    /// of it.
    pub(crate) fn end_away(
        &mut self,
        (app, user, device): (AppId, UserId, DeviceClass),
        shard: ShardId,
        ended: Login,
    ) -> bool {
        let first = self.first(app, user);
        let is_it = |at: &u32| {
            let binding = self.bindings.get(*at);
            binding.shard == shard && binding.login <= ended && self.is_away(binding)
        };
        let Some(at) = self.on_device(first, device).filter(is_it) else { return false };
        self.remove(at, first);
        true
    }

    /// The sessions of a shard that are away, in the order of their places. If there are any, this walks over
    /// all bindings.
    pub(crate) fn away_on(&self, shard: ShardId) -> Vec<(AppId, UserId, DeviceClass, Seat)> {
        if !self.known.is_away(shard) && !self.known.has_marked(shard) {
            return Vec::new();
        }
        let bound = self.bindings.chunks.iter().flatten();
        let away = bound.filter(|binding| binding.shard == shard && self.is_away(binding));
        away.filter_map(|it| Some((it.app, it.user, it.device?, it.seat()))).collect()
    }

    fn places(&self) -> u32 {
        (self.bindings.chunks.len() * CHUNK_BINDINGS) as u32
    }

    /// Notes that a faster clock was seen: earlier logins got stamps of a clock that was this far behind.
    pub(crate) fn put_forward(&mut self, by_ns: u64) {
        if self.forwards.len() < FORWARDS_MAX {
            self.forwards.push(Login(by_ns.saturating_sub(1)).raised().0);
        }
    }

    /// What the stamp of a login would be by the fastest clock that is known now.
    fn by_fastest_clock(&self, binding: &Binding) -> Login {
        let since = self.forwards.get(usize::from(binding.forwards & !AWAY)..).unwrap_or_default();
        Login(since.iter().fold(binding.login.0, |login, by_ns| login.saturating_add(*by_ns)))
    }

    /// Stamps `count` places from `from` on again, where a slow clock stamped a login, and returns those with
    /// their stamps. `None` after the last place.
    pub(crate) fn stamp_again(&mut self, from: u32, count: u32) -> Option<Vec<Stamped>> {
        let places = self.places();
        let mut stamped = Vec::new();
        for at in from..places.min(from + count) {
            let binding = self.bindings.get(at);
            let (login, Some(device)) = (self.by_fastest_clock(binding), binding.device) else { continue };
            if login != binding.login {
                let forwards = self.forwards.len() as u8 | binding.forwards & AWAY;
                stamped.push((binding.app, binding.user, device, binding.seat(), login));
                self.change(at, |binding| (binding.login, binding.forwards) = (login, forwards));
            }
        }
        (from < places).then_some(stamped)
    }

    /// Puts the stamp of the bound session above that of an end. Returns the session and its stamp, if it was
    /// not above.
    pub(crate) fn raise(
        &mut self,
        app: AppId,
        user: UserId,
        device: DeviceClass,
        ended: Login,
    ) -> Option<(Seat, Login)> {
        let at = self.on_device(self.first(app, user), device)?;
        let binding = self.bindings.get(at);
        if binding.login > ended || binding.is_guess() {
            return None;
        }
        let seat = binding.seat();
        self.ranks.entry((app, user, device)).or_insert(binding.login);
        self.change(at, |binding| binding.login = ended.raised());
        Some((seat, ended.raised()))
    }

    /// Removes the binding if it is that session's. Returns its stamp, and whether only the directory knew
    /// it.
    pub(crate) fn unbind(
        &mut self,
        app: AppId,
        user: UserId,
        device: DeviceClass,
        seat: Seat,
    ) -> Option<(Login, bool)> {
        let first = self.first(app, user);
        let own = |&at: &u32| self.bindings.get(at).seat() == seat;
        let at = self.on_device(first, device).filter(own)?;
        let binding = self.bindings.get(at);
        let (login, is_guess) = (binding.login, binding.is_guess());
        self.remove(at, first);
        Some((login, is_guess))
    }

    /// How much of a user is known in an era of agreement.
    pub(crate) fn standing(&self, app: AppId, user: UserId, era: u64) -> Standing {
        let mark = mark_of(era);
        let (mut standing, mut some_are_away) = (Standing::Unknown, false);
        for binding in self.chain(self.first(app, user)).map(|at| self.bindings.get(at)) {
            match binding.mark {
                _ if self.is_away(binding) => some_are_away = true,
                known if known == mark | LEAVES => return Standing::Leaving,
                known if known != mark => standing = Standing::InFull,
                _ if standing == Standing::Unknown => standing = Standing::InPart,
                _ => {}
            }
        }
        if some_are_away && standing == Standing::InFull { Standing::InPart } else { standing }
    }

    /// Notes that a session of a user moved to another owner, and that the others follow in this era.
    pub(crate) fn begin_to_leave(&mut self, app: AppId, user: UserId, era: u64) {
        let mut at = self.first(app, user);
        while at != NONE {
            let binding = self.bindings.get_mut(at);
            binding.mark = mark_of(era) | LEAVES;
            at = binding.next;
        }
    }

    /// The sessions that no gateway has announced, in the order of their places. If there are any, this walks
    /// over all bindings.
    pub(crate) fn guesses(&self) -> Vec<(AppId, UserId, DeviceClass, Seat)> {
        if self.guesses == 0 {
            return Vec::new();
        }
        let guessed = self.bindings.chunks.iter().flatten().filter(|binding| binding.is_guess());
        guessed
            .filter_map(|binding| Some((binding.app, binding.user, binding.device?, binding.seat())))
            .collect()
    }

    /// The bindings of `count` places from `from` on, each with whether only the directory knows it; `None`
    /// after the last place.
    pub(crate) fn in_places(
        &self,
        from: u32,
        count: u32,
    ) -> Option<impl Iterator<Item = (AppId, UserId, DeviceClass, Seat, Login, bool)> + '_> {
        let places = self.places();
        let bound = (from..places.min(from + count)).map(|at| self.bindings.get(at));
        let it =
            bound.filter_map(|it| Some((it.app, it.user, it.device?, it.seat(), it.login, it.is_guess())));
        (from < places).then_some(it)
    }

    /// The sessions of a user that are not away, one for each class of device, in unspecified order.
    pub(crate) fn of(
        &self,
        app: AppId,
        user: UserId,
    ) -> impl Iterator<Item = (DeviceClass, Seat, Login)> + '_ {
        let bound = self.chain(self.first(app, user)).map(|at| self.bindings.get(at));
        bound.filter(|binding| !self.is_away(binding)).map(|binding| {
            let device = binding.device.expect("a binding in a chain has a device");
            (device, binding.seat(), binding.login)
        })
    }

    fn first(&self, app: AppId, user: UserId) -> u32 {
        let is = |&at: &u32| self.bindings.get(at).is(app, user);
        self.table.find(self.hash.of(app, user.0), is).copied().unwrap_or(NONE)
    }

    /// The indexes of a chain. Short: no chain has more bindings than there are classes of device.
    fn chain(&self, first: u32) -> impl Iterator<Item = u32> + use<'_> {
        let some = |at: u32| (at != NONE).then_some(at);
        std::iter::successors(some(first), move |&at| some(self.bindings.get(at).next))
    }

    /// The binding for a class of device in the chain from `first`.
    fn on_device(&self, first: u32, device: DeviceClass) -> Option<u32> {
        self.chain(first).find(|&at| self.bindings.get(at).device == Some(device))
    }

    /// Removes the binding at `at`, which is in the chain from `first`.
    fn remove(&mut self, at: u32, first: u32) {
        self.exit(at);
        let binding = *self.bindings.get(at);
        if let Some(device) = binding.device {
            self.ranks.remove(&(binding.app, binding.user, device));
        }
        if at != first {
            let previous = self.chain(first).find(|&before| self.bindings.get(before).next == at);
            let previous = previous.expect("one stands before every binding but the first");
            self.bindings.get_mut(previous).next = binding.next;
            self.bindings.remove(at);
        } else if binding.next != NONE {
            // The second moves to the first's place, so that the table stays as it is.
            *self.bindings.get_mut(at) = *self.bindings.get(binding.next);
            self.bindings.remove(binding.next);
        } else {
            let hash = self.hash.of(binding.app, binding.user.0);
            let removed = self.table.remove(hash, |&known| known == at);
            assert_eq!(removed, Some(at), "the table names the first binding of each user");
            self.bindings.remove(at);
        }
    }

    pub(crate) fn check_invariants(&self) {
        let mut in_chains = 0;
        for &first in self.table.iter() {
            let Binding { app, user, .. } = *self.bindings.get(first);
            assert_eq!(self.first(app, user), first, "a user is found under its name");
            let mut devices = Vec::new();
            for at in self.chain(first) {
                let binding = self.bindings.get(at);
                assert!(binding.is(app, user), "a chain is of one user");
                devices.push(binding.device.expect("a binding in a chain has a device"));
                assert!(devices.len() <= DeviceClass::ALL.len(), "a chain ends");
            }
            in_chains += devices.len();
            devices.sort_unstable();
            assert!(devices.is_sorted_by(|a, b| a < b), "a class of device stands once");
        }
        assert_eq!(in_chains, self.bindings.len, "every binding is in a chain");
        for ((app, user, device), rank) in &self.ranks {
            let at = self.on_device(self.first(*app, *user), *device);
            let login = at.map(|at| self.bindings.get(at).login);
            assert!(login.is_some_and(|login| *rank < login), "a rank is below the stamp of a session");
        }
        let guesses = self.bindings.chunks.iter().flatten().filter(|binding| binding.is_guess());
        assert_eq!(guesses.count(), self.guesses);
        let bound = self.bindings.chunks.iter().flatten().filter(|binding| binding.device.is_some());
        self.known.check_invariants(bound.map(|binding| (binding.shard, binding.part())));
        assert!(self.bindings.len <= self.bindings_max as usize);
        self.bindings.check_invariants();
    }
}

/// The binding of one session, or a free place.
#[derive(Clone, Copy, Debug)]
struct Binding {
    user: UserId,
    session: SessionId,
    login: Login,
    app: AppId,
    shard: ShardId,
    /// The next binding of the same user, or the next free place.
    next: u32,
    /// The era in which it came, and whether it is to leave in that era; see [`mark_of`].
    mark: u16,
    /// `None` marks a free place.
    device: Option<DeviceClass>,
    /// How many faster clocks had been seen when it logged in here; or [`BY_ANY_CLOCK`], or [`A_GUESS`]. And
    /// whether it is [`AWAY`].
    forwards: u8,
}

const _: () = assert!(size_of::<Binding>() == 40, "a million users are what this is laid out for");

impl Binding {
    const FREE: Binding = Binding {
        user: UserId(0),
        session: SessionId(0),
        login: Login(0),
        app: AppId(0),
        shard: ShardId::CONTROL,
        next: NONE,
        mark: 0,
        device: None,
        forwards: BY_ANY_CLOCK,
    };

    fn is(&self, app: AppId, user: UserId) -> bool {
        self.user == user && self.app == app
    }

    /// Whether only the directory knows it.
    fn is_guess(&self) -> bool {
        self.forwards & !AWAY == A_GUESS
    }

    /// What it adds to the summary of its shard.
    fn part(&self) -> Part {
        let Self { app, user, device, session, login, .. } = *self;
        let digest = device.filter(|_| !self.is_guess());
        Part {
            range: range_of(app, user),
            digest: digest.map_or(0, |device| session_digest(app, user, device, session, login)),
            is_marked: self.forwards & AWAY != 0,
        }
    }

    fn seat(&self) -> Seat {
        Seat { shard: self.shard, session: self.session }
    }
}

/// In a binding's mark: its user leaves.
const LEAVES: u16 = 1;

/// The mark of an era. It repeats after 2^15 eras: a session that is that old then counts as
/// one of a user known in part for a while, which costs a little time.
fn mark_of(era: u64) -> u16 {
    (era as u16) << 1
}

/// Bindings by index, in chunks, so that growing copies none. [`shard::Slab`] would cost 8 bytes more for
/// each, for generations that nothing here needs: indexes never leave this file.
#[derive(Debug)]
struct Bindings {
    chunks: Vec<Box<[Binding]>>,
    free: u32,
    len: usize,
}

impl Bindings {
    fn get(&self, at: u32) -> &Binding {
        &self.chunks[at as usize / CHUNK_BINDINGS][at as usize % CHUNK_BINDINGS]
    }

    fn get_mut(&mut self, at: u32) -> &mut Binding {
        &mut self.chunks[at as usize / CHUNK_BINDINGS][at as usize % CHUNK_BINDINGS]
    }

    fn insert(&mut self, binding: Binding) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        let at = self.free;
        let place = self.get_mut(at);
        let free = std::mem::replace(place, binding).next;
        self.free = free;
        self.len += 1;
        at
    }

    fn remove(&mut self, at: u32) {
        let free = self.free;
        *self.get_mut(at) = Binding { next: free, ..Binding::FREE };
        self.free = at;
        self.len -= 1;
    }

    /// Adds a chunk of free places, the lowest index first in the list.
    fn grow(&mut self) {
        let base = self.chunks.len() * CHUNK_BINDINGS;
        let place = |offset: usize| {
            let next = if offset + 1 < CHUNK_BINDINGS { (base + offset + 1) as u32 } else { NONE };
            Binding { next, ..Binding::FREE }
        };
        self.chunks.push((0..CHUNK_BINDINGS).map(place).collect());
        self.free = base as u32;
    }

    fn check_invariants(&self) {
        let places = self.chunks.len() * CHUNK_BINDINGS;
        let mut free = 0;
        let mut at = self.free;
        while at != NONE {
            assert!(self.get(at).device.is_none(), "the free list holds free places only");
            free += 1;
            assert!(free <= places, "the free list ends");
            at = self.get(at).next;
        }
        assert_eq!(free + self.len, places, "every place is free or taken");
    }
}

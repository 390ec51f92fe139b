use shard::{Instant, Wheel};

use super::*;
use crate::admission::Addresses;
use crate::latency::Latency;

const WINDOW: u16 = 2;

struct Fixture {
    outbox: Outbox,
    wheel: Wheel<u64>,
}

impl Fixture {
    fn new() -> Self {
        Self { outbox: Outbox::default(), wheel: Wheel::new(Instant::default()) }
    }

    fn reliable(&mut self, id: u64, frame: &'static str) -> Result<(), (Bytes, Owed)> {
        let owed = Owed::Router { router: ShardId::new(0, 0), delivery: DeliveryId(id) };
        let message = Reliable { id: MessageId(id), frame: frame.into(), owed, since: Stamp::default() };
        self.outbox.push_reliable(message, 4, 1 << 20)
    }

    fn lossy(&mut self, frame: &'static str, bytes_max: usize) -> u64 {
        self.outbox.push_lossy(frame.into(), 1, None, bytes_max)
    }

    fn fill(&mut self) -> String {
        let mut batch = SendBatch::new();
        let Self { outbox, wheel } = self;
        let could = outbox.dirt(WINDOW) > Dirt::None;
        let written = Written { now: Stamp::default(), latency: &mut Latency::default() };
        outbox.fill(&mut batch, WINDOW, written, |key| wheel.arm(Instant::default(), u64::from(key)));
        assert_eq!(could, !batch.is_empty(), "dirt says what fill does");
        outbox.check_invariants();
        String::from_utf8(batch.segments().flatten().copied().collect()).unwrap()
    }
}

#[test]
fn answers_come_first_and_the_lanes_keep_their_common_order() {
    let mut it = Fixture::new();
    it.lossy("a", 999);
    it.reliable(1, "b").unwrap();
    it.lossy("c", 999);
    assert!(it.outbox.push_control(99, |control| control.extend_from_slice(b"!")));
    assert_eq!(it.fill(), "!abc");
    assert_eq!(it.fill(), "");
    assert!(!it.outbox.is_idle(), "b waits for its ack");
    assert!(it.outbox.ack(MessageId(1)).is_some());
    assert!(it.outbox.is_idle());
}

#[test]
fn a_full_window_holds_back_what_came_later_until_an_ack() {
    let mut it = Fixture::new();
    for (id, frame) in [(1, "1"), (2, "2"), (3, "3")] {
        it.reliable(id, frame).unwrap();
    }
    it.lossy("x", 999);
    assert_eq!(it.fill(), "12");
    assert_eq!(it.fill(), "");
    assert!(it.outbox.ack(MessageId(2)).is_some());
    assert!(it.outbox.ack(MessageId(2)).is_none(), "an ack ends one flight");
    assert_eq!(it.fill(), "3x");
}

#[test]
fn the_lossy_lane_drops_its_oldest() {
    let mut it = Fixture::new();
    assert_eq!(it.lossy("11", 6 + 2 * ENTRY_BYTES), 0);
    assert_eq!(it.lossy("22", 6 + 2 * ENTRY_BYTES), 0);
    assert_eq!(it.lossy("3333", 6 + 2 * ENTRY_BYTES), 1);
    assert_eq!(it.fill(), "223333");
}

#[test]
fn the_reliable_lane_refuses_what_goes_over_its_bound() {
    let mut it = Fixture::new();
    for id in 1..=4 {
        it.reliable(id, "m").unwrap();
    }
    it.fill();
    assert!(it.reliable(5, "m").is_err(), "flights count too");
    assert!(it.outbox.ack(MessageId(1)).is_some());
    assert!(it.reliable(5, "m").is_ok());
}

#[test]
fn the_oldest_that_was_never_written_gives_way() {
    const M: usize = 1 + ENTRY_BYTES;
    let mut it = Fixture::new();
    for id in 1..=4 {
        it.reliable(id, "m").unwrap();
    }
    it.fill();
    let mut id_that_gives_way = || match it.outbox.give_way(M, 5 * M) {
        Some(Owed::Router { delivery, .. }) => Some(delivery.0),
        _ => None,
    };
    assert_eq!((id_that_gives_way(), id_that_gives_way()), (Some(3), Some(4)), "1 and 2 are in flight");
    assert_eq!(id_that_gives_way(), None);
    it.outbox.check_invariants();
    it.reliable(5, "m").unwrap();
    assert!(it.outbox.give_way(4 * M, 5 * M).is_none(), "there would be no room all the same");
}

#[test]
fn an_empty_lane_takes_what_is_longer_than_its_bound() {
    let mut it = Fixture::new();
    let message = |id, frame: &'static str| Reliable {
        id: MessageId(id),
        frame: frame.into(),
        owed: Owed::Routers(Vec::new()),
        since: Stamp::default(),
    };
    assert!(it.outbox.push_reliable(message(1, "long"), 4, 3).is_ok());
    assert!(it.outbox.push_reliable(message(2, "m"), 4, 3).is_err());
}

#[test]
fn a_peer_stalls_once_nothing_found_room_for_long_and_an_ack_ends_that() {
    const PATIENCE: Duration = Duration::from_secs(3);
    let at = |ms: u64| Instant::from_unix_nanos((1_000 + ms) * 1_000_000);
    let mut it = Fixture::new();
    it.reliable(1, "m").unwrap();
    it.fill();
    assert!(!it.outbox.stall(at(0), PATIENCE));
    assert!(!it.outbox.stall(at(1_000), PATIENCE));
    assert!(!it.outbox.stall(at(2_000), PATIENCE));
    assert!(it.outbox.stall(at(3_000), PATIENCE));
    it.outbox.ack(MessageId(1));
    assert!(!it.outbox.stall(at(4_000), PATIENCE), "it reads");
    assert!(!it.outbox.stall(at(60_000), PATIENCE), "nobody looked in between: a step counts");
    assert!(!it.outbox.stall(at(61_000), PATIENCE));
    assert!(it.outbox.stall(at(62_000), PATIENCE));
}

#[test]
fn a_try_that_finds_no_room_is_a_try() {
    let mut it = Fixture::new();
    it.reliable(1, "m").unwrap();
    it.fill();
    it.outbox.push_control(1, |control| control.resize(RETRY_BYTES_MAX + 1, 0));
    assert!(matches!(it.outbox.retry(0, 2), Retry::Later(_)));
    assert!(matches!(it.outbox.retry(0, 2), Retry::Exhausted(_)), "it steps aside though nothing is read");
}

/// The addresses of so many clients.
fn addresses<const N: usize>() -> [AddressId; N] {
    let mut addresses = Addresses::new(1);
    std::array::from_fn(|at| addresses.enter([127, 0, 0, at as u8].into()).0)
}

fn owner(index: usize, address: AddressId) -> Owner {
    Owner { conn: ConnId { index: index as u32, generation: 0 }, address }
}

/// Fills outboxes, each as far as its share lets it; one that has more than that gives it up.
fn fill(outboxes: &mut Outboxes, limits: &Limits, addresses: &[AddressId]) {
    let mut ids = vec![OutboxId::NONE; addresses.len()];
    for _ in 0..200 {
        for (at, address) in addresses.iter().enumerate() {
            if let Some(greedy) = outboxes.next_greedy(limits) {
                let id = &mut ids[greedy.conn.index as usize];
                let share = outboxes.share(limits, *id, greedy.address);
                outboxes.update(greedy, id, |outbox| outbox.drop_lossy(share));
            }
            let share = outboxes.share(limits, ids[at], *address);
            let frames = vec![0; 100].into();
            outboxes.update(owner(at, *address), &mut ids[at], |outbox| {
                outbox.push_lossy(frames, 1, None, share)
            });
        }
    }
}

#[test]
fn the_share_of_one_outbox_shrinks_with_what_is_free() {
    let limits = Limits { outbox_bytes_max: 1_600_000, ..Limits::default() };
    let mut outboxes = Outboxes::default();
    let all = addresses::<101>();
    assert_eq!(outboxes.share(&limits, OutboxId::NONE, all[0]), 100_000);
    fill(&mut outboxes, &limits, &all[..100]);
    let left = outboxes.share(&limits, OutboxId::NONE, all[100]);
    assert!((5_000..20_000).contains(&left), "a hundred of them leave something: {left}");
    assert!(outboxes.bytes() < 1_600_000);
    outboxes.check_invariants(100);
}

/// However many connections one address has.
#[test]
fn the_connections_of_one_address_leave_something_to_others() {
    let limits = Limits { outbox_bytes_max: 1_600_000, ..Limits::default() };
    let mut outboxes = Outboxes::default();
    let [greedy, other] = addresses();
    fill(&mut outboxes, &limits, &[greedy; 400]);
    let left = [other, greedy].map(|address| outboxes.share(&limits, OutboxId::NONE, address));
    assert!(left[0] > 20_000 && left[1] > 1_000, "{left:?} of {}", outboxes.bytes());
    outboxes.check_invariants(400);
}

/// A proxy may name the client when something waits for it already.
#[test]
fn what_waits_goes_along_when_a_connection_turns_out_to_be_from_elsewhere() {
    let limits = Limits { outbox_bytes_max: 1_000, ..Limits::default() };
    let (mut outboxes, mut id) = (Outboxes::default(), OutboxId::NONE);
    let [proxy, client] = addresses();
    outboxes.set_address(id, proxy, client);
    outboxes.update(owner(0, proxy), &mut id, |outbox| outbox.push_lossy(vec![0; 900].into(), 1, None, 900));
    outboxes.set_address(id, proxy, client);
    outboxes.check_invariants(1);
    assert_eq!(outboxes.next_greedy(&limits), Some(owner(0, client)));
}

/// Of 100,000 answers that wait, none is walked over for each message that is dropped.
#[test]
fn answers_in_order_do_not_stand_in_the_way_of_what_is_dropped() {
    let mut it = Fixture::new();
    it.lossy("a", 2 + 2 * ENTRY_BYTES);
    for _ in 0..3 {
        assert!(it.outbox.push_in_order("?".into(), 10_000));
    }
    it.lossy("b", 2 + 2 * ENTRY_BYTES);
    assert_eq!(it.lossy("c", 2 + 2 * ENTRY_BYTES), 1);
    assert_eq!(it.fill(), "???bc");
    assert!(it.outbox.is_idle());
    it.outbox.check_invariants();
    let taken = (0..).take_while(|_| it.outbox.push_in_order("?".into(), 10 * (1 + ENTRY_BYTES))).count();
    assert_eq!(taken, 11, "each counts for what keeps it");
}

#[test]
fn a_flight_is_repeated_and_then_given_back() {
    let mut it = Fixture::new();
    it.reliable(1, "m").unwrap();
    assert_eq!(it.fill(), "m");
    assert!(matches!(it.outbox.retry(0, 2), Retry::Again(_)));
    assert_eq!(it.fill(), "m");
    assert!(matches!(it.outbox.retry(0, 2), Retry::Exhausted(_)));
    assert!(matches!(it.outbox.retry(0, 2), Retry::Gone));
    assert!(it.outbox.is_idle());
}

#[test]
fn a_batch_stops_when_it_is_full() {
    let mut it = Fixture::new();
    let large: &'static str = Box::leak("L".repeat(shard::SEND_BATCH_BYTES_MAX).into_boxed_str());
    it.lossy(large, usize::MAX);
    it.lossy("rest", usize::MAX);
    assert_eq!(it.fill().len(), large.len());
    assert_eq!(it.fill(), "rest");
}

#[test]
fn abandoning_tells_every_debt_once() {
    let mut it = Fixture::new();
    for id in 1..=3 {
        it.reliable(id, "m").unwrap();
    }
    it.lossy("x", 999);
    it.fill();
    let mut told = Vec::new();
    it.outbox.abandon(|owed, timer| match owed {
        Owed::Router { delivery, .. } => told.push((delivery.0, timer.is_some())),
        Owed::Routers(_) | Owed::Bridge(_) | Owed::Nobody => unreachable!("none was pushed"),
    });
    assert_eq!(told, [(1, true), (2, true), (3, false)]);
    assert!(it.outbox.is_idle());
}

#[test]
fn a_pooled_outbox_is_reused_and_bytes_are_counted() {
    let mut outboxes = Outboxes::default();
    let [address] = addresses();
    let mut one = OutboxId::NONE;
    outboxes.update(owner(0, address), &mut one, |outbox| outbox.push_lossy("abc".into(), 1, None, 999));
    assert_eq!(outboxes.bytes(), 3 + ENTRY_BYTES as u64);
    outboxes.check_invariants(1);
    let mut batch = SendBatch::new();
    let mut latency = Latency::default();
    let written = Written { now: Stamp::default(), latency: &mut latency };
    outboxes.update(owner(0, address), &mut one, |outbox| {
        outbox.fill(&mut batch, WINDOW, written, |_| unreachable!("lossy flies without"));
    });
    outboxes.release(&mut one);
    assert_eq!((outboxes.bytes(), one), (0, OutboxId::NONE));
    let mut two = OutboxId::NONE;
    outboxes.open(&mut two);
    assert_eq!(two, OutboxId(0), "the pool gave it out again");
}

#[test]
fn stamps_are_compared_across_the_wrap() {
    assert!(is_before(u32::MAX, 0));
    assert!(!is_before(0, u32::MAX));
    assert!(is_before(7, 8));
}

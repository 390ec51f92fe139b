//! What gateways write to clients and read from them, beside what they promise of it: the tries, the times
//! and the window.

use std::collections::BTreeMap;

use shard::Instant;
use wire::client::{ClientFrame, Deframer, ServerFrame};

use crate::host::{ACK_MS, FLIGHT_MS, FRAME_BYTES_MAX, TRIES, WINDOW};
use crate::network::TcpId;

/// By connection, what its gateway has in flight.
#[derive(Default)]
pub(crate) struct Flights {
    conns: BTreeMap<TcpId, Conn>,
}

#[derive(Default)]
struct Conn {
    written: Deframer,
    read: Deframer,
    /// Batches written.
    batches: u64,
    flights: BTreeMap<Name, Flight>,
    /// Those that may not be over, in the order in which they began.
    flying: Vec<Name>,
    /// Rooms whose joins were answered, and whether one of them gave messages of a room that it was in: what
    /// it had may be written anew, beside its own tries.
    rooms: BTreeMap<i64, bool>,
}

/// A message's id, and its place if it is a room's: another owner may give it another place, and then it is
/// in flight by itself. An ack has the id alone, and ends the flight that began first.
type Name = (u64, u64);

struct Flight {
    /// By the clock of its shard.
    first: Instant,
    copies: u32,
    /// Which batch was the last when its ack was read.
    acked_in: Option<u64>,
    /// It came again after a join, maybe beside its first flight: whose copies these are, and when which of
    /// both ends, cannot be told.
    is_given_again: bool,
}

impl Flight {
    fn is_over(&self, now: Instant) -> bool {
        self.acked_in.is_some() || now.since(self.first).as_millis() >= FLIGHT_MS.into()
    }
}

impl Flights {
    /// A gateway writes a batch. With `is_moving`, owners change, and the next one may give a message again
    /// that has ended here.
    pub(crate) fn written(
        &mut self,
        now: Instant,
        tcp: TcpId,
        mut bytes: &[u8],
        is_moving: impl Fn(Instant) -> bool,
    ) -> Result<(), String> {
        let conn = self.conns.entry(tcp).or_default();
        conn.batches += 1;
        while let Ok(Some(frame)) = conn.written.next(&mut bytes, FRAME_BYTES_MAX) {
            let message = match ServerFrame::decode(&frame) {
                Ok(ServerFrame::Deliver(message)) => message,
                Ok(ServerFrame::Joined { room, recovery, .. }) => {
                    let known = conn.rooms.get(&room.0).copied();
                    let gives_again = known.is_some_and(|gives| gives || recovery.is_some());
                    conn.rooms.insert(room.0, gives_again);
                    continue;
                }
                _ => continue,
            };
            if !message.ack_wanted {
                continue;
            }
            let (id, name) = (message.id.0, (message.id.0, message.sequence));
            let anew = Flight { first: now, copies: 0, acked_in: None, is_given_again: false };
            let flight = conn.flights.entry(name).or_insert(anew);
            if !conn.flying.contains(&name) {
                conn.flying.push(name);
            }
            // What waited behind the batch under way at the ack goes out with the next one.
            let is_acked = flight.acked_in.is_some_and(|batch| conn.batches > batch + 1);
            let (since_ms, copies) = (now.since(flight.first).as_millis(), flight.copies);
            let is_early = copies > 0 && since_ms < (ACK_MS * ((1 << copies.min(8)) - 1)).into();
            if is_acked || copies >= TRIES || is_early {
                // What is under way already is not given twice.
                let has_ended = flight.acked_in.is_some() || copies >= TRIES;
                let is_given_again = message.room.is_some_and(|room| conn.rooms.get(&room.0) == Some(&true));
                if !(is_given_again || has_ended && is_moving(flight.first)) {
                    return Err(format!(
                        "tcp {tcp}: {id:#x} is written for the {}th time after {since_ms} ms, acked: {is_acked}",
                        copies + 1
                    ));
                }
                *flight = Flight { first: now, copies: 0, acked_in: None, is_given_again };
            }
            flight.copies += 1;
        }
        conn.flying.retain(|name| conn.flights.get(name).is_some_and(|flight| !flight.is_over(now)));
        let is_told = |name: &&Name| conn.flights.get(name).is_some_and(|flight| !flight.is_given_again);
        let flying: Vec<&Name> = conn.flying.iter().filter(is_told).collect();
        if flying.len() > WINDOW {
            return Err(format!("tcp {tcp}: {} messages are in flight: {flying:x?}", flying.len()));
        }
        Ok(())
    }

    /// A gateway reads bytes of a client.
    pub(crate) fn read(&mut self, now: Instant, tcp: TcpId, mut bytes: &[u8]) {
        let conn = self.conns.entry(tcp).or_default();
        while let Ok(Some(frame)) = conn.read.next(&mut bytes, FRAME_BYTES_MAX) {
            let Ok(ClientFrame::Ack(ids)) = ClientFrame::decode(&frame) else { continue };
            for id in ids.iter() {
                let named = conn.flying.iter().filter(|(of, _)| *of == id.0);
                let mut flying =
                    named.filter(|name| conn.flights.get(name).is_some_and(|flight| !flight.is_over(now)));
                if let Some(flight) = flying.next().and_then(|name| conn.flights.get_mut(name)) {
                    flight.acked_in = Some(conn.batches);
                }
            }
        }
    }

    pub(crate) fn closed(&mut self, tcp: TcpId) {
        self.conns.remove(&tcp);
    }
}

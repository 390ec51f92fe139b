//! Reads along on links, for a run that is read.

use std::collections::BTreeMap;

use shard::ShardId;
use wire::node::decode_batch;
use wire::node::link::{BODY_BYTES_MAX, Deframer, Frame};

use crate::host::EPOCH_NS;
use crate::network::{Owner, Side, TcpId};
use crate::world::World;

/// What has been read of each direction of a link.
#[derive(Default)]
pub(crate) struct Taps {
    deframers: BTreeMap<(TcpId, Side), Deframer>,
}

impl World {
    /// Says the messages in bytes that arrive at an end of a link.
    pub(crate) fn tap(&mut self, tcp: TcpId, to: Side, bytes: &[u8]) {
        if !self.trace.is_read() || !self.is_link(tcp) || self.is_sealed(tcp) {
            return;
        }
        let name = |owner| match owner {
            Owner::Shard { shard, .. } => shard,
            Owner::Client { .. } => ShardId::CONTROL,
        };
        let [from, at] = [to.other(), to].map(|side| name(self.network.end(tcp, side).owner));
        let (mut lines, now_ns) = (Vec::new(), EPOCH_NS + self.now);
        let deframer = self.taps.deframers.entry((tcp, to)).or_default();
        let fed = deframer.feed(bytes, BODY_BYTES_MAX, |kind, body| {
            match Frame::decode(kind, body)? {
                Frame::Batch { archive, .. } => decode_batch(archive, now_ns, |message| {
                    lines.push(format!("{message:?}"));
                    Ok(())
                })?,
                Frame::Credit { .. } => {}
                other => lines.push(format!("{other:?}")),
            }
            Ok(BODY_BYTES_MAX)
        });
        lines.extend(fed.err().map(|error| format!("{error:?}")));
        for line in lines {
            let short: String = line.chars().take(420).collect();
            self.trace.line(self.now, || format!("{from:?} => {at:?} (tcp {tcp}) {short}"));
        }
    }
}

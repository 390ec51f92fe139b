//! Reads along on links, for a run that is read.

use std::collections::BTreeMap;

use wire::node::decode_batch;
use wire::node::link::{BODY_BYTES_MAX, Deframer, Frame};

use crate::network::{Side, TcpId};

/// The longest text of a message; more is cut off.
const TEXT_CHARS_MAX: usize = 420;

/// What has been read of each direction of a link.
#[derive(Default)]
pub(crate) struct Taps {
    deframers: BTreeMap<(TcpId, Side), Deframer>,
}

impl Taps {
    /// The messages in bytes that arrive at an end of a link.
    pub(crate) fn read(&mut self, wall_ns: u64, tcp: TcpId, to: Side, bytes: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        let deframer = self.deframers.entry((tcp, to)).or_default();
        let fed = deframer.feed(bytes, BODY_BYTES_MAX, |kind, body| {
            match Frame::decode(kind, body)? {
                Frame::Batch { archive, .. } => decode_batch(archive, wall_ns, |message| {
                    texts.push(format!("{message:?}"));
                    Ok(())
                })?,
                Frame::Credit { .. } => {}
                other => texts.push(format!("{other:?}")),
            }
            Ok(BODY_BYTES_MAX)
        });
        texts.extend(fed.err().map(|error| format!("{error:?}")));
        texts.iter().map(|text| text.chars().take(TEXT_CHARS_MAX).collect()).collect()
    }
}

//! The bytes of one write, filled by the core and owned by the engine.

use bytes::Bytes;

/// A core stops filling a batch once it holds this many bytes; one item may overshoot it.
pub const SEND_BATCH_BYTES_MAX: usize = 64 * 1024;

/// Shared items up to this size are copied when the batch already holds something: one contiguous send is
/// cheaper than a gather list.
const COPY_BYTES_MAX: usize = 1024;

/// The bytes of one write: small items copied into one buffer, large or lone ones shared by reference count.
///
/// Engines keep batches in a pool, so that a batch allocates nothing once warm and exists only while in
/// flight.
#[derive(Debug, Default)]
pub struct SendBatch {
    copied: Vec<u8>,
    /// Each with the offset in `copied` that it stands before.
    shared: Vec<(u32, Bytes)>,
    len: usize,
}

/// A contiguous piece of a [`SendBatch`], in the order of writing.
pub type Segment<'a> = &'a [u8];

impl SendBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes in the batch.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the core should stop filling.
    pub fn is_full(&self) -> bool {
        self.len >= SEND_BATCH_BYTES_MAX
    }

    /// Appends a copy of `bytes`.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Puts a copy of `bytes` before all that is in the batch. It moves what was copied there, so it is for a
    /// few bytes, once a batch.
    pub fn prepend(&mut self, bytes: &[u8]) {
        self.copy_lone_small();
        self.copied.splice(0..0, bytes.iter().copied());
        self.shared.iter_mut().for_each(|(offset, _)| *offset += bytes.len() as u32);
        self.len += bytes.len();
    }

    /// Puts `bytes` in the place of all that is in the batch, without copying them, and empties `bytes`.
    pub fn replace(&mut self, bytes: &mut Vec<u8>) {
        self.shared.clear();
        std::mem::swap(&mut self.copied, bytes);
        bytes.clear();
        self.len = self.copied.len();
    }

    /// Appends `bytes`: by reference when it is alone or large, else by copy.
    pub fn share(&mut self, bytes: Bytes) {
        if self.is_empty() || bytes.len() > COPY_BYTES_MAX {
            self.len += bytes.len();
            self.shared.push((self.copied.len() as u32, bytes));
            return;
        }
        self.copy_lone_small();
        self.copy(&bytes);
    }

    /// An item that was shared because it was alone is copied when it no longer is.
    fn copy_lone_small(&mut self) {
        if self.copied.is_empty()
            && let [(_, lone)] = self.shared.as_slice()
            && lone.len() <= COPY_BYTES_MAX
        {
            self.copied.extend_from_slice(lone);
            self.shared.clear();
        }
    }

    /// The one contiguous piece, when there is just one.
    pub fn contiguous(&self) -> Option<Segment<'_>> {
        match (self.copied.is_empty(), self.shared.as_slice()) {
            (false, []) => Some(&self.copied),
            (true, [(_, bytes)]) => Some(bytes),
            _ => None,
        }
    }

    /// The pieces in the order of writing.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut from = 0;
        let pieces = self.shared.iter().flat_map(move |(offset, bytes)| {
            let before = &self.copied[from..*offset as usize];
            from = *offset as usize;
            [before, &bytes[..]]
        });
        let tail = &self.copied[self.shared.last().map_or(0, |(offset, _)| *offset as usize)..];
        pieces.chain(std::iter::once(tail)).filter(|piece| !piece.is_empty())
    }

    /// Empties the batch and keeps its room, up to `SEND_BATCH_BYTES_MAX`.
    pub fn clear(&mut self) {
        self.copied.clear();
        self.copied.shrink_to(SEND_BATCH_BYTES_MAX);
        self.shared.clear();
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(batch: &SendBatch) -> Vec<u8> {
        batch.segments().flatten().copied().collect()
    }

    #[test]
    fn a_lone_item_is_not_copied() {
        let frame = Bytes::from_static(b"frame");
        let mut batch = SendBatch::new();
        batch.share(frame.clone());
        assert_eq!(batch.contiguous().map(<[u8]>::as_ptr), Some(frame.as_ptr()));
    }

    #[test]
    fn small_items_become_one_piece() {
        let mut batch = SendBatch::new();
        batch.share(Bytes::from_static(b"one"));
        batch.share(Bytes::from_static(b"two"));
        batch.copy(b"three");
        assert_eq!(batch.contiguous(), Some(&b"onetwothree"[..]));
        assert_eq!(batch.len(), 11);
    }

    #[test]
    fn what_is_prepended_stands_first() {
        let large = Bytes::from(vec![b'L'; COPY_BYTES_MAX + 1]);
        let mut batch = SendBatch::new();
        batch.prepend(b"");
        assert!(batch.is_empty());
        batch.share(Bytes::from_static(b"small"));
        batch.prepend(b"head");
        assert_eq!(batch.contiguous(), Some(&b"headsmall"[..]));
        batch.share(large.clone());
        batch.copy(b"tail");
        batch.prepend(b"1");
        let wanted = [b"1headsmall", &large[..], b"tail"].concat();
        assert_eq!((joined(&batch), batch.len()), (wanted.clone(), wanted.len()));
        let mut batch = SendBatch::new();
        batch.share(large.clone());
        batch.prepend(b"head");
        assert_eq!((joined(&batch), batch.contiguous()), ([b"head", &large[..]].concat(), None));
    }

    #[test]
    fn what_replaces_a_batch_is_not_copied() {
        let mut batch = SendBatch::new();
        batch.copy(b"small");
        batch.share(Bytes::from(vec![b'L'; COPY_BYTES_MAX + 1]));
        let mut sealed = b"sealed".to_vec();
        let at = sealed.as_ptr();
        batch.replace(&mut sealed);
        assert_eq!((batch.contiguous(), batch.len()), (Some(&b"sealed"[..]), 6));
        assert_eq!((batch.contiguous().map(<[u8]>::as_ptr), sealed.len()), (Some(at), 0));
        batch.replace(&mut sealed);
        assert!(batch.is_empty() && batch.contiguous().is_none_or(<[u8]>::is_empty));
    }

    #[test]
    fn order_is_kept_around_large_items() {
        let large = Bytes::from(vec![b'L'; COPY_BYTES_MAX + 1]);
        let mut batch = SendBatch::new();
        batch.copy(b"a");
        batch.share(large.clone());
        batch.share(Bytes::from_static(b"b"));
        batch.share(large.clone());
        let wanted = [b"a", &large[..], b"b", &large[..]].concat();
        assert_eq!(joined(&batch), wanted);
        assert_eq!(batch.len(), wanted.len());
        assert_eq!(batch.contiguous(), None);
        batch.clear();
        assert!(batch.is_empty() && joined(&batch).is_empty());
    }
}

//! Which messages the application has been told of.

use std::collections::{BTreeSet, VecDeque};

use wire::client::Message;
use wire::{ClientMsgId, MessageId, UserId};

/// The last messages, by the server's id and by sender and client_msg_id.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: Recent<MessageId>,
    names: Recent<(UserId, Vec<u8>)>,
}

impl Seen {
    /// Notes a message; false when it came before.
    pub fn is_first(&mut self, message: &Message, remembered_max: usize) -> bool {
        let is_first = self.ids.insert(message.id, remembered_max);
        let name: &ClientMsgId = &message.client_msg_id;
        let name = (!name.is_empty()).then(|| (message.sender, name.as_bytes().to_vec()));
        let has_first_name = name.is_none_or(|name| self.names.insert(name, remembered_max));
        is_first && has_first_name
    }
}

/// The last of many keys.
#[derive(Debug)]
struct Recent<K> {
    keys: BTreeSet<K>,
    order: VecDeque<K>,
}

impl<K: Ord + Clone> Recent<K> {
    /// Adds a key; false when it is there already. The oldest key goes when there are too many.
    fn insert(&mut self, key: K, keys_max: usize) -> bool {
        if !self.keys.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > keys_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }
}

impl<K> Default for Recent<K> {
    fn default() -> Self {
        Self { keys: BTreeSet::new(), order: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_keys_are_forgotten() {
        let mut recent = Recent::default();
        assert!([1, 2, 3].into_iter().all(|key| recent.insert(key, 3)));
        assert!(![1, 2, 3].into_iter().any(|key| recent.insert(key, 3)));
        assert!(recent.insert(4, 3) && recent.insert(1, 3) && !recent.insert(3, 3));
        assert_eq!((recent.keys.len(), recent.order.len()), (3, 3));
    }
}

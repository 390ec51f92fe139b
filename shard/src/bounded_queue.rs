//! A queue that cannot grow without bound.

use std::collections::VecDeque;

/// A first-in, first-out queue of at most `limit` items. What happens at the limit is the caller's policy: a
/// refused item comes back.
#[derive(Clone, Debug)]
pub struct BoundedQueue<T> {
    items: VecDeque<T>,
    limit: usize,
}

impl<T> BoundedQueue<T> {
    /// An empty queue; it allocates as items come, not for `limit`.
    pub const fn new(limit: usize) -> Self {
        Self { items: VecDeque::new(), limit }
    }

    /// Appends `item`, or gives it back when the queue is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.is_full() {
            return Err(item);
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// The oldest item.
    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }

    /// Items in the queue.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether the next push will be refused.
    pub fn is_full(&self) -> bool {
        self.items.len() >= self.limit
    }

    /// The items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_order_is_kept() {
        let mut queue = BoundedQueue::new(2);
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(3)));
        assert!(queue.is_full());
        assert_eq!(queue.front(), Some(&1));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.push(4), Ok(()));
        assert!(queue.iter().eq(&[2, 4]));
        assert_eq!((queue.pop(), queue.pop(), queue.pop(), queue.len()), (Some(2), Some(4), None, 0));
    }

    #[test]
    fn a_limit_costs_nothing_until_it_is_used() {
        let mut queue = BoundedQueue::new(usize::MAX);
        assert_eq!(queue.items.capacity(), 0);
        assert_eq!(queue.push(1), Ok(()));
        assert!(queue.items.capacity() < 100);
        assert_eq!(BoundedQueue::new(0).push(1), Err(1));
    }
}

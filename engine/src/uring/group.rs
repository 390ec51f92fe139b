//! Connections that share receive buffers.

use std::ops::{Index, IndexMut};

/// Connections that share buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Group {
    /// Those that came through the listener.
    Accepted,
    /// Those that the core opened. They go on while the core pushes the others back and unread bytes of those
    /// hold all their buffers.
    Opened,
}

impl Group {
    pub(super) const ALL: [Self; 2] = [Self::Accepted, Self::Opened];

    /// The kernel's name for it.
    pub(super) const fn id(self) -> u16 {
        self as u16
    }
}

/// One for each group.
#[derive(Default)]
pub(super) struct PerGroup<T>([T; Group::ALL.len()]);

impl<T> Index<Group> for PerGroup<T> {
    type Output = T;

    fn index(&self, group: Group) -> &T {
        &self.0[group as usize]
    }
}

impl<T> IndexMut<Group> for PerGroup<T> {
    fn index_mut(&mut self, group: Group) -> &mut T {
        &mut self.0[group as usize]
    }
}

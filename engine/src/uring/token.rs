//! What an operation is for: the `user_data` of its entries.

use shard::ConnId;

use super::group::Group;

/// Connections of one shard: the index has 24 bits in a token.
pub(super) const CONNECTIONS_MAX: u32 = 1 << 24;

/// The kinds of operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Op {
    /// Multishot poll of the eventfd that others wake this shard through.
    Bell,
    /// Multishot accept.
    Accept,
    /// Multishot receive of an accepted connection.
    ReceiveAccepted,
    /// The same of an opened one.
    ReceiveOpened,
    /// Receive of a closing connection, into nothing.
    Discard,
    /// The send in flight of a connection.
    Send,
    /// A connect under way.
    Connect,
    /// Cancels another; its own completion says nothing of use.
    Cancel,
    /// Closes a file; silent when it succeeds.
    Close,
    /// Poll of a further ring, in the main one.
    Ring,
    /// Makes an ordinary file of a direct descriptor, for a moment.
    Install,
}

impl Op {
    pub(super) const fn receive(group: Group) -> Self {
        match group {
            Group::Accepted => Self::ReceiveAccepted,
            Group::Opened => Self::ReceiveOpened,
        }
    }

    /// Whose buffers it uses, if any.
    pub(super) const fn group(self) -> Option<Group> {
        match self {
            Self::ReceiveAccepted => Some(Group::Accepted),
            Self::ReceiveOpened => Some(Group::Opened),
            _ => None,
        }
    }
}

/// `op << 56 | index << 32 | generation`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token(u64);

impl Token {
    /// An operation that belongs to no connection.
    pub(super) const fn new(op: Op) -> Self {
        Self((op as u64) << 56)
    }

    /// The accept of a listener.
    pub(super) const fn accept(listener: u16) -> Self {
        Self(Self::new(Op::Accept).0 | listener as u64)
    }

    /// The poll of a further ring.
    pub(super) const fn ring(number: u8) -> Self {
        Self(Self::new(Op::Ring).0 | number as u64)
    }

    /// Meaningful for the poll of a ring only.
    pub(super) const fn ring_number(self) -> u8 {
        self.0 as u8
    }

    /// Meaningful for an accept only.
    pub(super) const fn listener(self) -> u16 {
        self.0 as u16
    }

    pub(super) fn of(op: Op, conn: ConnId) -> Self {
        assert!(conn.index < CONNECTIONS_MAX, "the table is bounded by CONNECTIONS_MAX");
        Self(Self::new(op).0 | (conn.index as u64) << 32 | conn.generation as u64)
    }

    pub(super) const fn from_u64(user_data: u64) -> Self {
        Self(user_data)
    }

    pub(super) const fn as_u64(self) -> u64 {
        self.0
    }

    pub(super) fn op(self) -> Op {
        const OPS: [Op; 11] = [
            Op::Bell,
            Op::Accept,
            Op::ReceiveAccepted,
            Op::ReceiveOpened,
            Op::Discard,
            Op::Send,
            Op::Connect,
            Op::Cancel,
            Op::Close,
            Op::Ring,
            Op::Install,
        ];
        OPS[(self.0 >> 56) as usize]
    }

    /// Meaningful for the operations of a connection only.
    pub(super) const fn conn(self) -> ConnId {
        ConnId { index: (self.0 >> 32) as u32 & (CONNECTIONS_MAX - 1), generation: self.0 as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_back_what_it_was_made_of() {
        let receives = Group::ALL.map(Op::receive);
        let others = [Op::Bell, Op::Accept, Op::Discard, Op::Send, Op::Connect, Op::Cancel, Op::Close];
        for op in receives.into_iter().chain(others).chain([Op::Ring, Op::Install]) {
            assert_eq!(Token::new(op).op(), op);
            let conn = ConnId { index: CONNECTIONS_MAX - 1, generation: u32::MAX };
            let token = Token::from_u64(Token::of(op, conn).as_u64());
            assert_eq!((token.op(), token.conn()), (op, conn));
        }
        let token = Token::accept(u16::MAX);
        assert_eq!((token.op(), token.listener()), (Op::Accept, u16::MAX));
        let token = Token::ring(u8::MAX);
        assert_eq!((token.op(), token.ring_number()), (Op::Ring, u8::MAX));
    }
}

//! What the driver asks of a protocol.

/// What a connection does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Takes the messages.
    Receiver,
    /// Sends them.
    Publisher,
}

/// What the first bytes of a stream are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// The connection takes part from here on.
    Ready,
    /// A published message.
    Delivered,
    /// A question, with the answer to send.
    Asked(&'static [u8]),
    /// Nothing that matters here.
    Other,
    /// The server refuses, and how it says so.
    Refused(String),
}

/// A protocol, as far as fan-out needs it.
pub trait Dialect {
    /// Appends all that connection `index` says until it is ready.
    fn hello(&self, role: Role, index: usize, out: &mut Vec<u8>);

    /// Appends message number `number`.
    fn publish(&self, number: u64, payload: &[u8], out: &mut Vec<u8>);

    /// The first item of `input` and its size in bytes; `None` while it is incomplete.
    fn next(&self, input: &[u8]) -> Option<(usize, Item)>;
}

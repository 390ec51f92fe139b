//! What both ends of a connection do with records, by rustls without buffers of its own.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, ReadTraffic, UnbufferedStatus,
};
use rustls::{CommonState, Error};

use super::Stage;

/// Plain text of one record.
pub(super) const RECORD_BYTES: usize = 1 << 14;
/// By how many bytes a record is longer than its plain text, at most.
const RECORD_OVERHEAD: usize = 5 + 256;
/// Records that are read in one step; after each step, those without plain text are counted.
const RECORDS_AT_ONCE: usize = 32;

/// One end of a connection.
pub(super) enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Connection {
    pub(super) fn state(&self) -> &CommonState {
        match self {
            Self::Server(end) => end,
            Self::Client(end) => end,
        }
    }

    /// Reads all complete records. If one is wrong, returns why, and puts an alert that says so into `out`.
    pub(super) fn read(
        &mut self,
        incoming: &mut [u8],
        stage: &mut Stage,
        out: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Read, Error> {
        match self {
            Self::Server(end) => read(end, incoming, stage, out, take),
            Self::Client(end) => read(end, incoming, stage, out, take),
        }
    }

    /// Writes plain text, or (for `None`) the end, after the connection's own output. `rest` holds an
    /// incomplete record. Returns false, and writes none of it, if the peer could not read it.
    pub(super) fn write(&mut self, rest: &mut Vec<u8>, plain: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Server(end) => write(end, rest, plain, out),
            Self::Client(end) => write(end, rest, plain, out),
        }
    }
}

/// What rustls has for each end under the same names.
trait End {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn wants_write(&self) -> bool;
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn wants_write(&self) -> bool {
        CommonState::wants_write(self)
    }
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn wants_write(&self) -> bool {
        CommonState::wants_write(self)
    }
}

/// How far records were read.
pub(super) struct Read {
    /// Bytes that were read.
    pub(super) at: usize,
    /// The peer has said that it ends.
    pub(super) has_ended: bool,
}

/// See [`Connection::read`].
fn read(
    connection: &mut impl End,
    incoming: &mut [u8],
    stage: &mut Stage,
    out: &mut Vec<u8>,
    take: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Read, Error> {
    let (mut all, mut end) = (Read { at: 0, has_ended: false }, 0);
    loop {
        let was_open = *stage == Stage::Open;
        let mut records = 0;
        while records < RECORDS_AT_ONCE
            && let Some(len) = record_bytes(incoming.get(end..).unwrap_or_default())
        {
            end += len;
            records += 1;
        }
        let is_last = records < RECORDS_AT_ONCE;
        if is_last {
            end = incoming.len(); // with the start of the next one, which may be wrong already
        }
        let some = incoming.get_mut(all.at..end).unwrap_or_default();
        let read = read_some(connection, some, stage, out, &mut |plain| {
            records = records.saturating_sub(1);
            take(plain)
        })?;
        all.at += read.at;
        all.has_ended |= read.has_ended;
        // Records without plain text are reported after those with it.
        while was_open && *stage == Stage::Open && records > 0 {
            records -= 1;
            if !take(&[]) {
                *stage = Stage::Deaf;
            }
        }
        if is_last || *stage == Stage::Deaf {
            return Ok(all);
        }
    }
}

/// The length of the whole record at the front of `bytes`.
fn record_bytes(bytes: &[u8]) -> Option<usize> {
    let ([_, _, _, high, low], rest) = bytes.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    (rest.len() >= len).then_some(5 + len)
}

/// Reads some records.
fn read_some(
    connection: &mut impl End,
    incoming: &mut [u8],
    stage: &mut Stage,
    out: &mut Vec<u8>,
    take: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Read, Error> {
    let (mut at, mut has_ended) = (0, false);
    loop {
        let UnbufferedStatus { mut discard, state } =
            connection.process(incoming.get_mut(at..).unwrap_or_default());
        let is_done = match state {
            Ok(ConnectionState::ReadTraffic(traffic)) => {
                discard += take_plain(traffic, stage, take);
                *stage == Stage::Deaf
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                grow(out, RECORD_OVERHEAD, |out| data.encode(out).map_err(of_encode));
                false
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                false
            }
            Ok(ConnectionState::PeerClosed) => {
                has_ended = true;
                false
            }
            Ok(ConnectionState::WriteTraffic(_)) => {
                if matches!(stage, Stage::Hello | Stage::Handshake) {
                    *stage = Stage::Open;
                }
                true
            }
            Ok(_) => true,
            Err(error) => {
                put_alert(connection, out);
                return Err(error);
            }
        };
        at += discard;
        if is_done {
            return Ok(Read { at, has_ended });
        }
    }
}

/// Takes the plain text of records; how many of their bytes are done with.
fn take_plain<Data>(
    mut traffic: ReadTraffic<'_, '_, Data>,
    stage: &mut Stage,
    take: &mut dyn FnMut(&[u8]) -> bool,
) -> usize {
    let mut discard = 0;
    while let Some(Ok(record)) = traffic.next_record() {
        discard += record.discard;
        let is_heard = *stage != Stage::Deaf && !record.payload.is_empty();
        if is_heard && !take(record.payload) {
            *stage = Stage::Deaf;
        }
    }
    discard
}

/// See [`Connection::write`].
fn write(connection: &mut impl End, rest: &mut Vec<u8>, plain: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    loop {
        // All complete records were read before, so this reads nothing of an incomplete one.
        let UnbufferedStatus { discard, state } = connection.process(rest);
        let written = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                grow(out, RECORD_OVERHEAD, |out| data.encode(out).map_err(of_encode));
                None
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                None
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                match plain {
                    Some(plain) => plain.chunks(RECORD_BYTES).for_each(|plain| {
                        let room = plain.len() + RECORD_OVERHEAD;
                        grow(out, room, |out| traffic.encrypt(plain, out).map_err(of_encrypt));
                    }),
                    None => {
                        grow(out, RECORD_OVERHEAD, |out| traffic.queue_close_notify(out).map_err(of_encrypt))
                    }
                }
                Some(true)
            }
            _ => Some(false),
        };
        rest.drain(..discard.min(rest.len()));
        if let Some(written) = written {
            return written;
        }
    }
}

/// Writes what a failed connection still has to write. It is called only while there is such output, which
/// comes first: a call without any would read on after the error.
fn put_alert(connection: &mut impl End, out: &mut Vec<u8>) {
    while connection.wants_write() {
        match connection.process(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                grow(out, RECORD_OVERHEAD, |out| data.encode(out).map_err(of_encode));
            }
            _ => return,
        }
    }
}

/// Lets `write` write at the end of `out`, with so much room or as much as it says it wants.
fn grow(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) {
    let len = out.len();
    for _ in 0..2 {
        out.resize(len + room, 0);
        match write(out.get_mut(len..).unwrap_or_default()) {
            Ok(written) => return out.truncate(len + written),
            Err(Some(wanted)) => room = wanted,
            Err(None) => break,
        }
    }
    out.truncate(len);
}

fn of_encode(error: EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

fn of_encrypt(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncryptError::EncryptExhausted => None,
    }
}

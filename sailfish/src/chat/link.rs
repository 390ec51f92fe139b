//! One connection of the chat client.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::mpsc::Sender;
use std::time::Duration;

use wire::client::{ClientFrame, Deframer, ServerFrame};

use super::client::Identity;
use super::{Input, Loss};

/// How long a connect may take, for each address of the target.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// How long a write may block.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// How much of an answer that is no frame is told.
const FIRST_LINE_BYTES_MAX: usize = 60;
/// The longest body of a server's frame.
const BODY_BYTES_MAX: usize = 4 << 20;

/// A connection whose frames come in as [`Input`] with its number.
pub struct Link {
    /// Tells the inputs of this connection from those of an earlier one.
    pub number: u64,
    stream: TcpStream,
}

impl Link {
    /// Connects, and reads on a thread of its own.
    pub fn connect(number: u64, target: &str, inputs: Sender<Input>) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in target.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(WRITE_TIME))?;
                    let reader = stream.try_clone()?;
                    std::thread::spawn(move || {
                        let why = read(number, reader, &inputs);
                        let _ = inputs.send(Input::Lost(number, why)); // the client may be gone
                    });
                    return Ok(Self { number, stream });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Writes a frame. A failure shows as [`Input::Lost`].
    pub fn send(&mut self, identity: &Identity, frame: &ClientFrame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(identity.encoding, identity.app, identity.user, &mut bytes);
        if self.stream.write_all(&bytes).is_err() {
            let _ = self.stream.shutdown(Shutdown::Both); // ends the reader, which says why
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both); // it may be gone already
    }
}

/// Hands frames over until the connection ends; answers why it did.
fn read(number: u64, mut stream: TcpStream, inputs: &Sender<Input>) -> Loss {
    let ended = |why: &str| Loss::Ended(why.into());
    let mut deframer = Deframer::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut bytes = match stream.read(&mut buffer) {
            Ok(0) => return ended("the server closed"),
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return ended(&error.to_string()),
        };
        let begin = first_line(bytes);
        loop {
            let frame = match deframer.next(&mut bytes, BODY_BYTES_MAX) {
                Ok(None) => break,
                Ok(Some(frame)) => ServerFrame::decode(&frame).map(ServerFrame::into_owned),
                Err(error) => Err(error),
            };
            match frame.map(|frame| inputs.send(Input::Frame(number, frame)).is_ok()) {
                Ok(true) => {}
                Ok(false) => return ended("the client ended"),
                Err(_) => return Loss::NoProtocol(begin),
            }
        }
    }
}

/// How an answer begins, to be told by a person.
fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(FIRST_LINE_BYTES_MAX)]).into_owned()
}

//! The bytes of a connection, with or without TLS.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

/// The first byte of a TLS connection: the type of its first record.
const HANDSHAKE: u8 = 22;

/// A stream that becomes plain or TLS when it is first read.
pub enum Stream {
    /// What a port with TLS gets has yet to show what it is.
    Fresh(TcpStream, TlsAcceptor, IpAddr),
    Handshake(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
    /// It could not be used.
    Gone,
}

impl Stream {
    /// Of a port with or without TLS. One with TLS takes plain HTTP too from programs of this machine.
    pub fn new(stream: TcpStream, from: IpAddr, tls: Option<TlsAcceptor>) -> Self {
        match tls {
            Some(tls) => Self::Fresh(stream, tls, from),
            None => Self::Plain(stream),
        }
    }

    /// Goes on until it is plain or its handshake is done.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::Tls(_) | Self::Plain(_) => return Poll::Ready(Ok(())),
                Self::Gone => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Self::Fresh(stream, _, from) => {
                    let mut byte = [0];
                    let mut first = ReadBuf::new(&mut byte);
                    ready!(stream.poll_peek(cx, &mut first))?;
                    let is_plain = first.filled().first().is_some_and(|first| *first != HANDSHAKE);
                    let may_be_plain = from.to_canonical().is_loopback();
                    let Self::Fresh(stream, tls, _) = std::mem::replace(self, Self::Gone) else { continue };
                    if !is_plain {
                        *self = Self::Handshake(Box::new(tls.accept(stream)));
                    } else if may_be_plain {
                        *self = Self::Plain(stream);
                    }
                }
                Self::Handshake(accept) => {
                    let accepted = ready!(Pin::new(accept.as_mut()).poll(cx));
                    *self = Self::Gone;
                    match accepted {
                        Ok(stream) => *self = Self::Tls(Box::new(stream)),
                        Err(error) => {
                            logs::warn!(%error, "a caller of an HTTP port has failed in its TLS handshake");
                            return Poll::Ready(Err(error));
                        }
                    }
                }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?;
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?;
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?;
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bytes),
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            _ => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            _ => Poll::Ready(Ok(())), // nothing was written
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Plain(stream) | Self::Fresh(stream, ..) => Pin::new(stream).poll_shutdown(cx),
            Self::Handshake(_) | Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

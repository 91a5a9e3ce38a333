//! A socket that the reactor need not watch all the time.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// While we pause (see [`super::pace`]) every packet that arrives would still wake the reactor: more work than the reads
/// that were saved. Set aside, the socket wakes nobody; it is watched again when a read or write finds it not ready.
pub(crate) struct Watched<T: Socket>(State<T>);

enum State<T: Socket> {
    Watched(T),
    Aside(T::Std),
    /// Setting it aside or watching it failed.
    Lost,
}

pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Sized {
    type Std: Unpin;
    fn read_std(std: &Self::Std, space: &mut [u8]) -> io::Result<usize>;
    fn into_std(self) -> io::Result<Self::Std>;
    fn from_std(std: Self::Std) -> io::Result<Self>;
}

impl Socket for TcpStream {
    type Std = std::net::TcpStream;

    fn read_std(mut std: &Self::Std, space: &mut [u8]) -> io::Result<usize> {
        std.read(space)
    }

    fn into_std(self) -> io::Result<Self::Std> {
        TcpStream::into_std(self)
    }

    fn from_std(std: Self::Std) -> io::Result<Self> {
        TcpStream::from_std(std)
    }
}

impl Socket for UnixStream {
    type Std = std::os::unix::net::UnixStream;

    fn read_std(mut std: &Self::Std, space: &mut [u8]) -> io::Result<usize> {
        std.read(space)
    }

    fn into_std(self) -> io::Result<Self::Std> {
        UnixStream::into_std(self)
    }

    fn from_std(std: Self::Std) -> io::Result<Self> {
        UnixStream::from_std(std)
    }
}

impl<T: Socket> Watched<T> {
    pub(crate) fn new(socket: T) -> Watched<T> {
        Watched(State::Watched(socket))
    }

    pub(crate) fn set_aside(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, State::Lost) {
            State::Watched(socket) => State::Aside(socket.into_std()?),
            other => other,
        };
        Ok(())
    }

    fn watched(&mut self) -> io::Result<Pin<&mut T>> {
        if !matches!(self.0, State::Watched(_)) {
            self.0 = match std::mem::replace(&mut self.0, State::Lost) {
                State::Aside(std) => State::Watched(T::from_std(std)?),
                other => other,
            };
        }
        match &mut self.0 {
            State::Watched(socket) => Ok(Pin::new(socket)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl<T: Socket> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let State::Aside(std) = &self.0 {
            match T::read_std(std, buf.initialize_unfilled()) {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.watched()?.poll_read(cx, buf)
    }
}

impl<T: Socket> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.watched()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_shutdown(cx)
    }
}

//! What comes over a socket of a body that is long: read in pieces as large as it comes, handed on without a copy.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Malformed;
use super::chunked::{Decoder, Piece};

/// What is read at once: little where little comes, more where reads fill up.
const READ_BYTES_MIN: usize = 8 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;

/// A body on its way in.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) decoder: Decoder,
    /// Read and not yet looked at; what is left at the end is not of the body.
    pub(crate) at_hand: Bytes,
    room: BytesMut,
    read_bytes: usize,
}

/// Why a body has no end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The socket.
    #[error("connection failed")]
    Io(#[source] io::Error),
    /// The other side hung up before the end.
    #[error("connection closed")]
    Closed,
    /// It is none.
    #[error("malformed body")]
    Malformed(#[source] Malformed),
}

impl Intake {
    /// Where much has come already, more will.
    pub(crate) fn new(decoder: Decoder, at_hand: Bytes) -> Self {
        let read_bytes = if at_hand.len() >= READ_BYTES_MIN { READ_BYTES_MAX } else { READ_BYTES_MIN };
        Self { decoder, at_hand, room: BytesMut::new(), read_bytes }
    }

    /// The next piece of the body; never [`Piece::More`].
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Result<Piece, Broken>> {
        loop {
            match self.at_hand() {
                Ok(Piece::More) => {}
                piece => return Poll::Ready(piece.map_err(Broken::Malformed)),
            }
            if ready!(self.poll_read(cx, stream)).map_err(Broken::Io)? == 0 {
                let ended = self.decoder.ends_with_connection();
                return Poll::Ready(if ended { Ok(Piece::End) } else { Err(Broken::Closed) });
            }
        }
    }

    /// The next piece of what was read already.
    pub(crate) fn at_hand(&mut self) -> Result<Piece, Malformed> {
        self.decoder.next(&mut self.at_hand)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        // one byte beyond the end, so that the read is a short one, after which no other is needed to find the socket empty
        let left = self.decoder.left().and_then(|left| usize::try_from(left).ok()?.checked_add(1));
        let wanted = left.map_or(self.read_bytes, |left| left.min(self.read_bytes));
        // What was read before is mostly written by now, and its room free again: other memory for each read would take more
        // time than the read does.
        if !self.room.try_reclaim(wanted) && self.room.capacity() < wanted.min(self.read_bytes / 2) {
            self.room.reserve(wanted);
        }
        let room = self.room.capacity();
        let bytes = ready!(pin!(Pin::new(&mut stream).read_buf(&mut self.room)).poll(cx))?;
        let shrinks = bytes < self.read_bytes / 4 && self.read_bytes > READ_BYTES_MIN;
        if bytes == room {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if shrinks {
            self.read_bytes /= 2;
        }
        self.at_hand = self.room.split().freeze();
        if shrinks {
            self.room = BytesMut::new();
        }
        Poll::Ready(Ok(bytes))
    }
}

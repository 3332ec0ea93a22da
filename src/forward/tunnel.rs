//! Carries the bytes of an open WebSocket both ways, and closes it where its credential is no longer good.
//!
//! The caller is told by a close frame (RFC 6455 5.5.1), which must not stand inside another frame: what the upstream was
//! saying is carried to the end of its frame first, for at most [`GRACE`].

use std::io;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select, try_join};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::leash::{Leash, Side};
use crate::wire::frames::{self, Frames};

/// Bytes held in each direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// "Unauthorized", of the codes that applications agree on (RFC 6455 7.4.2).
const CLOSE_CODE: u16 = 4401;

/// For the frame under way to end, for the close frame to be taken, and for the caller to hang up.
const GRACE: Duration = Duration::from_millis(300);

/// Carries until both sides have ended or one breaks; or until the stream is cut. Silence is no end; but a side that takes
/// nothing of what it is told for `stall` is given up: over HTTP/2 one that grants no window would hold the other for ever.
///
/// # Errors
/// A side broke; [`io::ErrorKind::TimedOut`] where one took nothing.
pub(super) async fn carry<C, U>(caller: C, upstream: U, leash: Option<&Leash>, stall: Duration) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_caller, to_caller) = tokio::io::split(caller);
    let (mut from_upstream, to_upstream) = tokio::io::split(upstream);
    let (mut to_caller, mut to_upstream) = (Taking { side: to_caller, stall }, Taking { side: to_upstream, stall });
    let Some(leash) = leash else {
        let (up, down) = (forward(&mut from_caller, &mut to_upstream), forward(&mut from_upstream, &mut to_caller));
        return try_join(up, down).await.map(drop);
    };
    let up = async {
        // nothing more of what the caller says passes once the stream is cut
        match select(pin!(leash.cut(Side::Request)), pin!(forward(&mut from_caller, &mut to_upstream))).await {
            Either::Left(_) => Ok(()),
            Either::Right((result, _)) => result,
        }
    };
    let down = async {
        let overdue = async {
            leash.cut(Side::Request).await;
            tokio::time::sleep(GRACE).await;
        };
        match select(pin!(overdue), pin!(back(&mut from_upstream, &mut to_caller, leash))).await {
            Either::Left(_) => Err(io::ErrorKind::TimedOut.into()),
            Either::Right((result, _)) => result,
        }
    };
    let ((), end) = try_join(up, down).await?;
    if end == End::Cut {
        drop((from_upstream, to_upstream));
        hang_up(&mut from_caller).await;
    }
    Ok(())
}

/// How the upstream's direction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It said all.
    Said,
    /// The caller was told that the stream is cut.
    Cut,
}

/// A side that is told something, and has to take it.
struct Taking<W> {
    side: W,
    stall: Duration,
}

impl<W: AsyncWrite + Unpin> Taking<W> {
    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = timeout(self.stall, self.side.write(bytes)).await??;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        timeout(self.stall, self.side.flush()).await?
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        timeout(self.stall, self.side.shutdown()).await?
    }
}

async fn forward(from: &mut (impl AsyncRead + Unpin), to: &mut Taking<impl AsyncWrite + Unpin>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write(buffer.get(..count).unwrap_or_default()).await?;
    }
}

async fn back(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut Taking<impl AsyncWrite + Unpin>,
    leash: &Leash,
) -> io::Result<End> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut frames, mut cut) = (Frames::default(), None);
    loop {
        let count = match cut {
            None => match select(pin!(leash.cut(Side::Response)), pin!(from.read(&mut buffer))).await {
                Either::Left((cause, _)) => {
                    cut = Some(cause);
                    continue;
                }
                Either::Right((count, _)) => count?,
            },
            Some(cause) if frames.at_boundary() => {
                if !frames.closed() {
                    to.write(&frames::close(CLOSE_CODE, cause.text())).await?;
                }
                to.shutdown().await?;
                return Ok(End::Cut);
            }
            Some(_) => from.read(&mut buffer).await?,
        };
        if count == 0 {
            to.shutdown().await?;
            return Ok(End::Said);
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        let passed = if cut.is_some() { frames.advance(bytes) } else { frames.pass(bytes) };
        to.write(bytes.get(..passed).unwrap_or_default()).await?;
    }
}

/// Reads what the caller still says: a socket that is closed with unread bytes is reset, and the close frame lost.
async fn hang_up(from: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let said = async { while from.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
    // who does not hang up by himself is cut off
    drop(timeout(GRACE, said).await);
}

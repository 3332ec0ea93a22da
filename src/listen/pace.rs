//! How much a caller of HTTP/2 may have done before others have their turn.
//!
//! hyper understands all that it has read before it looks at anything else, and reads for as long as there is something. A
//! caller who sends small frames without end, be they pings, resets or requests, so had a worker to itself for thousands of
//! them. Here a turn ends after some bytes of frames, and what was read beyond waits for the next: others come in between.
//! Nobody is cut off for it. An upload, whose frames are large and cheap, has a longer turn.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

use super::connection::PREFACE;

/// Bytes of frames that are handed on in a turn: sixty pings, or some twenty requests.
const TURN_BYTES: usize = 1024;

/// Bytes of content that count as one: they are copied and nothing else.
const CONTENT: usize = 64;

/// The bytes of a frame's head (RFC 9113 4.1), and of them those that say how long it is and what.
const HEAD_BYTES: u8 = 9;
const TOLD_BYTES: u8 = 4;

/// The kind of frames that bear content (RFC 9113 6.1).
const DATA: u32 = 0;

/// What is left of a connection's turn, which begins with each poll of its task.
#[derive(Debug, Default)]
pub(super) struct Turn {
    left: Cell<usize>,
}

impl Turn {
    /// It is this connection's.
    pub(super) fn begin(&self) {
        self.left.set(TURN_BYTES);
    }

    fn is_over(&self) -> bool {
        self.left.get() == 0
    }

    fn spend(&self, bytes: usize) {
        self.left.set(self.left.get().saturating_sub(bytes));
    }
}

/// A socket that is read a turn at a time.
pub(super) struct Paced<S> {
    socket: S,
    turn: Rc<Turn>,
    frames: Frames,
    /// Read in an earlier turn: at most what hyper has room for at once.
    ahead: BytesMut,
}

impl<S> Paced<S> {
    /// `socket` from its connection's first byte on.
    pub(super) fn new(socket: S, turn: Rc<Turn>) -> Self {
        Self { socket, turn, frames: Frames::new(), ahead: BytesMut::new() }
    }
}

/// Where in which frame a reader stands.
#[derive(Debug)]
struct Frames {
    /// Bytes of a frame's head that were seen.
    head_seen: u8,
    /// The first of them, in one number.
    told: u32,
    /// Bytes of this frame that are to come behind its head.
    left: usize,
    is_content: bool,
}

impl Frames {
    const fn new() -> Self {
        // what comes before the first frame is counted as one
        Self { head_seen: 0, told: 0, left: PREFACE.len(), is_content: false }
    }

    /// How many of these bytes are within the turn, which they are taken off: at least one, while it is not over.
    fn within(&mut self, bytes: &[u8], turn: &Turn) -> usize {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..)
            && let Some(&first) = rest.first()
            && !turn.is_over()
        {
            taken += if self.left == 0 {
                turn.spend(1);
                self.see_head(first);
                1
            } else {
                let here = rest.len().min(self.left);
                let count = if self.is_content { here } else { here.min(turn.left.get()) };
                turn.spend(if self.is_content { count / CONTENT } else { count });
                self.left -= count;
                count
            };
        }
        taken
    }

    fn see_head(&mut self, byte: u8) {
        if self.head_seen < TOLD_BYTES {
            self.told = self.told << 8 | u32::from(byte);
        }
        self.head_seen += 1;
        if self.head_seen == HEAD_BYTES {
            let (length, kind) = (self.told >> 8, self.told & 0xff);
            // a length has 24 bits
            self.left = usize::try_from(length).unwrap_or(usize::MAX);
            (self.is_content, self.head_seen, self.told) = (kind == DATA, 0, 0);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, turn, frames, ahead } = self.get_mut();
        if turn.is_over() {
            // behind all others, those included of whom the runtime does not know yet that something has come
            return pin!(yield_now()).poll(cx).map(Ok);
        }
        if !ahead.is_empty() {
            let fitting = ahead.len().min(buf.remaining());
            let within = frames.within(ahead.get(..fitting).unwrap_or_default(), turn);
            buf.put_slice(&ahead.split_to(within));
            if ahead.is_empty() {
                // most connections never have any
                *ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(socket).poll_read(cx, buf))?;
        let came = buf.filled().get(before..).unwrap_or_default();
        let within = frames.within(came, turn);
        ahead.extend_from_slice(came.get(within..).unwrap_or_default());
        buf.set_filled(before + within);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::task::Waker;

    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::runtime::LocalOptions;

    use super::*;

    fn frame(kind: u8, bytes: usize) -> Vec<u8> {
        let length = u32::try_from(bytes).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], &vec![kind; bytes]].concat()
    }

    /// What comes in each turn, into a buffer of `room` bytes at a time.
    fn turns(sent: &[u8], room: usize) -> Vec<Vec<u8>> {
        let turn = Rc::new(Turn::default());
        let mut paced = Paced::new(sent, Rc::clone(&turn));
        let (mut turns, mut buffer) = (Vec::new(), vec![0; room]);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            turn.begin();
            let mut came = Vec::new();
            loop {
                let mut read = ReadBuf::new(&mut buffer);
                match Pin::new(&mut paced).poll_read(&mut context, &mut read) {
                    Poll::Pending => break,
                    Poll::Ready(read) => read.unwrap(),
                }
                if read.filled().is_empty() {
                    turns.push(came);
                    return turns;
                }
                came.extend_from_slice(read.filled());
            }
            turns.push(came);
        }
    }

    #[test]
    fn small_frames_have_a_short_turn_and_content_a_long_one() {
        let most = |kind, bytes, number| {
            let sent = [PREFACE.to_vec(), frame(kind, bytes).repeat(number)].concat();
            let turns = turns(&sent, 16_384);
            assert_eq!(turns.concat(), sent);
            turns.iter().map(|turn| turn.len() / (usize::from(HEAD_BYTES) + bytes)).max().unwrap()
        };
        assert_eq!(most(6, 8, 100_000), TURN_BYTES / 17, "pings");
        assert_eq!(most(1, 30, 10_000), TURN_BYTES / 39, "requests");
        assert_eq!(most(0, 0, 10_000), TURN_BYTES / 9, "empty content");
        assert_eq!(most(0, 1, 10_000), TURN_BYTES / 9, "crumbs of content");
        assert!((3..=4).contains(&most(0, 16_384, 100)), "an upload");
    }

    /// A flood of frames whose task is ready again at once, and another connection to which something has come.
    #[test]
    fn who_has_had_a_turn_waits_until_it_was_looked_who_else_can_go_on() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let turns = runtime.unwrap().block_on(async {
            let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
            here.write_all(b"x").unwrap();
            there.set_nonblocking(true).unwrap();
            let turns = Rc::new(Cell::new(0));
            let counted = Rc::clone(&turns);
            let turn = Rc::new(Turn::default());
            let (mut paced, mut buffer) = (Paced::new(tokio::io::repeat(0), Rc::clone(&turn)), [0; 256]);
            let flood = tokio::task::spawn_local(poll_fn(move |cx| {
                turn.begin();
                counted.set(counted.get() + 1);
                loop {
                    let mut read = ReadBuf::new(&mut buffer);
                    match Pin::new(&mut paced).poll_read(cx, &mut read) {
                        Poll::Pending => return Poll::<()>::Pending,
                        Poll::Ready(read) => read.unwrap(),
                    }
                }
            }));
            let mut there = tokio::net::UnixStream::from_std(there).unwrap();
            there.read_exact(&mut [0]).await.unwrap();
            flood.abort();
            turns.get()
        });
        assert!((1..=4).contains(&turns), "{turns} turns");
    }

    proptest! {
        #[test]
        fn all_that_was_sent_comes_in_order_and_no_turn_is_too_long(
            sent in prop::collection::vec((0_u8..10, 0_usize..3000), 0..40),
            room in 1_usize..9000,
        ) {
            let sent: Vec<u8> = sent.into_iter().flat_map(|(kind, bytes)| frame(kind, bytes)).collect();
            let sent = [PREFACE, &sent].concat();
            let turns = turns(&sent, room);
            prop_assert_eq!(turns.concat(), sent);
            prop_assert!(turns.iter().all(|turn| turn.len() <= TURN_BYTES * CONTENT * 2));
        }
    }
}

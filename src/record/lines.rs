//! Lines for standard output, written by a thread of their own.
//!
//! Whoever makes a line never waits for its reader: the queue is bounded, and what does not fit is dropped and counted.

use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use prometheus::IntCounter;

/// Lines that wait for their reader, at most.
const QUEUE_MAX: usize = 16_384;

/// Where lines go; clones share the queue.
#[derive(Clone, Debug)]
pub struct Lines {
    queue: SyncSender<Vec<u8>>,
    dropped: IntCounter,
}

impl Lines {
    /// Begins to write to `sink`. The thread ends, with all lines written, once every clone is dropped.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn to(sink: impl Write + Send + 'static, dropped: IntCounter) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, lines) = sync_channel(QUEUE_MAX);
        let writer = std::thread::Builder::new().name("log".into()).spawn(move || write_all(&lines, sink))?;
        Ok((Self { queue, dropped }, writer))
    }

    /// Hands over one line, without its end.
    pub fn line(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        if self.queue.try_send(line).is_err() {
            self.dropped.inc();
        }
    }
}

/// Writes what has come, and flushes when nothing more waits. A reader that went away ends nothing but the log.
fn write_all(lines: &Receiver<Vec<u8>>, sink: impl Write) {
    let mut sink = BufWriter::with_capacity(64 * 1024, sink);
    while let Ok(first) = lines.recv() {
        let waiting = std::iter::once(first).chain(lines.try_iter());
        let written = waiting.into_iter().try_for_each(|line| sink.write_all(&line)).and_then(|()| sink.flush());
        if let Err(error) = written {
            tracing::debug!(%error, "log line not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_lines_are_written_before_the_writer_ends() {
        let kept = Kept::default();
        let (lines, writer) = Lines::to(kept.clone(), IntCounter::new("dropped", "dropped").unwrap()).unwrap();
        lines.line(b"one".to_vec());
        lines.clone().line(b"two".to_vec());
        drop(lines);
        writer.join().unwrap();
        assert_eq!(*kept.0.lock().unwrap(), b"one\ntwo\n");
    }
}

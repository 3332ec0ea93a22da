//! Buffers of a worker: one is attached to a connection while bytes are in it and goes back after, so that an idle
//! connection has none and the next request finds one that is warm.

use std::cell::RefCell;

/// What one read may bring of a head and of a small body behind it.
const READ_BYTES: usize = 16 * 1024;

/// What a head usually needs.
const WRITE_BYTES: usize = 2 * 1024;

/// Buffers of each kind that are kept.
const KEPT_MAX: usize = 16;

/// A buffer to write that has become larger is not kept.
const KEPT_WRITE_BYTES_MAX: usize = 64 * 1024;

/// The spare buffers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    to_read: RefCell<Vec<Buffer>>,
    to_write: RefCell<Vec<Vec<u8>>>,
}

/// Bytes that were read.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl Spares {
    pub(crate) fn to_read(&self) -> Buffer {
        self.to_read.borrow_mut().pop().unwrap_or_else(|| Buffer { bytes: vec![0; READ_BYTES], filled: 0 })
    }

    pub(crate) fn to_write(&self) -> Vec<u8> {
        self.to_write.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(WRITE_BYTES))
    }

    pub(crate) fn was_read(&self, mut buffer: Buffer) {
        let mut kept = self.to_read.borrow_mut();
        if kept.len() < KEPT_MAX && buffer.bytes.len() == READ_BYTES {
            buffer.filled = 0;
            kept.push(buffer);
        }
    }

    /// Buffers of each kind that are here.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> (usize, usize) {
        (self.to_read.borrow().len(), self.to_write.borrow().len())
    }

    pub(crate) fn was_written(&self, mut buffer: Vec<u8>) {
        let mut kept = self.to_write.borrow_mut();
        if kept.len() < KEPT_MAX && buffer.capacity() <= KEPT_WRITE_BYTES_MAX {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

impl Buffer {
    pub(crate) fn filled(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Where the next bytes go; empty where it is as large as it may be.
    pub(crate) fn room(&mut self, bytes_max: usize) -> &mut [u8] {
        if self.filled == self.bytes.len() && self.filled < bytes_max {
            self.bytes.resize((self.filled * 2).min(bytes_max), 0);
        }
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    pub(crate) fn fill(&mut self, bytes: usize) {
        self.filled = (self.filled + bytes).min(self.bytes.len());
    }

    /// Adds bytes that came otherwise.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.truncate(self.filled);
        self.bytes.extend_from_slice(bytes);
        self.filled = self.bytes.len();
        self.bytes.resize(self.filled.max(READ_BYTES), 0);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Forgets so many of the first bytes.
    pub(crate) fn skip(&mut self, bytes: usize) {
        let bytes = bytes.min(self.filled);
        self.bytes.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_to_its_bound_and_forgets_from_the_front() {
        let mut buffer = Spares::default().to_read();
        for (bytes_max, room) in
            [(READ_BYTES * 3, READ_BYTES), (READ_BYTES * 3, READ_BYTES), (READ_BYTES * 3, READ_BYTES)]
        {
            assert_eq!(buffer.room(bytes_max).len(), room);
            buffer.fill(room);
        }
        assert!(buffer.room(READ_BYTES * 3).is_empty());
        buffer.bytes[READ_BYTES] = 7;
        buffer.skip(READ_BYTES);
        assert_eq!((buffer.filled().len(), buffer.filled()[0]), (READ_BYTES * 2, 7));
    }

    #[test]
    fn few_buffers_are_kept_and_none_that_has_grown() {
        let spares = Spares::default();
        let taken: Vec<(Buffer, Vec<u8>)> = (0..=KEPT_MAX).map(|_| (spares.to_read(), spares.to_write())).collect();
        for (read, written) in taken {
            spares.was_read(read);
            spares.was_written(written);
        }
        assert_eq!((spares.to_read.borrow().len(), spares.to_write.borrow().len()), (KEPT_MAX, KEPT_MAX));
        let spares = Spares::default();
        spares.was_read(Buffer { bytes: vec![0; READ_BYTES + 1], filled: 0 });
        spares.was_written(Vec::with_capacity(KEPT_WRITE_BYTES_MAX + 1));
        assert_eq!((spares.to_read.borrow().len(), spares.to_write.borrow().len()), (0, 0));
    }
}

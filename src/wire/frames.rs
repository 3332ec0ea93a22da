//! Where the frames of a WebSocket end (RFC 6455 5.2), so that a close frame of ours is never put inside another.
//!
//! Only lengths are looked at: what frames say is the business of the two ends. Total over any bytes; what is no WebSocket
//! merely never comes to the end of a frame.

/// Follows one direction of a WebSocket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    head: [u8; HEAD_MAX],
    have: usize,
    /// Bytes of payload that the frame under way still has, once its head is whole.
    left: u64,
    closed: bool,
}

/// Two bytes, eight of an extended length, four of a mask.
const HEAD_MAX: usize = 14;
const OPCODE_CLOSE: u8 = 8;

impl Frames {
    /// Takes note of bytes that are passed on; how many those are: all of them.
    pub fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = rest.get(self.advance(rest)..).unwrap_or_default();
        }
        bytes.len()
    }

    /// Takes note of bytes up to the end of the frame under way, or of the next where none is; how many those are.
    pub fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        while self.have < self.head_bytes() {
            let (Some(&byte), Some(place)) = (bytes.get(used), self.head.get_mut(self.have)) else { return used };
            *place = byte;
            self.have += 1;
            used += 1;
            if self.have == self.head_bytes() {
                self.left = self.payload_bytes();
                self.closed = self.closed || self.head.first().is_some_and(|first| first & 0x0f == OPCODE_CLOSE);
            }
        }
        let here = bytes.len().saturating_sub(used);
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(here);
        self.left -= taken as u64;
        if self.left == 0 {
            self.have = 0;
        }
        used + taken
    }

    /// Whether no frame is under way.
    pub const fn at_boundary(&self) -> bool {
        self.have == 0
    }

    /// Whether a close frame was begun, behind which there is nothing more to say (RFC 6455 5.5.1).
    pub const fn closed(&self) -> bool {
        self.closed
    }

    fn head_bytes(&self) -> usize {
        let Some(second) = self.head.get(1).filter(|_| self.have >= 2) else { return 2 };
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if second & 0x80 == 0 { 0 } else { 4 }
    }

    fn payload_bytes(&self) -> u64 {
        let [_, second, rest @ ..] = self.head;
        let length = |bytes: &[u8]| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        match second & 0x7f {
            126 => length(rest.get(..2).unwrap_or_default()),
            127 => length(rest.get(..8).unwrap_or_default()),
            short => u64::from(short),
        }
    }
}

/// A close frame of a server's (RFC 6455 5.5.1), with at most 123 bytes of reason.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let reason = reason.as_bytes().get(..reason.len().min(123)).unwrap_or_default();
    let length = u8::try_from(2 + reason.len()).unwrap_or(2);
    [&[0x80 | OPCODE_CLOSE, length], &code.to_be_bytes()[..], reason].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload {
            0..126 => frame.push(mask | u8::try_from(payload).unwrap()),
            126..65_536 => {
                frame.push(mask + 126);
                frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask + 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.resize(frame.len() + payload, 0x88);
        frame
    }

    #[test]
    fn a_frame_ends_where_its_length_says() {
        for payload in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for masked in [false, true] {
                let bytes = frame(1, payload, masked);
                let mut frames = Frames::default();
                assert!(frames.at_boundary());
                assert_eq!(frames.advance(&[bytes.clone(), vec![0x81]].concat()), bytes.len(), "{payload}");
                assert!(frames.at_boundary(), "{payload}");
                frames.pass(&bytes[..bytes.len() - 1]);
                assert!(!frames.at_boundary(), "{payload}");
                assert_eq!(frames.advance(&bytes[bytes.len() - 1..]), 1);
                assert!(frames.at_boundary() && !frames.closed(), "{payload}");
            }
        }
    }

    #[test]
    fn a_length_beyond_all_bounds_is_a_frame_without_end() {
        let mut frames = Frames::default();
        frames.pass(&[&[0x82, 127][..], &[0xff; 8], &vec![0; 100_000]].concat());
        assert!(!frames.at_boundary());
    }

    #[test]
    fn what_we_say_is_one_close_frame() {
        for reason in ["", "credential revoked", &"a".repeat(200)] {
            let bytes = close(4401, reason);
            let mut frames = Frames::default();
            assert_eq!(frames.advance(&bytes), bytes.len());
            assert!(frames.at_boundary() && frames.closed());
            assert_eq!(bytes[2..4], 4401_u16.to_be_bytes());
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_are_cut(
            lengths in proptest::collection::vec(0_usize..300, 1..5), bytes in any::<Vec<u8>>(), at in any::<usize>(),
        ) {
            for bytes in [lengths.iter().flat_map(|&length| frame(2, length, length % 2 == 0)).collect(), bytes] {
                let cut = at % (bytes.len() + 1);
                let (mut whole, mut parts) = (Frames::default(), Frames::default());
                whole.pass(&bytes);
                parts.pass(&bytes[..cut]);
                parts.pass(&bytes[cut..]);
                prop_assert_eq!((whole.at_boundary(), whole.left), (parts.at_boundary(), parts.left));
            }
        }
    }
}

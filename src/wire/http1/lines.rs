//! Fields of a response that are handed on as they are written, without a map that would be made to be written again.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::encode::CRLF;

/// Lines of a head, each whole and with its end: no field among them frames, is of one hop, or is the request's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    pub(crate) text: Bytes,
    /// Whether `Date` is among them.
    pub(crate) dated: bool,
    /// Of the request, once it is known.
    pub(crate) request_id: Option<HeaderValue>,
}

impl Lines {
    /// These lines.
    pub const fn new(text: Bytes, dated: bool) -> Self {
        Self { text, dated, request_id: None }
    }
}

/// Where fields go that are said one after the other.
pub(crate) trait Fields {
    /// One that is there already.
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue);

    /// One that is made for this message: `write` gives visible ASCII, or what was a field's value before.
    fn make(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>));
}

/// To the lines of a head.
pub(crate) struct Head<'a>(pub(crate) &'a mut Vec<u8>);

impl Fields for Head<'_> {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.make(name, |text| text.extend_from_slice(value.as_bytes()));
    }

    fn make(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(name.as_str().as_bytes());
        self.0.extend_from_slice(b": ");
        write(self.0);
        self.0.extend_from_slice(CRLF);
    }
}

impl Fields for HeaderMap {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name, value.clone());
    }

    fn make(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        let mut text = Vec::new();
        write(&mut text);
        // if it were no value, nothing is told rather than something else
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
            self.append(name, value);
        }
    }
}

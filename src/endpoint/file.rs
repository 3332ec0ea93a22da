//! What an endpoint answers with as it is: bytes that were there, or were made, when the configuration was read.
//!
//! Every answer has an entity tag and is conditional (RFC 9110 13); what is kept packed is sent packed to whoever takes
//! gzip, and unpacked at most once for all others.

use std::fmt;
use std::io::Read as _;
use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use crate::rejection::Rejection;
use crate::wire::accept;
use crate::wire::body::Body;

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The longest that a packed file may become, in bytes.
const UNPACKED_BYTES_MAX: u64 = 16 << 20;

/// How long a caller may keep a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// As long as asking again says that it is still the same.
    WhileSame,
    /// For good: its name has the digest of its content in it.
    ForGood,
}

/// A file.
pub struct File {
    content: Content,
    media_type: &'static str,
    kept: Kept,
    /// The opaque part of its entity tag.
    digest: String,
    /// The policy of a page (CSP), which no page of others may frame.
    policy: Option<&'static str>,
}

enum Content {
    Plain(Bytes),
    /// Packed by gzip, and what it was once somebody wanted that.
    Packed(&'static [u8], OnceLock<Bytes>),
}

impl File {
    /// A file of these bytes.
    pub fn plain(media_type: &'static str, kept: Kept, bytes: Bytes) -> Self {
        Self { digest: digest_text(&bytes), content: Content::Plain(bytes), media_type, kept, policy: None }
    }

    /// A file that is kept packed by gzip.
    pub fn packed(media_type: &'static str, kept: Kept, packed: &'static [u8]) -> Self {
        let content = Content::Packed(packed, OnceLock::new());
        Self { digest: digest_text(packed), content, media_type, kept, policy: None }
    }

    /// The file as a page under this policy (CSP).
    #[must_use]
    pub fn under(self, policy: &'static str) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// How long a caller may keep it.
    pub const fn kept(&self) -> Kept {
        self.kept
    }

    /// A text that another content would not have; of `[A-Za-z0-9_-]`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The answer to a request of this method and with these fields.
    ///
    /// # Errors
    /// [`Rejection::Internal`] where a packed file cannot be unpacked: it is part of the program.
    pub fn answer(
        &self,
        status: StatusCode,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Rejection> {
        let (bytes, coding) = match &self.content {
            Content::Plain(bytes) => (bytes.clone(), None),
            Content::Packed(packed, _) if takes_gzip(headers) => (Bytes::from_static(packed), Some("gzip")),
            Content::Packed(packed, plain) => (unpacked(packed, plain)?, None),
        };
        // two representations, two tags: a tag is strong (RFC 9110 8.8.3.3)
        let tag =
            coding.map_or_else(|| format!("\"{}\"", self.digest), |coding| format!("\"{}-{coding}\"", self.digest));
        let mut response = Response::new(Body::empty());
        self.write(response.headers_mut(), &tag);
        if is_known(headers, &tag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        *response.status_mut() = status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        fields.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        if let Some(coding) = coding {
            fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        Ok(if method == Method::HEAD { response } else { response.map(|_| Body::full(bytes)) })
    }

    fn write(&self, fields: &mut HeaderMap, tag: &str) {
        let mut set = |name, value: &'static str| drop(fields.insert(name, HeaderValue::from_static(value)));
        set(
            CACHE_CONTROL,
            match self.kept {
                Kept::WhileSame => "no-cache",
                Kept::ForGood => "public, max-age=31536000, immutable",
            },
        );
        set(X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(CROSS_ORIGIN_RESOURCE_POLICY, "same-origin");
        if matches!(self.content, Content::Packed(..)) {
            set(VARY, "Accept-Encoding");
        }
        if let Some(policy) = self.policy {
            set(CONTENT_SECURITY_POLICY, policy);
            // for browsers that do not know `frame-ancestors`
            set(X_FRAME_OPTIONS, "DENY");
            set(REFERRER_POLICY, "no-referrer");
            set(CROSS_ORIGIN_OPENER_POLICY, "same-origin");
        }
        if let Ok(tag) = HeaderValue::from_str(tag) {
            fields.insert(ETAG, tag);
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("media_type", &self.media_type)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

fn digest_text(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    URL_SAFE_NO_PAD.encode(digest.as_ref().get(..12).unwrap_or_default())
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().any(|value| accept::takes_gzip(value.as_bytes()))
}

/// Whether the caller has what this tag stands for (RFC 9110 13.1.2, by the weak comparison of 8.8.3.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| {
            let known = known.trim();
            known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
        })
}

fn unpacked(packed: &[u8], plain: &OnceLock<Bytes>) -> Result<Bytes, Rejection> {
    if let Some(bytes) = plain.get() {
        return Ok(bytes.clone());
    }
    let mut bytes = Vec::new();
    GzDecoder::new(packed).take(UNPACKED_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| {
        tracing::error!(%error, "a file of the program is broken");
        Rejection::Internal
    })?;
    Ok(plain.get_or_init(|| bytes.into()).clone())
}

//! stub
use http::{HeaderMap, HeaderName};
/// The names of the identity headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityNames { /** u */ pub user: Option<HeaderName>, /** r */ pub roles: Option<HeaderName>, /** s */ pub scheme: Option<HeaderName> }
/// Removes trailers that may not pass.
pub fn keep_trailers(_trailers: &mut HeaderMap) { todo!() }

//! stub
use http::HeaderValue;
use crate::principal::Scheme;
/// One challenge.
pub struct Challenge<'a> { /** s */ pub scheme: Scheme, /** r */ pub realm: &'a str, /** code, description */ pub error: Option<(&'a str, &'a str)> }
/// The field value.
pub fn challenge(_challenge: &Challenge<'_>) -> HeaderValue { todo!() }

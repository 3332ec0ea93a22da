//! stub
/// Keys.
#[derive(Debug)]
pub struct KeyRing;

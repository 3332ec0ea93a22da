//! stub
/// A path pattern.
#[derive(Clone, Debug)]
pub struct Pattern;

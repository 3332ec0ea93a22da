//! stub
/// A reply.
#[derive(Clone, Debug)]
pub struct Reply;

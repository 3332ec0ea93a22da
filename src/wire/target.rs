//! stub
/// The section `paths`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathPolicy { /** %2F */ pub keep_encoded_slash: bool, /** %3F, %23 */ pub keep_encoded_query: bool, /** ; */ pub keep_semicolon: bool, /** // */ pub merge_empty_segments: bool }

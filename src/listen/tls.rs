//! stub
/// tls
#[derive(Debug)]
pub struct Settings;

//! stub
/// All routes.
#[derive(Debug)]
pub struct Table;
/// Why no route decides.
#[derive(Debug)]
pub enum Miss { /** 404 */ NotFound, /** 405 */ MethodNotAllowed(http::HeaderValue) }

//! Commands.

pub mod check;
pub mod operator;
pub mod secrets;
pub mod accounts;
pub mod import;
pub mod tokens;
pub mod keys;

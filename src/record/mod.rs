//! What is known of requests, told: metrics, the access log, the audit log. Lowest in imports: anyone may record.

pub mod exchange;
pub mod metrics;
pub mod lines;
mod access_log;
pub mod audit;
pub mod told;

/// The section `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is an access log.
    pub access: bool,
    /// Whether there is an audit log.
    pub audit: bool,
    /// How much the process says of itself.
    pub level: tracing::Level,
}

//! The gateway as its users meet it: the built program over real sockets, asked what its documentation promises.
//!
//! One file a capability. `tests/run.sh` installs the outside programs that some of them use.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking; the lints' exemption for tests does not reach its helpers"
)]
#![allow(clippy::disallowed_methods, reason = "tests wait in real time and read their own environment")]
#![allow(unreachable_pub, missing_docs, reason = "nobody imports a test binary")]
#![allow(
    clippy::needless_pass_by_value,
    clippy::format_collect,
    clippy::similar_names,
    reason = "tests read better so"
)]
#![allow(clippy::too_many_lines, reason = "a table of cases is as long as its cases")]

mod support;

mod basic;
mod bearer;
mod issuers;
mod token;
mod routes;
mod paths;
mod errors;
mod identity;
mod limits;
mod shared_limits;
mod clusters;
mod time;
mod timing;
mod endpoints;
mod oauth;
mod clients;
mod docs;
mod revocation;
mod forwarding;
mod http2;
mod upgrade;
mod tls;
mod reload;
mod kept;
mod listeners;
mod drain;
mod cli;
mod configuration;
mod rules;
mod explaining;
mod widening;
mod schema;
mod workflow;
mod metrics;
mod audit;
mod secrets;
mod slow;
mod smuggling;
mod stores;
mod deploy;
mod cors;
mod streams;
mod floods;
mod memory;
mod faults;
mod attacks_framing;
mod attacks_http1;
mod attacks_identity;
mod attacks_jwt;
mod attacks_paths;
mod bad_environment;
mod outside;
mod guides;
mod cases;
mod examples;
mod libraries;

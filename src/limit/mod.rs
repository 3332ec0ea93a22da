//! Which budgets a request draws on, and spending them.
//!
//! Every budget is a GCRA cell (governor) in a bounded set; an IPv6 address counts by its /64.

pub mod bucket;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::principal::Subject;
use crate::rejection::Exhausted;

/// A budget such as `30/m` with a burst: `count` requests per `per`, at most `burst` at once. None of them is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests per window.
    pub count: NonZeroU32,
    /// The window.
    pub per: Duration,
    /// How many at once.
    pub burst: NonZeroU32,
}

/// The section `limits`, as far as it is about rates. `None`: off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Requests to token endpoints from one address.
    pub per_address: Option<Quota>,
    /// Failed attempts for one account from one address.
    pub per_account: Option<Quota>,
    /// Failed attempts for one account from all addresses.
    pub per_account_anywhere: Option<Quota>,
    /// Failed credentials from one address, on any route.
    pub unauthenticated: Option<Quota>,
}

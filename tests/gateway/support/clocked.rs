//! The gateway inside the test's process, so that its clock can be moved.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis::cli::{Running, background, start};
use portcullis::clock::Clock;
use tokio::runtime::Runtime;

use super::client::{Connection, Request, Response};
use super::gateway::Setup;

/// A gateway whose time a test moves. Its logs are off: they would go to the test's own output.
pub struct Clocked {
    running: Option<(Running, Runtime)>,
    clock: Clock,
    address: SocketAddr,
    _setup: Setup,
}

impl Clocked {
    pub fn start(yaml: &str) -> Self {
        let setup = Setup::new(&format!("log: {{ access: off, audit: off }}\n{yaml}"));
        let clock = Clock::system();
        let background = background().unwrap();
        let running = start(&setup.path("gateway.yaml"), clock.clone(), background.handle())
            .unwrap_or_else(|error| panic!("{error}"));
        let address = running.listeners()[0].address;
        Self { running: Some((running, background)), clock, address, _setup: setup }
    }

    pub fn send(&self, request: &Request) -> Response {
        Connection::plain(self.address).send(request)
    }

    /// Sets the wall clock, and only that.
    pub fn step(&self, seconds: i64) {
        self.clock.step(seconds);
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

impl Drop for Clocked {
    fn drop(&mut self) {
        if let Some((running, background)) = self.running.take() {
            running.drain(background);
        }
    }
}

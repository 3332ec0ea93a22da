//! `echo --listen ADDRESS`: the built-in echo upstream as a server of its own.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};

use super::BROKEN;
use crate::forward::echo::serve;
use crate::listen::reason;

/// Serves until it is ended by a signal.
#[expect(clippy::print_stderr, reason = "this is a command")]
pub(super) fn echo(address: SocketAddr) -> ExitCode {
    match listen(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portcullis: cannot listen on {address}: {}", reason(&error));
            ExitCode::from(BROKEN)
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is a command")]
fn listen(address: SocketAddr) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        eprintln!("portcullis: echo on http://{}", listener.local_addr()?);
        serve(listener).await
    })
}

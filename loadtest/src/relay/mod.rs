//! The floors: a blind byte relay, on epoll and on io_uring.
//!
//! A relay accepts a connection, opens one of its own to the backend, and copies bytes both ways without looking at
//! them. Nothing that runs in user space on one thread can forward a request for less, so its CPU per request is the
//! line every proxy is measured against. What it leaves out (parsing, routing, pooling) is what a proxy pays for.

mod epoll;
mod uring;

use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

/// The kernel interface the relay waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    Epoll,
    #[value(name = "io_uring")]
    IoUring,
}

#[derive(Args, Debug)]
pub struct RelayArgs {
    /// Kernel interface to wait on
    #[arg(long)]
    pub driver: Driver,
    /// Address to accept on
    #[arg(long, default_value = "127.0.0.1:9002")]
    pub listen: SocketAddr,
    /// Address every accepted connection is relayed to
    #[arg(long, default_value = "127.0.0.1:9001")]
    pub upstream: SocketAddr,
}

/// What one receive may take: large enough that a 64 KiB answer is not cut into many system calls.
const BUFFER_BYTES: usize = 64 * 1024;

/// Relays until the process is ended.
pub fn run(args: &RelayArgs) -> Result<()> {
    let listener = TcpListener::bind(args.listen).with_context(|| format!("listen on {}", args.listen))?;
    println!("listening on {}", listener.local_addr()?);
    match args.driver {
        Driver::Epoll => epoll::run(&listener, args.upstream),
        Driver::IoUring => uring::run(&listener, args.upstream),
    }
}

/// Opens the second leg of an accepted connection; both legs send small messages at once.
///
/// The connect blocks: on loopback it takes microseconds, and it is paid once a connection, never per request.
fn second_leg(client: &TcpStream, upstream: SocketAddr) -> std::io::Result<TcpStream> {
    let backend = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    backend.set_nodelay(true)?;
    Ok(backend)
}

//! A node on tokio: the host's runtime runs its tasks, opens its sockets and keeps its timers.
//!
//! ```sh
//! cargo run --release --example tokio_host
//! cargo run --release --example tokio_host -- --network regtest --connect 127.0.0.1:18444
//! ```

mod hosts;

use core::time::Duration;
use futures::future::BoxFuture;
use headlong::net::{BoxStream, Executor, Listener, Transport};
use headlong::{Handle, PeerAddress};
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

/// Tasks and timers of a tokio runtime.
#[derive(Debug)]
struct TokioExecutor(tokio::runtime::Handle);

impl Executor for TokioExecutor {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.0.spawn(future);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.0.spawn_blocking(work);
    }

    fn timer(&self, wait: Duration) -> BoxFuture<'static, ()> {
        // A timer belongs to the runtime in whose context it is made; a handle may be used outside of it.
        let _context = self.0.enter();
        Box::pin(tokio::time::sleep(wait))
    }
}

/// Sockets of a tokio runtime.
#[derive(Debug)]
struct TokioTransport;

impl Transport for TokioTransport {
    fn dial(&self, address: &PeerAddress) -> BoxFuture<'static, io::Result<BoxStream>> {
        // The text is what tokio resolves; an IP address needs no resolving.
        let address = address.to_string();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream.compat()) as BoxStream)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            Ok(Box::new(TokioListener(TcpListener::bind(address).await?)) as Box<dyn Listener>)
        })
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

struct TokioListener(TcpListener);

impl Listener for TokioListener {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, address) = self.0.accept().await?;
            Ok((Box::new(stream.compat()) as BoxStream, address))
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plan = hosts::Plan::from_arguments()?;
    let (node, handle) = plan
        .builder()
        .executor(TokioExecutor(tokio::runtime::Handle::current()))
        .transport(TokioTransport)
        .build()?;
    let running = tokio::spawn(node.run());
    tokio::spawn(watch(handle.clone()));
    let tip = tokio::select! {
        tip = handle.wait_synced() => tip?,
        interrupt = tokio::signal::ctrl_c() => { interrupt?; handle.tip().await? }
    };
    println!("at {} {}", tip.height, tip.hash);
    let durable = handle.shutdown().await?;
    running.await??;
    println!("stopped at {} {}", durable.height, durable.hash);
    Ok(())
}

/// Shows the status while it changes.
async fn watch(handle: Handle) {
    let mut version = 0;
    while let Ok(status) = handle.status_changed(version).await {
        version = status.version;
        hosts::show(&status);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

//! A node on smol: the host's executor runs its tasks, opens its sockets and keeps its timers.
//!
//! ```sh
//! cargo run --release --example smol_host
//! cargo run --release --example smol_host -- --network regtest --connect 127.0.0.1:18444
//! ```

mod hosts;

use core::time::Duration;
use futures::future::BoxFuture;
use headlong::net::{BoxStream, Executor, Listener, Transport};
use headlong::{Handle, PeerAddress};
use smol::net::{TcpListener, TcpStream};
use std::io;
use std::net::SocketAddr;

/// smol's global executor and its reactor's timers.
#[derive(Debug)]
struct SmolExecutor;

impl Executor for SmolExecutor {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        smol::spawn(future).detach();
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        smol::unblock(work).detach();
    }

    fn timer(&self, wait: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            smol::Timer::after(wait).await;
        })
    }
}

/// smol's sockets, whose streams are `futures::io` streams already.
#[derive(Debug)]
struct SmolTransport;

impl Transport for SmolTransport {
    fn dial(&self, address: &PeerAddress) -> BoxFuture<'static, io::Result<BoxStream>> {
        let address = address.to_string();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(
            async move { Ok(Box::new(SmolListener(TcpListener::bind(address).await?)) as Box<dyn Listener>) },
        )
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(smol::net::resolve((host, port)))
    }
}

struct SmolListener(TcpListener);

impl Listener for SmolListener {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, address) = self.0.accept().await?;
            Ok((Box::new(stream) as BoxStream, address))
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    smol::block_on(async {
        let plan = hosts::Plan::from_arguments()?;
        let (node, handle) = plan.builder().executor(SmolExecutor).transport(SmolTransport).build()?;
        let running = smol::spawn(node.run());
        let watching = smol::spawn(watch(handle.clone()));
        let tip = handle.wait_synced().await?;
        println!("at {} {}", tip.height, tip.hash);
        let durable = handle.shutdown().await?;
        running.await?;
        watching.await;
        println!("stopped at {} {}", durable.height, durable.hash);
        Ok(())
    })
}

/// Shows the status while it changes.
async fn watch(handle: Handle) {
    let mut version = 0;
    while let Ok(status) = handle.status_changed(version).await {
        version = status.version;
        hosts::show(&status);
        smol::Timer::after(Duration::from_millis(200)).await;
    }
}

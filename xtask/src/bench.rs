//! The release build beside the peers that are installed, by `hypercache bench --against`.

use crate::process::{cargo, run, works};
use anyhow::{Result, bail};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const OURS: u16 = 17001;
pub(crate) const PEER: u16 = 17002;

/// A server that ends with this value.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It is being thrown away: whether it still ran does not matter.
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

/// Starts a server pinned to one core and waits until it answers.
pub(crate) fn start(core: u32, program: &str, args: &[&str], port: u16) -> Result<Server> {
    let mut command = Command::new("taskset");
    if let (Ok(library), false) = (std::env::var("PEER_PRELOAD"), port == OURS) {
        command.env("LD_PRELOAD", library);
    }
    command.args(["-c", &core.to_string(), program]).args(args);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let server = Server(child);
    for _ in 0..100 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{program} does not answer on port {port}")
}

/// The peers: those that VALKEY_SERVER and REDIS_SERVER name, or else those that are installed. With
/// PEER_PRELOAD they run with another library, as an allocator that they were built without.
pub(crate) fn peers() -> Result<Vec<String>> {
    let named =
        ["VALKEY_SERVER", "REDIS_SERVER"].iter().filter_map(|name| std::env::var(name).ok());
    let mut peers: Vec<String> = named.collect();
    if peers.is_empty() {
        peers = ["valkey-server", "redis-server"].map(str::to_owned).into();
    }
    peers.retain(|program| works(program, &["--version"]));
    if peers.is_empty() {
        bail!("no peer found: install valkey-server or redis-server, or set VALKEY_SERVER");
    }
    Ok(peers)
}

/// Measures GET and SET at three pipeline depths against each peer found. `options` go to
/// `hypercache bench`.
pub(crate) fn bench(options: &[&str]) -> Result<()> {
    cargo(&["build", "--release", "--package", "hypercache"])?;
    let ours = "target/release/hypercache";
    let port = OURS.to_string();
    let _ours = start(0, ours, &["--port", &port, "--threads", "1"], OURS)?;
    for peer in peers()? {
        println!("\n== against {peer}");
        let port = PEER.to_string();
        let _peer = start(0, &peer, &["--port", &port, "--save", ""], PEER)?;
        for pipeline in ["1", "16", "64"] {
            for workload in ["get", "set"] {
                let against = format!("127.0.0.1:{PEER}");
                let ours_port = OURS.to_string();
                let fixed = ["-c", "1", ours, "bench", "--port", &ours_port, "--against", &against];
                let shape = ["--pipeline", pipeline, "--workload", workload];
                run("taskset", &[&fixed[..], &shape, options].concat())?;
            }
        }
    }
    Ok(())
}

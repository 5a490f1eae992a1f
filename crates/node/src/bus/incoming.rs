//! Connections that others opened: a thread each, which reads frames and hands them on.

use super::{Bus, greet};
use hypercache_cluster::bus::{Frame, Hello, Lane};
use hypercache_cluster::ids::NodeId;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 1024;
/// How often a reader looks whether it is to end.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Silent reads after which the peer is taken for gone: it pings once a second.
const SILENT_READS_MAX: u32 = 10;
const READ_BYTES: usize = 64 << 10;
/// A buffer that grew beyond this is not kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Accepts connections until the bus ends.
pub(super) fn listen(bus: &Arc<Bus>, listener: &TcpListener) {
    for stream in listener.incoming() {
        if bus.is_over.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of descriptors, or the peer is gone already.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let Some(number) = bus.admit(&stream, CONNECTIONS_MAX) else { continue };
        let own = Arc::clone(bus);
        let body = move || {
            serve(&own, stream);
            own.dismiss(number);
        };
        if bus.spawn("bus-reader", body).is_err() {
            bus.dismiss(number);
        }
    }
}

fn serve(bus: &Arc<Bus>, mut stream: TcpStream) {
    let hello = match greet::accept(bus, &mut stream) {
        Ok(hello) => hello,
        Err(why) => {
            let from = stream.peer_addr().map_or_else(|_| "a node".to_owned(), |a| a.to_string());
            tracing::info!("connection of {from} refused: {why}");
            return;
        }
    };
    let Hello { lane, from, address, boot, .. } = hello;
    if lane == Lane::Probe {
        return;
    }
    bus.learn_greeting(from, address);
    tracing::debug!("node {:016x} connected, start {boot:016x}", from.0);
    let why = read_all(bus, &mut stream, from);
    tracing::debug!("connection of node {:016x} ended: {why}", from.0);
}

fn read_all(bus: &Arc<Bus>, stream: &mut TcpStream, from: NodeId) -> String {
    let mut buffer = Vec::new();
    let mut silent = 0;
    if let Err(error) = stream.set_read_timeout(Some(READ_TIMEOUT)) {
        return error.to_string();
    }
    while !bus.is_over.load(Ordering::Relaxed) {
        if bus.is_removed(from) {
            return "it was removed from the cluster".to_owned();
        }
        let filled = buffer.len();
        buffer.resize(filled + READ_BYTES, 0);
        let read = stream.read(&mut buffer[filled..]);
        buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return "it was closed".to_owned(),
            Ok(_) => silent = 0,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                silent += 1;
                if silent > SILENT_READS_MAX {
                    return "nothing came for 10 s".to_owned();
                }
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.to_string(),
        }
        if let Err(why) = hand_on(bus, from, &mut buffer) {
            tracing::warn!("node {:016x} sent what is no frame: {why}", from.0);
            return why;
        }
    }
    "this node stops".to_owned()
}

/// Hands on all complete frames, and keeps the rest.
fn hand_on(bus: &Arc<Bus>, from: NodeId, buffer: &mut Vec<u8>) -> Result<(), String> {
    let mut done = 0;
    loop {
        match Frame::decode(&buffer[done..]) {
            Ok(None) => break,
            Ok(Some((frame, length))) => {
                done += length;
                bus.received.fetch_add(length as u64, Ordering::Relaxed);
                bus.sink.receive(from, frame);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    if done > 0 {
        bus.heard(from);
        bus.sink.end_of_turn();
        buffer.drain(..done);
        if buffer.is_empty() && buffer.capacity() > KEPT_BYTES_MAX {
            *buffer = Vec::new();
        }
    }
    Ok(())
}

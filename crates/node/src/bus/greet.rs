//! The greeting at the beginning of a connection, from both sides: see `hypercache_cluster::bus`.

use super::Bus;
use crate::secret::nonce;
use hypercache_cluster::bus::{Frame, Hello, Lane, PROTOCOL_MAX, PROTOCOL_MIN, Welcome};
use hypercache_cluster::frame::HEADER_BYTES;
use hypercache_cluster::ids::NodeId;
use hypercache_cluster::meta::NodeAddress;
use hypercache_stdx::clock;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Each word of a greeting must come within this time.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
/// What comes from a stranger may be so long. A list of 256 nodes with long names fits.
const STRANGER_BYTES_MAX: usize = 80 << 10;

/// A connection that is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting<'a> {
    pub(super) bus: &'a Bus,
    pub(super) lane: Lane,
    /// 0 for whoever is there.
    pub(super) to: NodeId,
}

/// Who was met.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    pub(crate) node: NodeId,
    pub(crate) cluster: u64,
    /// The cluster's other nodes.
    pub(crate) ready: Vec<(NodeId, NodeAddress)>,
}

fn say(stream: &mut TcpStream, frame: &Frame) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    stream.write_all(&bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Reads all of `bytes`, unless that takes too long, however the bytes come.
fn fill(stream: &mut TcpStream, mut bytes: &mut [u8], until_us: u64) -> Result<(), String> {
    while !bytes.is_empty() {
        if clock::boot_us() > until_us {
            return Err("no greeting: it takes too long".to_owned());
        }
        match stream.read(bytes) {
            Ok(0) => return Err("no greeting: it was closed".to_owned()),
            Ok(n) => bytes = &mut bytes[n..],
            Err(error) => return Err(format!("no greeting: {error}")),
        }
    }
    Ok(())
}

/// Reads one frame and not a byte more. Returns it and its bytes.
fn hear(stream: &mut TcpStream) -> Result<(Frame, Vec<u8>), String> {
    let mut bytes = vec![0; HEADER_BYTES];
    let until_us = clock::boot_us() + GREETING_TIMEOUT.as_micros() as u64;
    fill(stream, &mut bytes, until_us)?;
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if length > STRANGER_BYTES_MAX {
        return Err("it speaks another protocol".to_owned());
    }
    bytes.resize(HEADER_BYTES + length, 0);
    fill(stream, &mut bytes[HEADER_BYTES..], until_us)?;
    match Frame::decode(&bytes) {
        Ok(Some((Frame::Refused(why), _))) => Err(format!("it refuses: {why}")),
        Ok(Some((frame, _))) => Ok((frame, bytes)),
        Ok(None) => Err("it speaks another protocol".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What both proofs are over: the welcome without its own proof.
fn signed(welcome: &Welcome) -> Vec<u8> {
    let mut bytes = Vec::new();
    Frame::Welcome(Welcome { proof: [0; 32], ..welcome.clone() }).encode(&mut bytes);
    bytes
}

fn open(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    let mut last = format!("{host} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// Connects and greets.
pub(super) fn connect(
    greeting: &Greeting<'_>,
    host: &str,
    port: u16,
) -> Result<(TcpStream, Met), String> {
    let mut stream = open(host, port)?;
    prepare(&stream)?;
    let bus = greeting.bus;
    let hello = Hello {
        protocol: (PROTOCOL_MIN, PROTOCOL_MAX),
        lane: greeting.lane,
        cluster: bus.cluster(),
        from: bus.me,
        to: greeting.to,
        boot: bus.boot,
        address: bus.address.clone(),
        nonce: nonce(),
    };
    let hello = say(&mut stream, &Frame::Hello(hello))?;
    let (Frame::Welcome(welcome), _) = hear(&mut stream)? else {
        return Err("it speaks another protocol".to_owned());
    };
    let signed = signed(&welcome);
    if !bus.secret.accepts(&welcome.proof, "welcome", [&hello, &signed]) {
        let why = "it has another cluster-secret".to_owned();
        let _best_effort = say(&mut stream, &Frame::Refused(why.clone()));
        return Err(why);
    }
    check_welcome(greeting, &welcome)?;
    say(&mut stream, &Frame::Proof(bus.secret.proof("hello", [&hello, &signed])))?;
    let (Frame::Ready(ready), _) = hear(&mut stream)? else {
        return Err("it speaks another protocol".to_owned());
    };
    Ok((stream, Met { node: welcome.from, cluster: welcome.cluster, ready }))
}

fn prepare(stream: &TcpStream) -> Result<(), String> {
    let set = || {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GREETING_TIMEOUT))?;
        stream.set_write_timeout(Some(GREETING_TIMEOUT))
    };
    set().map_err(|error: std::io::Error| error.to_string())
}

fn check_welcome(greeting: &Greeting<'_>, welcome: &Welcome) -> Result<(), String> {
    let (ours, theirs) = (greeting.bus.cluster(), welcome.cluster);
    if welcome.from == greeting.bus.me {
        return Err("that is this node itself".to_owned());
    }
    if greeting.to.0 != 0 && welcome.from != greeting.to {
        return Err(format!("node {:016x} is at this address", welcome.from.0));
    }
    if theirs == 0 || (ours != 0 && ours != theirs) {
        return Err(other_cluster(theirs, ours));
    }
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&welcome.protocol) {
        return Err(format!("it speaks version {} of the protocol", welcome.protocol));
    }
    Ok(())
}

fn other_cluster(theirs: u64, ours: u64) -> String {
    if theirs == 0 {
        return "it has not joined a cluster yet".to_owned();
    }
    format!("it is of cluster {theirs:016x}, this node of {ours:016x}")
}

/// Greets who connected. Returns its greeting.
pub(super) fn accept(bus: &Bus, stream: &mut TcpStream) -> Result<Hello, String> {
    prepare(stream)?;
    let (Frame::Hello(hello), heard) = hear(stream)? else {
        return Err("it speaks another protocol".to_owned());
    };
    let protocol = match check_hello(bus, &hello) {
        Ok(protocol) => protocol,
        Err(why) => {
            let _best_effort = say(stream, &Frame::Refused(why.clone()));
            return Err(why);
        }
    };
    let mut welcome = Welcome {
        protocol,
        cluster: bus.cluster(),
        from: bus.me,
        boot: bus.boot,
        nonce: nonce(),
        proof: [0; 32],
    };
    let signed = signed(&welcome);
    welcome.proof = bus.secret.proof("welcome", [&heard, &signed]);
    say(stream, &Frame::Welcome(welcome))?;
    let (Frame::Proof(proof), _) = hear(stream)? else {
        return Err("it speaks another protocol".to_owned());
    };
    if !bus.secret.accepts(&proof, "hello", [&heard, &signed]) {
        let why = "it has another cluster-secret".to_owned();
        let _best_effort = say(stream, &Frame::Refused(why.clone()));
        return Err(why);
    }
    say(stream, &Frame::Ready(bus.known()))?;
    Ok(hello)
}

fn check_hello(bus: &Bus, hello: &Hello) -> Result<u8, String> {
    let ours = bus.cluster();
    let (oldest, newest) = hello.protocol;
    let protocol = newest.min(PROTOCOL_MAX);
    if protocol < oldest.max(PROTOCOL_MIN) {
        return Err(format!(
            "versions {oldest} to {newest} of the protocol, here {PROTOCOL_MIN} to {PROTOCOL_MAX}"
        ));
    }
    if ours == 0 {
        return Err("this node has not joined a cluster yet".to_owned());
    }
    if hello.cluster != 0 && hello.cluster != ours {
        return Err(format!("this node is of cluster {ours:016x}, not {:016x}", hello.cluster));
    }
    if hello.to.0 != 0 && hello.to != bus.me {
        return Err(format!("this is node {:016x}, not {:016x}", bus.me.0, hello.to.0));
    }
    if bus.is_removed(hello.from) {
        return Err("it was removed from this cluster".to_owned());
    }
    if hello.from == bus.me || hello.from.0 == 0 {
        return Err("this is the node itself".to_owned());
    }
    Ok(protocol)
}

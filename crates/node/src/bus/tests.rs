//! Buses that talk to each other, and to what is no bus.

use super::*;
use hypercache_cluster::ids::{Epoch, PartitionId};
use hypercache_cluster::message::Seal;
use std::io::Write as _;
use std::net::Ipv4Addr;

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<(NodeId, Frame)>>);

impl Sink for Heard {
    fn receive(&self, from: NodeId, frame: Frame) {
        if frame != Frame::Ping {
            lock(&self.0).push((from, frame));
        }
    }

    fn end_of_turn(&self) {}

    fn link_changed(&self, _: NodeId, _: Lane, _: bool) {}
}

struct Side {
    bus: Arc<Bus>,
    heard: Arc<Heard>,
    at: NodeAddress,
}

impl Side {
    fn new(node: u64, cluster: u64, secret: &str) -> Side {
        let heard = Arc::new(Heard::default());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let at = NodeAddress { host: "127.0.0.1".to_owned(), port: 1, bus_port: port };
        let options = BusOptions {
            me: NodeId(node),
            boot: node,
            cluster,
            address: at.clone(),
            secret: Secret::new(Some(secret)),
        };
        let bus = Bus::new(options, Arc::clone(&heard) as Arc<dyn Sink>);
        bus.listen(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], port).expect("it is free");
        Side { bus, heard, at }
    }

    fn heard(&self) -> Vec<(NodeId, Frame)> {
        lock(&self.heard.0).clone()
    }

    fn probe(&self, other: &Side) -> Result<NodeId, String> {
        self.bus.probe("127.0.0.1", other.at.bus_port).map(|met| met.node)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.bus.end();
    }
}

fn seal(n: u64) -> Message {
    Message::Seal(Seal { partition: PartitionId(0), epoch: Epoch(n) })
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}");
}

#[test]
fn messages_arrive_in_order_after_a_flush() {
    let (a, b) = (Side::new(1, 7, "s"), Side::new(2, 7, "s"));
    a.bus.learn_hint(NodeId(2), b.at.clone());
    eventually("a link is made", || a.bus.status()[0].data.is_up && a.bus.is_up(NodeId(2)));
    eventually("the other way, too", || b.bus.is_up(NodeId(1)));
    (0..1000).for_each(|n| a.bus.send_data(NodeId(2), &seal(n)));
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(b.heard(), [], "nothing leaves before the flush");
    a.bus.flush();
    let all: Vec<_> = (0..1000).map(|n| (NodeId(1), Frame::Message(seal(n)))).collect();
    eventually("all arrive", || b.heard() == all);
    b.bus.send(NodeId(1), &Frame::HandOver { partition: PartitionId(3), to: Default::default() });
    eventually("an answer arrives", || a.heard().len() == 1);
}

#[test]
fn who_is_not_meant_is_refused() {
    let (a, b) = (Side::new(1, 7, "s"), Side::new(2, 7, "s"));
    let (stranger, elsewhere) = (Side::new(3, 7, "other"), Side::new(4, 8, "s"));
    let joiner = Side::new(5, 0, "s");
    assert_eq!(a.probe(&b), Ok(NodeId(2)));
    assert_eq!(joiner.probe(&b), Ok(NodeId(2)));
    let says = |probed: Result<NodeId, String>, what: &str| {
        assert!(
            probed.as_ref().is_err_and(|why| why.contains(what)),
            "{probed:?} without {what:?}"
        );
    };
    says(stranger.probe(&b), "another cluster-secret");
    says(elsewhere.probe(&b), "is of cluster 0000000000000007, not 0000000000000008");
    says(a.probe(&joiner), "has not joined");
    says(a.probe(&a), "itself");
    b.bus.forget(NodeId(1));
    says(a.probe(&b), "was removed");
    // Another node sits at the address that is remembered.
    a.bus.learn_hint(NodeId(9), b.at.clone());
    std::thread::sleep(Duration::from_millis(100));
    assert!(!a.bus.is_up(NodeId(9)));
}

#[test]
fn a_peer_that_stands_still_holds_up_nobody() {
    let (a, b) = (Side::new(1, 7, "s"), Side::new(2, 7, "s"));
    // It accepts and says nothing, as a stopped process does.
    let still = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let bus_port = still.local_addr().expect("it is bound").port();
    a.bus.learn_hint(NodeId(3), NodeAddress { bus_port, ..a.at.clone() });
    a.bus.learn_hint(NodeId(2), b.at.clone());
    eventually("the others talk", || a.bus.is_up(NodeId(2)));
    let since_ms = hypercache_stdx::clock::mono_ms();
    for n in 0..200 {
        a.bus.send_data(NodeId(3), &seal(n));
        a.bus.send(NodeId(2), &Frame::Message(seal(n)));
        a.bus.flush();
    }
    eventually("all arrive", || b.heard().len() == 200);
    assert!(hypercache_stdx::clock::mono_ms() - since_ms < 900, "nobody waits for a greeting");
    eventually("what waited for the silent one is dropped", || {
        let status = a.bus.status();
        status.iter().any(|peer| peer.node == NodeId(3) && peer.data.dropped >= 200)
    });
}

#[test]
fn what_is_no_bus_is_cut_off() {
    let b = Side::new(2, 7, "s");
    let connect = || TcpStream::connect(("127.0.0.1", b.at.bus_port)).expect("it listens");
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"*1\r\n$4\r\nPING\r\n", &[0xff; 64]] {
        let mut stream = connect();
        stream.write_all(first).expect("it is sent");
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("it can be set");
        let mut rest = Vec::new();
        let ended = std::io::Read::read_to_end(&mut stream, &mut rest);
        let is_reset = ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(rest.is_empty() || is_reset, "{rest:?}");
    }
    assert_eq!(b.heard(), []);
}

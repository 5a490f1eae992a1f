//! Who this node is, across starts: its id, its cluster, and where it saw other nodes last.
//!
//! A text file with a checksum, replaced as a whole. The id is drawn once at random; an address is no
//! identity. The directory is locked while the node runs: two processes with one identity would be one
//! member with two memories.

use hypercache_cluster::ids::NodeId;
use hypercache_cluster::meta::NodeAddress;
use hypercache_stdx::crc32c::crc32c;
use hypercache_stdx::rng::entropy;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    /// 0 until a node that joins has learned it.
    pub(crate) cluster: u64,
    /// Whether this node formed the cluster: its log begins with it alone.
    pub(crate) is_founder: bool,
    /// Where others were seen last.
    pub(crate) peers: BTreeMap<NodeId, NodeAddress>,
}

const NAME: &str = "nodes";
const TITLE: &str = "hypercache-cluster 1";

impl Identity {
    /// That of a new node: it forms a cluster, or is going to join one.
    pub(crate) fn new(joins: bool) -> Self {
        let cluster = if joins { 0 } else { entropy() | 1 };
        let node = NodeId(entropy() | 1);
        Identity { node, cluster, is_founder: !joins, peers: BTreeMap::new() }
    }

    /// Reads it; `None` when there is none.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, String> {
        let path = dir.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        match Self::parse(&text) {
            Some(identity) => Ok(Some(identity)),
            None => Err(format!(
                "{} is damaged: it says who this node is. Remove the directory to join as a new node",
                path.display()
            )),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, sum) = text.trim_end().rsplit_once('\n')?;
        let sum = u32::from_str_radix(sum.strip_prefix("crc ")?, 16).ok()?;
        let mut lines = body.lines();
        if crc32c(0, body.as_bytes()) != sum || lines.next()? != TITLE {
            return None;
        }
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let node = NodeId(hex(lines.next()?.strip_prefix("node ")?)?);
        let cluster = hex(lines.next()?.strip_prefix("cluster ")?)?;
        let is_founder = lines.next()?.strip_prefix("founder ")? == "yes";
        let mut peers = BTreeMap::new();
        for line in lines {
            let mut words = line.strip_prefix("peer ")?.split(' ');
            let peer = NodeId(hex(words.next()?)?);
            let host = words.next()?.to_owned();
            let (port, bus_port) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            peers.insert(peer, NodeAddress { host, port, bus_port });
        }
        Some(Identity { node, cluster, is_founder, peers })
    }

    fn text(&self) -> String {
        let founder = if self.is_founder { "yes" } else { "no" };
        let mut body = format!(
            "{TITLE}\nnode {:016x}\ncluster {:016x}\nfounder {founder}",
            self.node.0, self.cluster
        );
        for (peer, at) in &self.peers {
            let line =
                write!(body, "\npeer {:016x} {} {} {}", peer.0, at.host, at.port, at.bus_port);
            debug_assert!(line.is_ok(), "a String takes everything");
        }
        let sum = crc32c(0, body.as_bytes());
        format!("{body}\ncrc {sum:08x}\n")
    }

    /// Writes it, so that after a crash there is either this or what was there before.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), String> {
        replace_file(dir, NAME, self.text().as_bytes())
            .map_err(|error| format!("cannot write {}: {error}", dir.join(NAME).display()))
    }
}

/// Replaces a file as a whole, durably.
pub(crate) fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let beside = dir.join(format!("{name}.new"));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// A directory that no other process uses as a node's.
#[derive(Debug)]
pub(crate) struct LockedDir {
    _file: File,
}

impl LockedDir {
    /// Makes the directory if it is not there, and locks it.
    pub(crate) fn open(dir: &Path) -> Result<Self, String> {
        let name = dir.display();
        fs::create_dir_all(dir).map_err(|error| format!("cannot make {name}: {error}"))?;
        let file =
            File::create(dir.join("lock")).map_err(|e| format!("cannot lock {name}: {e}"))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| format!("another process runs as the node of {name}"))?;
        Ok(LockedDir { _file: file })
    }

    /// For a test that opens a directory again while the first is in use.
    #[cfg(test)]
    pub(crate) fn for_test(dir: &Path) -> Self {
        LockedDir { _file: File::open(dir).expect("it is there") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_and_damage_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Identity::load(dir.path()), Ok(None));
        let mut identity = Identity::new(true);
        assert_eq!((identity.cluster, identity.is_founder), (0, false));
        identity.cluster = 7;
        let at = NodeAddress { host: "::1".to_owned(), port: 7300, bus_port: 17300 };
        identity.peers.insert(NodeId(9), at);
        identity.save(dir.path()).expect("it is written");
        assert_eq!(Identity::load(dir.path()), Ok(Some(identity.clone())));
        let path = dir.path().join(NAME);
        let text = fs::read_to_string(&path).expect("it is there");
        fs::write(&path, text.replace("7300", "7301")).expect("it is written");
        assert!(Identity::load(dir.path()).is_err_and(|e| e.contains("damaged")));
    }

    #[test]
    fn a_directory_has_one_node() {
        let dir = tempfile::tempdir().expect("a directory");
        let lock = LockedDir::open(dir.path()).expect("it is free");
        assert!(LockedDir::open(dir.path()).is_err_and(|e| e.contains("another process")));
        drop(lock);
        assert!(LockedDir::open(dir.path()).is_ok());
    }
}

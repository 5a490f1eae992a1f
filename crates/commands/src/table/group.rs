//! Under which head the documentation lists a command.

/// The group that the documentation lists a command under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Group {
    Generic,
    String,
    Bitmap,
    List,
    Hash,
    Set,
    SortedSet,
    Stream,
    Geo,
    HyperLogLog,
    Scripting,
    Connection,
    Server,
    Pubsub,
    Transactions,
    Cluster,
}

impl Group {
    /// The name that COMMAND DOCS shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::Bitmap => "bitmap",
            Group::List => "list",
            Group::Hash => "hash",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Stream => "stream",
            Group::Geo => "geo",
            Group::HyperLogLog => "hyperloglog",
            Group::Scripting => "scripting",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Pubsub => "pubsub",
            Group::Transactions => "transactions",
            Group::Cluster => "cluster",
        }
    }

    /// Whether its commands work on values that are no strings.
    #[must_use]
    pub fn is_of_objects(self) -> bool {
        use Group::{Geo, Hash, List, Set, SortedSet, Stream};
        matches!(self, List | Hash | Set | SortedSet | Stream | Geo)
    }
}

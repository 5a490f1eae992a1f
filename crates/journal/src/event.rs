//! Names of keyspace events, one row each. A log record carries the row's number.

/// Classes of events, as the letters of `notify-keyspace-events` name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(pub u32);

impl Class {
    /// `g`: commands of any type.
    pub const GENERIC: Class = Class(1);
    /// `$`: string commands.
    pub const STRING: Class = Class(1 << 1);
    /// `x`: a key whose time is past was removed.
    pub const EXPIRED: Class = Class(1 << 2);
    /// `e`: a key was removed because of `maxmemory`.
    pub const EVICTED: Class = Class(1 << 3);
    /// `n`: a key that was not there was made.
    pub const NEW: Class = Class(1 << 4);
    /// `m`: a key that was read is not there. Not a write, so never in a log.
    pub const MISS: Class = Class(1 << 5);
    /// `l`: list commands.
    pub const LIST: Class = Class(1 << 6);
    /// `s`: set commands.
    pub const SET: Class = Class(1 << 7);
    /// `h`: hash commands.
    pub const HASH: Class = Class(1 << 8);
    /// `z`: sorted-set commands.
    pub const SORTED_SET: Class = Class(1 << 9);
    /// `t`: stream commands.
    pub const STREAM: Class = Class(1 << 10);
}

macro_rules! events {
    ($($variant:ident $name:literal $class:ident),+ $(,)?) => {
        /// What a write is called in a keyspace notification.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Event {
            $(#[doc = concat!("The event `", $name, "`.")] $variant),+
        }

        impl Event {
            /// All rows in order.
            pub const ALL: &[Event] = &[$(Event::$variant),+];

            /// The name that subscribers see.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Event::$variant => $name),+ }
            }

            /// The class that switches it on.
            #[must_use]
            pub fn class(self) -> Class {
                match self { $(Event::$variant => Class::$class),+ }
            }
        }
    };
}

events! {
    Set "set" STRING,
    SetRange "setrange" STRING,
    Append "append" STRING,
    IncrBy "incrby" STRING,
    IncrByFloat "incrbyfloat" STRING,
    SetBit "setbit" STRING,
    Del "del" GENERIC,
    Expire "expire" GENERIC,
    Persist "persist" GENERIC,
    RenameFrom "rename_from" GENERIC,
    RenameTo "rename_to" GENERIC,
    MoveFrom "move_from" GENERIC,
    MoveTo "move_to" GENERIC,
    CopyTo "copy_to" GENERIC,
    Expired "expired" EXPIRED,
    Evicted "evicted" EVICTED,
    New "new" NEW,
    Silent "" GENERIC,
    LPush "lpush" LIST,
    RPush "rpush" LIST,
    LInsert "linsert" LIST,
    LSet "lset" LIST,
    LTrim "ltrim" LIST,
    LRem "lrem" LIST,
    LPop "lpop" LIST,
    RPop "rpop" LIST,
    SortStore "sortstore" LIST,
    SAdd "sadd" SET,
    SRem "srem" SET,
    SPop "spop" SET,
    SInterStore "sinterstore" SET,
    SUnionStore "sunionstore" SET,
    SDiffStore "sdiffstore" SET,
    HSet "hset" HASH,
    HIncrBy "hincrby" HASH,
    HIncrByFloat "hincrbyfloat" HASH,
    HDel "hdel" HASH,
    HExpire "hexpire" HASH,
    HPersist "hpersist" HASH,
    HExpired "hexpired" HASH,
    ZAdd "zadd" SORTED_SET,
    ZIncr "zincr" SORTED_SET,
    ZRem "zrem" SORTED_SET,
    ZRemRangeByScore "zremrangebyscore" SORTED_SET,
    ZRemRangeByRank "zremrangebyrank" SORTED_SET,
    ZRemRangeByLex "zremrangebylex" SORTED_SET,
    ZPopMin "zpopmin" SORTED_SET,
    ZPopMax "zpopmax" SORTED_SET,
    ZUnionStore "zunionstore" SORTED_SET,
    ZInterStore "zinterstore" SORTED_SET,
    ZDiffStore "zdiffstore" SORTED_SET,
    ZRangeStore "zrangestore" SORTED_SET,
    GeoSearchStore "geosearchstore" SORTED_SET,
    GeoRadiusStore "georadiusstore" SORTED_SET,
    XAdd "xadd" STREAM,
    XDel "xdel" STREAM,
    XTrim "xtrim" STREAM,
    XSetId "xsetid" STREAM,
    XGroupCreate "xgroup-create" STREAM,
    XGroupCreateConsumer "xgroup-createconsumer" STREAM,
    XGroupDestroy "xgroup-destroy" STREAM,
    XGroupDelConsumer "xgroup-delconsumer" STREAM,
    XGroupSetId "xgroup-setid" STREAM,
    PfAdd "pfadd" STRING,
    Restore "restore" GENERIC,
}

impl Event {
    /// The row with a number, as found in a record.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Event> {
        Event::ALL.get(number as usize).copied()
    }
}

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
}

impl Event {
    /// The row with a number, as found in a record.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Event> {
        Event::ALL.get(number as usize).copied()
    }
}

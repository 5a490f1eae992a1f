//! Values that are no strings, and what every type of them has in common.
//!
//! **One way to change a collection.** A type has a small set of operations ([`Collection::Op`]), each
//! with its choices made (which member was popped, which id was given), and [`Collection::apply`] is
//! the only way to change a value. The log of effects keeps the very operations that were applied, so
//! what is replayed elsewhere is by construction what happened here; and a value as a whole is written
//! down as the operations that build it from nothing ([`Collection::each_op`]).
//!
//! **Accounting.** [`Collection::bytes`] is exact and constant in time; [`crate::Db`] compares it
//! before and after a change.
//!
//! To add a type: a row in `kinds!`, its file with the structure, `impl Collection`, and the form of its
//! operations ([`Operation`]).

pub mod dict;
pub mod hash;
pub mod list;
pub mod packed;
mod segment;
pub mod set;
pub mod sorted_set;
pub mod stream;
pub mod wire;

pub use hash::{Hash, HashDone, HashOp};
pub use list::{List, ListOp};
pub use packed::{Digits, Item, Packed};
pub use segment::Record;
pub use set::{Set, SetOp};
pub use sorted_set::{Edge, SortedSet, SortedSetDone, SortedSetOp};
pub use stream::{Stream, StreamId, StreamOp};

use std::sync::atomic::AtomicUsize;

/// Up to where Redis would keep a collection in its small form; settings of the process.
#[derive(Debug)]
pub struct Limits {
    /// Fields of a hash.
    pub hash_entries: AtomicUsize,
    /// Bytes of a field or value of a hash.
    pub hash_value: AtomicUsize,
    /// Members of a set of integers.
    pub set_ints: AtomicUsize,
    /// Members of a sorted set.
    pub sorted_set_entries: AtomicUsize,
    /// Bytes of a member of a sorted set.
    pub sorted_set_value: AtomicUsize,
}

/// See [`Limits`]. One for the process, as what it is of is: a value is built the same wherever that
/// happens. It changes names and order only, so a log that is replayed under others means the same.
pub static LIMITS: Limits = Limits {
    hash_entries: AtomicUsize::new(512),
    hash_value: AtomicUsize::new(64),
    set_ints: AtomicUsize::new(512),
    sorted_set_entries: AtomicUsize::new(128),
    sorted_set_value: AtomicUsize::new(64),
};

/// A change of a collection in the form that the log keeps.
pub trait Operation<'a>: Copy + Sized + std::fmt::Debug {
    /// Appends the operation to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads what [`Self::encode`] wrote; `None` if that is not all of `bytes`.
    fn decode(bytes: &'a [u8]) -> Option<Self>;
}

/// How a type stands in [`Object`]. The rows of `kinds!` implement it.
pub trait Held: Sized + 'static {
    /// Which type it is.
    const KIND: Kind;

    /// The value, if `object` is of this type.
    fn of(object: &Object) -> Option<&Self>;

    /// The value for writing, if `object` is of this type.
    fn of_mut(object: &mut Object) -> Option<&mut Self>;

    /// The value as an object.
    fn into_object(self) -> Object;
}

/// A type of values that are no strings. See the module's text.
pub trait Collection: Held + Default + std::fmt::Debug {
    /// A change, with all its choices made.
    type Op<'a>: Operation<'a>;
    /// What is known of a change only when it is made.
    type Done;

    /// Makes a change. An operation that does not fit the value (an index beyond its end, as a damaged
    /// log might hold) changes nothing.
    fn apply(&mut self, op: Self::Op<'_>) -> Self::Done;

    /// Whether an operation that ended so was a change; one that was none is not told of.
    fn has_changed(done: &Self::Done) -> bool {
        let _any = done;
        true
    }

    /// Whether somebody who waits for the value may want what an operation does: one that only takes is
    /// no reason to wake anybody.
    fn wakes(op: &Self::Op<'_>) -> bool {
        let _any = op;
        true
    }

    /// Whether there is nothing in it, so that its key goes.
    fn is_empty(&self) -> bool;

    /// Bytes on the heap that it owns, exactly, in constant time.
    fn bytes(&self) -> usize;

    /// The name that OBJECT ENCODING tells.
    fn encoding(&self) -> &'static str;

    /// Calls `f` with operations that make this value out of an empty one.
    fn each_op(&self, f: &mut dyn FnMut(Self::Op<'_>));

    /// Brings towards the cache what is read first of what it owns.
    fn prefetch_parts(&self) {}

    /// A time before which nothing within it expires; `None` if nothing ever does.
    fn next_deadline(&self) -> Option<u64> {
        None
    }
}

macro_rules! kinds {
    ($($variant:ident = $number:literal $name:literal),+ $(,)?) => {
        /// The type of a value. The numbers are those in entries and in the log.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind {
            /// Bytes; kept in the entry or in a blob, not in an object.
            String = 0,
            $(#[doc = concat!("`", $name, "`")] $variant = $number,)+
        }

        impl Kind {
            /// The kind with a number below 8.
            ///
            /// # Panics
            /// If there is none: entries hold only numbers that a kind gave.
            #[inline]
            #[must_use]
            pub fn from_number(number: u8) -> Kind {
                Kind::try_from_number(number).expect("an entry has a kind")
            }

            /// The kind with a number, if there is one.
            #[inline]
            #[must_use]
            pub fn try_from_number(number: u8) -> Option<Kind> {
                match number {
                    0 => Some(Kind::String),
                    $($number => Some(Kind::$variant),)+
                    _ => None,
                }
            }

            /// The name that TYPE tells.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    Kind::String => "string",
                    $(Kind::$variant => $name,)+
                }
            }

            /// The kind with a name.
            #[must_use]
            pub fn from_name(name: &[u8]) -> Option<Kind> {
                let all = [Kind::String, $(Kind::$variant),+];
                all.into_iter().find(|kind| name.eq_ignore_ascii_case(kind.name().as_bytes()))
            }
        }

        /// A value that is no string.
        #[derive(Debug, Clone)]
        pub enum Object {
            $(#[doc = concat!("A ", $name, ".")] $variant($variant),)+
        }

        impl Object {
            /// An empty value of a type; `None` for strings.
            #[must_use]
            pub fn new(kind: Kind) -> Option<Object> {
                match kind {
                    Kind::String => None,
                    $(Kind::$variant => Some(<$variant as Default>::default().into_object()),)+
                }
            }

            /// Its type.
            #[inline]
            #[must_use]
            pub fn kind(&self) -> Kind {
                match self { $(Object::$variant(_) => Kind::$variant,)+ }
            }

            /// See [`Collection::bytes`].
            #[must_use]
            pub fn bytes(&self) -> usize {
                match self { $(Object::$variant(value) => Collection::bytes(value),)+ }
            }

            /// See [`Collection::is_empty`].
            #[must_use]
            pub fn is_empty(&self) -> bool {
                match self { $(Object::$variant(value) => Collection::is_empty(value),)+ }
            }

            /// See [`Collection::encoding`].
            #[must_use]
            pub fn encoding(&self) -> &'static str {
                match self { $(Object::$variant(value) => Collection::encoding(value),)+ }
            }

            /// See [`Collection::next_deadline`].
            #[inline]
            #[must_use]
            pub fn next_deadline(&self) -> Option<u64> {
                match self { $(Object::$variant(value) => Collection::next_deadline(value),)+ }
            }

            /// See [`Collection::prefetch_parts`].
            #[inline]
            pub(crate) fn prefetch_parts(&self) {
                match self { $(Object::$variant(value) => Collection::prefetch_parts(value),)+ }
            }

            /// Applies an operation in the log's form. Returns whether it was one of this type's.
            pub fn apply_encoded(&mut self, op: &[u8]) -> bool {
                match self { $(Object::$variant(value) => apply_encoded(value, op),)+ }
            }

            /// Appends the operations that build the value, each with its length before it.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self { $(Object::$variant(value) => encode(value, out),)+ }
            }
        }

        $(impl Held for $variant {
            const KIND: Kind = Kind::$variant;

            #[inline]
            fn of(object: &Object) -> Option<&Self> {
                match object {
                    Object::$variant(value) => Some(value),
                    #[allow(unreachable_patterns, reason = "there may be one type only")]
                    _ => None,
                }
            }

            #[inline]
            fn of_mut(object: &mut Object) -> Option<&mut Self> {
                match object {
                    Object::$variant(value) => Some(value),
                    #[allow(unreachable_patterns, reason = "there may be one type only")]
                    _ => None,
                }
            }

            fn into_object(self) -> Object {
                Object::$variant(self)
            }
        })+
    };
}

kinds! {
    List = 1 "list",
    Set = 2 "set",
    SortedSet = 3 "zset",
    Hash = 4 "hash",
    Stream = 5 "stream",
}

fn apply_encoded<T: Collection>(value: &mut T, op: &[u8]) -> bool {
    let Some(op) = T::Op::decode(op) else { return false };
    value.apply(op);
    true
}

fn encode<T: Collection>(value: &T, out: &mut Vec<u8>) {
    let mut scratch = Vec::new();
    value.each_op(&mut |op| {
        scratch.clear();
        op.encode(&mut scratch);
        wire::put_bytes(out, &scratch);
    });
}

impl Object {
    /// Bytes that are the same for equal values, however each came to be what it is: for comparing.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let (mut encoded, mut ops) = (Vec::new(), Vec::new());
        self.encode(&mut encoded);
        let mut reader = wire::Reader::new(&encoded);
        while let Some(op) = reader.bytes() {
            ops.push(op);
        }
        if matches!(self.kind().name(), "set" | "hash") {
            ops.sort_unstable();
        }
        let mut out = vec![self.kind() as u8];
        ops.iter().for_each(|op| wire::put_bytes(&mut out, op));
        out
    }

    /// Builds a value from what [`Self::encode`] wrote; `None` if it is damaged.
    #[must_use]
    pub fn decode(kind: Kind, bytes: &[u8]) -> Option<Object> {
        let mut object = Object::new(kind)?;
        let mut reader = wire::Reader::new(bytes);
        while !reader.is_empty() {
            if !object.apply_encoded(reader.bytes()?) {
                return None;
            }
        }
        Some(object)
    }
}

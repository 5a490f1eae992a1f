//! What a client is told when a command fails: one row each, no allocation on the way.
//!
//! Texts are Redis', because clients match on them. `docs/errors.md` is generated from this list.

/// The result of a command's function; on success the reply is written.
pub type Outcome = Result<(), ReplyError>;

macro_rules! errors {
    ($($variant:ident $text:literal, $advice:literal;)+) => {
        /// See the module's text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ReplyError {
            $(#[doc = concat!("`", $text, "`")] $variant,)+
            /// A text of one command only, code included.
            Text(&'static str),
            /// The reply was already written as an error.
            Written,
            /// No error: a command that is tried again for a client that waits found nothing yet.
            WouldBlock,
        }

        impl ReplyError {
            /// Text and advice of every row.
            pub const ALL: &[(&'static str, &'static str)] = &[$(($text, $advice),)+];

            /// The reply's text, code first.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(ReplyError::$variant => $text,)+
                    ReplyError::Text(text) => text,
                    ReplyError::Written | ReplyError::WouldBlock => "",
                }
            }
        }
    };
}

errors! {
    WrongType "WRONGTYPE Operation against a key holding the wrong kind of value",
        "The key holds another type than the command works on; look with TYPE.";
    Syntax "ERR syntax error",
        "An option is unknown, repeated or contradicts another; see the command's syntax.";
    NotAnInteger "ERR value is not an integer or out of range",
        "The value or argument must be a decimal 64-bit integer without spaces or leading zeros.";
    NotAFloat "ERR value is not a valid float",
        "The value or argument must be a decimal number.";
    NoSuchKey "ERR no such key",
        "The key does not exist, or expired.";
    OutOfRange "ERR index out of range",
        "The index lies outside the value.";
    BitOffset "ERR bit offset is not an integer or out of range",
        "Bit offsets go from 0 to eight times proto-max-bulk-len, less one.";
    BitValue "ERR bit is not an integer or out of range",
        "A bit is 0 or 1.";
    TooLarge "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        "Keep the value below proto-max-bulk-len, or raise that setting.";
    InvalidExpire "ERR invalid expire time",
        "Use the per-command text; kept for completeness.";
    DbIndex "ERR DB index is out of range",
        "There are 16 databases, numbered from 0.";
    InvalidDbIndex "ERR invalid DB index",
        "There are 16 databases, numbered from 0.";
    SameObject "ERR source and destination objects are the same",
        "Name another key or another database.";
    OutOfMemory "OOM command not allowed when used memory > 'maxmemory'.",
        "Raise maxmemory, let it evict with maxmemory-policy, or delete keys.";
    NoAuth "NOAUTH Authentication required.",
        "Send AUTH with the password first.";
    WrongPass "WRONGPASS invalid username-password pair or user is disabled.",
        "Check user name and password.";
    NoPasswordSet "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        "The server has no password: leave AUTH out, or set requirepass.";
    ExecAbort "EXECABORT Transaction discarded because of previous errors.",
        "A command was refused while it was queued; the earlier replies say which.";
    NestedMulti "ERR MULTI calls can not be nested",
        "End the transaction with EXEC or DISCARD first.";
    ExecWithoutMulti "ERR EXEC without MULTI",
        "Begin a transaction with MULTI.";
    DiscardWithoutMulti "ERR DISCARD without MULTI",
        "There is no transaction to discard.";
    WatchInMulti "ERR WATCH inside MULTI is not allowed",
        "WATCH before MULTI.";
    Overflow "ERR increment or decrement would overflow",
        "The result must be a 64-bit integer.";
    NanOrInfinity "ERR increment would produce NaN or Infinity",
        "Keep the sum finite.";
    CrossSlot "CROSSSLOT Keys in request don't hash to the same slot",
        "In a cluster all keys of a command share a slot: give them a common {tag}.";
    ClusterDisabled "ERR This instance has cluster support disabled",
        "Start the server with --cluster-enabled yes.";
    NoProto "NOPROTO unsupported protocol version",
        "Ask for protocol 2 or 3.";
}

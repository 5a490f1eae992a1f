//! One reply of the server as a value.
//!
//! The variants are those of RESP3; a RESP2 server simply uses fewer of them. Strings are bytes,
//! never text, because a cache stores bytes.

use crate::{Error, request::append_header};
use std::{borrow::Cow, io::Write};

/// One reply of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A status such as `OK`.
    Simple(Vec<u8>),
    /// An error message, without the leading `-`.
    Error(Vec<u8>),
    /// A 64-bit integer.
    Int(i64),
    /// A string of bytes.
    Bulk(Vec<u8>),
    /// Nothing: the null of RESP3 and both nulls of RESP2.
    Null,
    /// An ordered list of replies.
    Array(Vec<Reply>),
    /// Pairs of key and value, in the order sent.
    Map(Vec<(Reply, Reply)>),
    /// An unordered collection, in the order sent.
    Set(Vec<Reply>),
    /// A floating point number, and the very digits the server wrote for it.
    Double {
        /// The number.
        value: f64,
        /// How the server wrote it.
        text: Box<str>,
    },
    /// True or false.
    Bool(bool),
    /// An integer of any size, as decimal digits.
    BigNumber(Vec<u8>),
    /// Text meant to be shown as it is.
    Verbatim {
        /// Three letters such as `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: Vec<u8>,
    },
    /// A message the server sent on its own account, such as one to a subscriber.
    Push(Vec<Reply>),
}

impl Reply {
    /// The double `value`, written the way Rust writes it.
    pub fn double(value: f64) -> Reply {
        Reply::Double { value, text: value.to_string().into() }
    }

    /// A bulk string.
    pub fn bulk(bytes: impl Into<Vec<u8>>) -> Reply {
        Reply::Bulk(bytes.into())
    }

    /// Turns an error reply into an [`Error::Server`], and leaves every other reply as it is.
    pub fn into_result(self) -> Result<Reply, Error> {
        match self {
            Reply::Error(message) => {
                Err(Error::Server(String::from_utf8_lossy(&message).into_owned()))
            }
            other => Ok(other),
        }
    }

    /// Whether this is an error reply.
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// The bytes of a string-like reply (status, error, bulk, verbatim, big number, double).
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Simple(bytes)
            | Reply::Error(bytes)
            | Reply::Bulk(bytes)
            | Reply::BigNumber(bytes)
            | Reply::Verbatim { text: bytes, .. } => Some(bytes),
            Reply::Double { text, .. } => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// The text of a string-like reply, with invalid UTF-8 replaced.
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        self.as_bytes().map(String::from_utf8_lossy)
    }

    /// The integer of an integer reply, or of a string that is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Reply::Int(value) => Some(*value),
            other => std::str::from_utf8(other.as_bytes()?).ok()?.parse().ok(),
        }
    }

    /// The number of an integer or double reply, or of a string that is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Reply::Int(value) => Some(*value as f64),
            Reply::Double { value, .. } => Some(*value),
            other => std::str::from_utf8(other.as_bytes()?).ok()?.parse().ok(),
        }
    }

    /// The elements of an array, set or push.
    pub fn into_items(self) -> Option<Vec<Reply>> {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The pairs of a map, or of the flat array RESP2 has in its place.
    pub fn into_pairs(self) -> Option<Vec<(Reply, Reply)>> {
        match self {
            Reply::Map(pairs) => Some(pairs),
            Reply::Array(items) if items.len().is_multiple_of(2) => Some(pair_up(items)),
            _ => None,
        }
    }

    /// Appends the reply in RESP3.
    ///
    /// A status or error that contains a line end is written as the length-prefixed type of the
    /// same meaning, for its own type cannot carry it.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Reply::Simple(text) if is_one_line(text) => append_line(b'+', text, out),
            Reply::Simple(text) | Reply::Bulk(text) => append_blob(b'$', text, out),
            Reply::Error(text) if is_one_line(text) => append_line(b'-', text, out),
            Reply::Error(text) => append_blob(b'!', text, out),
            // Writing to a vector cannot fail.
            Reply::Int(value) => drop(write!(out, ":{value}\r\n")),
            Reply::Null => out.extend_from_slice(b"_\r\n"),
            Reply::Array(items) => append_all(b'*', items, out),
            Reply::Set(items) => append_all(b'~', items, out),
            Reply::Push(items) => append_all(b'>', items, out),
            Reply::Map(pairs) => {
                append_header(b'%', pairs.len(), out);
                for (key, value) in pairs {
                    key.encode_into(out);
                    value.encode_into(out);
                }
            }
            Reply::Double { text, .. } => append_line(b',', text.as_bytes(), out),
            Reply::Bool(value) => out.extend_from_slice(if *value { b"#t\r\n" } else { b"#f\r\n" }),
            Reply::BigNumber(digits) => append_line(b'(', digits, out),
            Reply::Verbatim { format, text } => {
                append_header(b'=', text.len() + 4, out);
                out.extend_from_slice(format);
                out.push(b':');
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// Turns `k1 v1 k2 v2` into pairs; a last key without a value is dropped.
pub(crate) fn pair_up(items: Vec<Reply>) -> Vec<(Reply, Reply)> {
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

fn is_one_line(text: &[u8]) -> bool {
    !text.iter().any(|&byte| byte == b'\r' || byte == b'\n')
}

fn append_line(kind: u8, text: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn append_blob(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    append_header(kind, bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn append_all(kind: u8, items: &[Reply], out: &mut Vec<u8>) {
    append_header(kind, items.len(), out);
    for item in items {
        item.encode_into(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accessors_take_strings_and_numbers() {
        assert_eq!(Reply::bulk("12").as_int(), Some(12));
        assert_eq!(Reply::Int(-3).as_f64(), Some(-3.0));
        assert_eq!(Reply::double(1.5).as_f64(), Some(1.5));
        assert_eq!(Reply::Null.as_int(), None);
        assert_eq!(Reply::Simple(b"OK".to_vec()).as_text().unwrap(), "OK");
    }

    #[test]
    fn flat_arrays_and_maps_give_the_same_pairs() {
        let flat = Reply::Array(vec![Reply::bulk("a"), Reply::Int(1)]);
        let map = Reply::Map(vec![(Reply::bulk("a"), Reply::Int(1))]);
        assert_eq!(flat.into_pairs(), map.into_pairs());
        assert_eq!(Reply::Array(vec![Reply::Null]).into_pairs(), None);
    }

    #[test]
    fn error_replies_become_errors() {
        let error = Reply::Error(b"ERR no".to_vec()).into_result().unwrap_err();
        assert_eq!(error.to_string(), "ERR no");
        assert_eq!(Reply::Null.into_result().unwrap(), Reply::Null);
    }
}

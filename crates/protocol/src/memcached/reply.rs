//! Replies of the memcached protocol to bytes. Hot path.

use crate::reply::Output;
use std::sync::Arc;

/// A line of text.
#[inline]
pub fn line(out: &mut Output, text: &[u8]) {
    out.bytes.extend_from_slice(text);
    out.bytes.extend_from_slice(b"\r\n");
}

/// The digits of a number.
#[inline]
pub fn number(out: &mut Output, n: u64) {
    if n < 10 {
        return out.bytes.push(b'0' + n as u8);
    }
    out.bytes.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// The line before a value: `VALUE key flags bytes [cas]`.
#[inline]
pub fn value_head(out: &mut Output, key: &[u8], flags: u32, len: usize, cas: Option<u64>) {
    out.bytes.reserve(key.len() + 80);
    out.bytes.extend_from_slice(b"VALUE ");
    out.bytes.extend_from_slice(key);
    out.bytes.push(b' ');
    number(out, u64::from(flags));
    out.bytes.push(b' ');
    number(out, len as u64);
    if let Some(cas) = cas {
        out.bytes.push(b' ');
        number(out, cas);
    }
    out.bytes.extend_from_slice(b"\r\n");
}

/// A value with its line end: the shared buffer that holds it, if one does, is not copied.
#[inline]
pub fn data(out: &mut Output, bytes: &[u8], shared: Option<Arc<Vec<u8>>>) {
    match shared {
        Some(shared) => out.shared.push((out.bytes.len(), shared)),
        None => out.bytes.extend_from_slice(bytes),
    }
    out.bytes.extend_from_slice(b"\r\n");
}

/// A flag of a meta reply that is a number.
#[inline]
pub fn flag_number(out: &mut Output, flag: u8, n: u64) {
    out.bytes.extend_from_slice(&[b' ', flag]);
    number(out, n);
}

/// A flag of a meta reply with its token.
#[inline]
pub fn flag(out: &mut Output, flag: u8, token: &[u8]) {
    out.bytes.extend_from_slice(&[b' ', flag]);
    out.bytes.extend_from_slice(token);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_lines() {
        let mut out = Output::default();
        value_head(&mut out, b"k", 7, 10, Some(1234));
        data(&mut out, b"0123456789", None);
        line(&mut out, b"END");
        out.bytes.extend_from_slice(b"HD");
        flag_number(&mut out, b't', 30);
        flag(&mut out, b'O', b"abc");
        assert_eq!(out.bytes, b"VALUE k 7 10 1234\r\n0123456789\r\nEND\r\nHD t30 Oabc");
    }

    #[test]
    fn a_shared_value_stands_where_it_belongs() {
        let mut out = Output::default();
        line(&mut out, b"VA 3");
        data(&mut out, b"abc", Some(Arc::new(b"abc".to_vec())));
        assert_eq!((out.shared[0].0, &out.bytes[..]), (6, &b"VA 3\r\n\r\n"[..]));
    }
}

//! Requests to bytes: an array of bulk strings, the one form every server understands.

use std::io::Write;

/// Appends the request made of `arguments` to `out`.
pub fn encode_command<A: AsRef<[u8]>>(arguments: &[A], out: &mut Vec<u8>) {
    append_header(b'*', arguments.len(), out);
    for argument in arguments {
        let bytes = argument.as_ref();
        append_header(b'$', bytes.len(), out);
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a type byte, a length and the line end.
pub(crate) fn append_header(kind: u8, len: usize, out: &mut Vec<u8>) {
    out.push(kind);
    // Writing to a vector cannot fail.
    let _ = write!(out, "{len}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_bulk_strings() {
        let mut out = Vec::new();
        encode_command(&[&b"SET"[..], b"k", b"a\r\nb", b""], &mut out);
        assert_eq!(out, b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
    }
}

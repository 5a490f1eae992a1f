//! Bytes as text in double quotes, as Redis writes arguments: in MONITOR, in the shell, and in a
//! configuration file. The splitting of such text into words is the protocol's.

/// Appends `bytes` in double quotes, with everything unprintable escaped.
pub fn append_quoted(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::append_quoted;

    #[test]
    fn what_is_not_printable_is_escaped() {
        let mut out = Vec::new();
        append_quoted(b"a\"\\ \n\r\t\x07\x08\x00\xff~", &mut out);
        let expected = r#""a\"\\ \n\r\t\a\b\x00\xff~""#;
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}

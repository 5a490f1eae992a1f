//! Replies as text, in the four forms `redis-cli` has.
//!
//! * [`Format::Tty`] is for people: types are marked, strings quoted, aggregates numbered.
//! * [`Format::Raw`] is for pipes: nothing but the bytes.
//! * [`Format::Csv`] and [`Format::Json`] are for other programs.
//!
//! The decoder bounds how deep a reply nests, so the functions here may recurse.

use hypercache_client::Reply;
use hypercache_stdx::quote::append_quoted;
use std::io::Write;

/// How replies are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Types marked, strings quoted, aggregates numbered.
    Tty,
    /// The bytes and nothing else.
    Raw,
    /// One line of comma-separated values.
    Csv,
    /// One line of JSON.
    Json,
}

impl Format {
    /// Appends `reply` and a line end; `delimiter` separates the elements of a raw aggregate.
    pub(crate) fn render(self, reply: &Reply, delimiter: &str, out: &mut Vec<u8>) {
        match self {
            Format::Tty => return append_tty(reply, "", out),
            Format::Raw => append_raw(reply, delimiter.as_bytes(), out),
            Format::Csv => append_csv(reply, out),
            Format::Json => append_json(reply, out),
        }
        out.push(b'\n');
    }
}

fn append(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(arguments);
}

fn append_line(out: &mut Vec<u8>, before: &[u8], text: &[u8]) {
    out.extend_from_slice(before);
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// Appends a reply as on a terminal. `indent` goes in front of every line but the first, whose
/// place the caller has numbered already.
fn append_tty(reply: &Reply, indent: &str, out: &mut Vec<u8>) {
    match reply {
        Reply::Simple(text) => append_line(out, b"", text),
        Reply::Error(text) => append_line(out, b"(error) ", text),
        Reply::Int(value) => append(out, format_args!("(integer) {value}\n")),
        Reply::Double { text, .. } => append(out, format_args!("(double) {text}\n")),
        Reply::BigNumber(digits) => append_line(out, b"(big number) ", digits),
        Reply::Null => out.extend_from_slice(b"(nil)\n"),
        Reply::Bool(value) => append(out, format_args!("({value})\n")),
        Reply::Verbatim { text, .. } => append_line(out, b"", text),
        Reply::Bulk(bytes) => {
            append_quoted(bytes, out);
            out.push(b'\n');
        }
        Reply::Array(items) => append_tty_items(items, ')', "array", indent, out),
        Reply::Set(items) => append_tty_items(items, '~', "set", indent, out),
        Reply::Push(items) => append_tty_items(items, ')', "push", indent, out),
        Reply::Map(pairs) => append_tty_map(pairs, indent, out),
    }
}

fn append_tty_items(items: &[Reply], mark: char, noun: &str, indent: &str, out: &mut Vec<u8>) {
    if items.is_empty() {
        return append(out, format_args!("(empty {noun})\n"));
    }
    let (width, deeper) = number_width(items.len(), indent);
    for (index, item) in items.iter().enumerate() {
        append_number(index, width, mark, indent, out);
        append_tty(item, &deeper, out);
    }
}

fn append_tty_map(pairs: &[(Reply, Reply)], indent: &str, out: &mut Vec<u8>) {
    if pairs.is_empty() {
        return out.extend_from_slice(b"(empty hash)\n");
    }
    let (width, deeper) = number_width(pairs.len(), indent);
    for (index, (key, value)) in pairs.iter().enumerate() {
        append_number(index, width, '#', indent, out);
        append_tty(key, &deeper, out);
        // The value goes on the line on which the key ends.
        out.pop();
        out.extend_from_slice(b" => ");
        if spans_lines(value) {
            // Its elements start on a line of their own, to stand below each other.
            append(out, format_args!("\n{deeper}"));
        }
        append_tty(value, &deeper, out);
    }
}

/// Whether a reply is an aggregate that takes more than one line.
fn spans_lines(reply: &Reply) -> bool {
    match reply {
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            items.len() > 1 || items.first().is_some_and(spans_lines)
        }
        Reply::Map(pairs) => {
            pairs.len() > 1 || pairs.first().is_some_and(|(_, value)| spans_lines(value))
        }
        _ => false,
    }
}

/// The digits that number `len` elements, and the indent of what is inside them.
fn number_width(len: usize, indent: &str) -> (usize, String) {
    let width = len.to_string().len();
    (width, format!("{indent}{:1$}", "", width + 2))
}

fn append_number(index: usize, width: usize, mark: char, indent: &str, out: &mut Vec<u8>) {
    let indent = if index == 0 { "" } else { indent };
    append(out, format_args!("{indent}{:>width$}{mark} ", index + 1));
}

fn append_raw(reply: &Reply, delimiter: &[u8], out: &mut Vec<u8>) {
    match reply {
        Reply::Null => {}
        Reply::Int(value) => append(out, format_args!("{value}")),
        Reply::Bool(value) => append(out, format_args!("({value})")),
        Reply::Error(text) => append_line(out, b"", text),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.extend_from_slice(delimiter);
                }
                append_raw(item, delimiter, out);
            }
        }
        Reply::Map(pairs) => {
            for (index, (key, value)) in pairs.iter().enumerate() {
                if index > 0 {
                    out.extend_from_slice(delimiter);
                }
                append_raw(key, delimiter, out);
                out.push(b' ');
                append_raw(value, delimiter, out);
            }
        }
        text => out.extend_from_slice(text.as_bytes().unwrap_or_default()),
    }
}

fn append_csv(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Null => out.extend_from_slice(b"NULL"),
        Reply::Int(value) => append(out, format_args!("{value}")),
        Reply::Bool(value) => append(out, format_args!("{value}")),
        Reply::Double { text, .. } => out.extend_from_slice(text.as_bytes()),
        Reply::BigNumber(digits) => out.extend_from_slice(digits),
        Reply::Error(text) => {
            out.extend_from_slice(b"ERROR,");
            append_quoted(text, out);
        }
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            append_joined(items.iter(), out, append_csv);
        }
        Reply::Map(pairs) => {
            append_joined(pairs.iter().flat_map(|(key, value)| [key, value]), out, append_csv);
        }
        text => append_quoted(text.as_bytes().unwrap_or_default(), out),
    }
}

/// Appends every item with commas between them.
fn append_joined<T>(
    items: impl Iterator<Item = T>,
    out: &mut Vec<u8>,
    append_one: impl Fn(T, &mut Vec<u8>),
) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        append_one(item, out);
    }
}

fn append_json(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Null => out.extend_from_slice(b"null"),
        Reply::Int(value) => append(out, format_args!("{value}")),
        Reply::Bool(value) => append(out, format_args!("{value}")),
        // JSON has no infinities; as strings they at least arrive.
        Reply::Double { value, text } if value.is_finite() => {
            out.extend_from_slice(text.as_bytes())
        }
        Reply::BigNumber(digits) => out.extend_from_slice(digits),
        Reply::Error(text) => {
            out.extend_from_slice(b"{\"error\":");
            append_json_text(text, out);
            out.push(b'}');
        }
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            out.push(b'[');
            append_joined(items.iter(), out, append_json);
            out.push(b']');
        }
        Reply::Map(pairs) => {
            out.push(b'{');
            append_joined(pairs.iter(), out, append_json_pair);
            out.push(b'}');
        }
        text => append_json_text(text.as_bytes().unwrap_or_default(), out),
    }
}

/// Appends a member of an object; a key that is not a string becomes one.
fn append_json_pair((key, value): &(Reply, Reply), out: &mut Vec<u8>) {
    let mut name = Vec::new();
    append_raw(key, b",", &mut name);
    append_json_text(&name, out);
    out.push(b':');
    append_json(value, out);
}

/// Appends a JSON string; bytes that are not UTF-8 become replacement characters.
fn append_json_text(bytes: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(bytes);
    append(out, format_args!("{}", serde_json::Value::from(&*text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(format: Format, reply: &Reply) -> String {
        let mut out = Vec::new();
        format.render(reply, "\n", &mut out);
        String::from_utf8(out).unwrap()
    }

    fn nested() -> Reply {
        let inner = Reply::Array(vec![Reply::bulk("b"), Reply::Array(vec![])]);
        Reply::Array(vec![Reply::Int(1), inner, Reply::Null])
    }

    #[test]
    fn scalars_on_a_terminal() {
        let cases = [
            (Reply::Simple(b"OK".to_vec()), "OK\n"),
            (Reply::Error(b"ERR x".to_vec()), "(error) ERR x\n"),
            (Reply::Int(1), "(integer) 1\n"),
            (Reply::double(1.5), "(double) 1.5\n"),
            (Reply::Bool(true), "(true)\n"),
            (Reply::Null, "(nil)\n"),
            (Reply::bulk("a\n"), "\"a\\n\"\n"),
            (Reply::Verbatim { format: *b"txt", text: b"a\nb".to_vec() }, "a\nb\n"),
            (Reply::Array(vec![]), "(empty array)\n"),
            (Reply::Map(vec![]), "(empty hash)\n"),
            (Reply::Set(vec![]), "(empty set)\n"),
            (Reply::Push(vec![]), "(empty push)\n"),
        ];
        for (reply, expected) in cases {
            assert_eq!(shown(Format::Tty, &reply), expected);
        }
    }

    #[test]
    fn nesting_on_a_terminal() {
        assert_eq!(
            shown(Format::Tty, &nested()),
            "1) (integer) 1\n2) 1) \"b\"\n   2) (empty array)\n3) (nil)\n"
        );
        let ten = Reply::Array(vec![Reply::Array(vec![Reply::Int(0), Reply::Int(1)]); 10]);
        let text = shown(Format::Tty, &ten);
        assert!(text.starts_with(" 1) 1) (integer) 0\n    2) (integer) 1\n 2) 1)"), "{text}");
        assert!(text.contains("\n10) 1) "));
    }

    #[test]
    fn maps_and_sets_on_a_terminal() {
        let map = Reply::Map(vec![
            (Reply::bulk("a"), Reply::Set(vec![Reply::Int(1), Reply::Int(2)])),
            (Reply::bulk("b"), Reply::Set(vec![Reply::Null])),
        ]);
        assert_eq!(
            shown(Format::Tty, &map),
            "1# \"a\" => \n   1~ (integer) 1\n   2~ (integer) 2\n2# \"b\" => 1~ (nil)\n"
        );
    }

    #[test]
    fn raw_is_bytes_and_delimiters() {
        assert_eq!(shown(Format::Raw, &nested()), "1\nb\n\n\n");
        let mut out = Vec::new();
        let pair = Reply::Array(vec![Reply::bulk(vec![0xff]), Reply::Bool(false)]);
        Format::Raw.render(&pair, "|", &mut out);
        assert_eq!(out, b"\xff|(false)\n");
        let map = Reply::Map(vec![(Reply::bulk("a"), Reply::Int(1)); 2]);
        assert_eq!(shown(Format::Raw, &map), "a 1\na 1\n");
    }

    #[test]
    fn csv_quotes_strings() {
        assert_eq!(shown(Format::Csv, &nested()), "1,\"b\",,NULL\n");
        assert_eq!(shown(Format::Csv, &Reply::Error(b"E".to_vec())), "ERROR,\"E\"\n");
    }

    #[test]
    fn json_is_valid_json() {
        assert_eq!(shown(Format::Json, &nested()), "[1,[\"b\",[]],null]\n");
        let odd = Reply::Map(vec![
            (Reply::Int(1), Reply::double(f64::INFINITY)),
            (Reply::bulk("\"\n"), Reply::bulk(vec![0xff])),
            (Reply::Array(vec![Reply::Int(1), Reply::Int(2)]), Reply::Error(b"E".to_vec())),
        ]);
        let text = shown(Format::Json, &odd);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["1"], "inf");
        assert_eq!(value["1,2"]["error"], "E");
    }
}

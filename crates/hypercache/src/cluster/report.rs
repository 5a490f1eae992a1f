//! What a node says about its cluster, for people and as JSON.

use hypercache_client::Reply;
use serde_json::Value;
use std::fmt::Write;

/// Digits of a node's id that are shown.
const ID_DIGITS: usize = 8;

/// The value of a field of a map.
pub(crate) fn field<'r>(reply: &'r Reply, name: &str) -> Option<&'r Reply> {
    let Reply::Map(pairs) = reply else { return None };
    let is_named = |pair: &&(Reply, Reply)| pair.0.as_text().is_some_and(|text| text == name);
    pairs.iter().find(is_named).map(|(_, value)| value)
}

fn text(reply: &Reply, name: &str) -> String {
    let found = field(reply, name);
    let text = found.and_then(Reply::as_text).map(std::borrow::Cow::into_owned);
    text.unwrap_or_else(|| found.and_then(Reply::as_int).unwrap_or(0).to_string())
}

/// A field that is a number.
pub(crate) fn number(reply: &Reply, name: &str) -> i64 {
    field(reply, name).and_then(Reply::as_int).unwrap_or(0)
}

fn is(reply: &Reply, name: &str) -> bool {
    matches!(field(reply, name), Some(Reply::Bool(true)))
}

/// A field that is a list of texts.
pub(crate) fn list(reply: &Reply, name: &str) -> Vec<String> {
    field(reply, name).map(texts).unwrap_or_default()
}

fn texts(reply: &Reply) -> Vec<String> {
    let items = reply.clone().into_items().unwrap_or_default();
    items.iter().filter_map(Reply::as_text).map(std::borrow::Cow::into_owned).collect()
}

fn short(id: &str) -> &str {
    id.get(..ID_DIGITS).unwrap_or(id)
}

/// The state, what is wrong, and some figures.
pub(crate) fn status(reply: &Reply) -> String {
    let mut out = format!("The cluster is {}\n", text(reply, "state"));
    // Writing to a string cannot fail.
    for problem in list(reply, "problems") {
        _ = writeln!(out, "  ! {problem}");
    }
    for note in list(reply, "notes") {
        _ = writeln!(out, "  - {note}");
    }
    let of = |part: &str, all: &str| format!("{} of {}", number(reply, part), number(reply, all));
    let leader = text(reply, "leader");
    let leader = match leader.as_str() {
        "" => "nobody is known".to_owned(),
        id => format!(
            "{}, term {}, {} voters",
            short(id),
            number(reply, "term"),
            number(reply, "voters")
        ),
    };
    let answering = number(reply, "nodes") - number(reply, "nodes-down");
    let lines = [
        ("nodes answering", format!("{answering} of {}", number(reply, "nodes"))),
        ("without a primary", of("without-primary", "partitions")),
        ("with copies missing", of("below-copies", "partitions")),
        ("too few for writes", of("below-min-sync", "partitions")),
        ("copies being made", text(reply, "copies-joining")),
        ("leader of metadata", leader),
    ];
    for (name, value) in lines {
        _ = writeln!(out, "  {name:<20}{value}");
    }
    out
}

/// A line per node.
pub(crate) fn nodes(reply: &Reply) -> String {
    let head =
        ["NODE", "ADDRESS", "STATE", "ZONE", "PRIMARIES", "REPLICAS", "LEARNING", "STARTS", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(reply.clone().into_items().unwrap_or_default().iter().map(row));
    table(&rows)
}

fn row(node: &Reply) -> Vec<String> {
    let marks = [("leads", "leader"), ("votes", "voter"), ("myself", "asked")];
    let marks = marks.into_iter().filter(|(name, _)| is(node, name)).map(|(_, mark)| mark);
    let state = if is(node, "answers") { text(node, "state") } else { "silent".into() };
    let numbers = ["zone", "primaries", "replicas", "learning", "starts"];
    let mut row = vec![
        short(&text(node, "id")).to_owned(),
        format!("{}:{}", text(node, "host"), text(node, "port")),
        state,
    ];
    row.extend(numbers.map(|name| text(node, name)));
    row.push(marks.collect::<Vec<_>>().join(", "));
    row
}

/// What would be moved, a line each.
pub(crate) fn plan(reply: &Reply) -> String {
    let steps = texts(reply);
    if steps.is_empty() {
        return "Nothing would be moved\n".into();
    }
    steps.iter().map(|step| format!("{step}\n")).collect()
}

/// Columns as wide as their widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A reply as one line of JSON.
pub(crate) fn json_text(reply: &Reply) -> String {
    format!("{}\n", json(reply))
}

fn json(reply: &Reply) -> Value {
    match reply {
        Reply::Null => Value::Null,
        Reply::Int(n) => (*n).into(),
        Reply::Bool(is) => (*is).into(),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            items.iter().map(json).collect()
        }
        Reply::Map(pairs) => {
            let pair = |(name, value): &(Reply, Reply)| {
                (name.as_text().unwrap_or_default().into_owned(), json(value))
            };
            Value::Object(pairs.iter().map(pair).collect())
        }
        other => other.as_text().unwrap_or_default().into_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, Reply)]) -> Reply {
        Reply::Map(pairs.iter().map(|(k, v)| (Reply::bulk(*k), v.clone())).collect())
    }

    #[test]
    fn a_status_says_what_is_wrong_first() {
        let reply = map(&[
            ("state", Reply::bulk("down")),
            ("leader", Reply::bulk("3f2a91c0aaaaaaaa")),
            ("nodes", Reply::Int(3)),
            ("nodes-down", Reply::Int(1)),
            ("partitions", Reply::Int(1024)),
            ("without-primary", Reply::Int(341)),
            ("voters", Reply::Int(3)),
            ("term", Reply::Int(7)),
            ("problems", Reply::Array(vec![Reply::bulk("Node 9 does not answer")])),
        ]);
        let shown = status(&reply);
        assert!(shown.starts_with("The cluster is down\n  ! Node 9 does not answer\n"), "{shown}");
        assert!(shown.contains("  nodes answering     2 of 3\n"), "{shown}");
        assert!(shown.contains("  without a primary   341 of 1024\n"), "{shown}");
        assert!(shown.ends_with("  leader of metadata  3f2a91c0, term 7, 3 voters\n"), "{shown}");
        let json: Value = serde_json::from_str(&json_text(&reply)).expect("JSON");
        assert_eq!(json["nodes-down"], 1);
        assert_eq!(json["problems"][0], "Node 9 does not answer");
    }

    #[test]
    fn nodes_stand_in_columns() {
        let node = |id: &str, answers: bool, primaries: i64| {
            map(&[
                ("id", Reply::bulk(id)),
                ("host", Reply::bulk("10.0.0.1")),
                ("port", Reply::Int(7001)),
                ("state", Reply::bulk("up")),
                ("answers", Reply::Bool(answers)),
                ("primaries", Reply::Int(primaries)),
                ("leads", Reply::Bool(answers)),
                ("votes", Reply::Bool(true)),
            ])
        };
        let shown = nodes(&Reply::Array(vec![
            node("3f2a91c0aaaa", true, 1024),
            node("07c37df1bbbb", false, 0),
        ]));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("3f2a91c0  10.0.0.1:7001  up      0     1024"), "{shown}");
        assert!(lines[1].ends_with("leader, voter"), "{shown}");
        assert!(lines[2].starts_with("07c37df1  10.0.0.1:7001  silent  0     0  "), "{shown}");
    }

    #[test]
    fn an_empty_plan_says_so() {
        assert_eq!(plan(&Reply::Array(Vec::new())), "Nothing would be moved\n");
        assert_eq!(plan(&Reply::Array(vec![Reply::bulk("a"), Reply::bulk("b")])), "a\nb\n");
    }
}

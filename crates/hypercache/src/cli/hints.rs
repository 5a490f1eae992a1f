//! What is known about commands, for completion, hints behind the cursor, and `help`.
//!
//! A hint is three texts. The syntax text is a sequence of terms, in which an optional or
//! alternative part is one bracketed term; the hint behind the cursor drops a term from the front
//! for each argument typed, and stops dropping at the first optional one, because from there on
//! it cannot know what the next word is going to be.

use hypercache_client::{Connection, Reply};

/// What is known about one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandHint {
    /// The name in capitals, with the subcommand if it is one: `SET`, `CONFIG GET`.
    pub(crate) name: String,
    /// The arguments: `key value [NX | XX]`.
    pub(crate) syntax: String,
    /// What the command does, in one sentence.
    pub(crate) summary: String,
}

/// The commands to offer: what the server says about itself, or nothing if it says nothing.
pub(crate) fn commands(connection: &mut Connection) -> Vec<CommandHint> {
    let Ok(reply) = connection.command(&["COMMAND", "DOCS"]) else { return Vec::new() };
    let mut hints = Vec::new();
    collect_docs(reply, &mut hints);
    hints.sort_by(|a, b| a.name.cmp(&b.name));
    hints
}

/// Reads a map of command names to their documentation; subcommands nest the same way.
fn collect_docs(reply: Reply, hints: &mut Vec<CommandHint>) {
    for (name, docs) in reply.into_pairs().unwrap_or_default() {
        let Some(name) = name.as_text() else { continue };
        let name = name.to_uppercase().replace('|', " ");
        let (mut syntax, mut summary) = (String::new(), String::new());
        for (field, value) in docs.into_pairs().unwrap_or_default() {
            match field.as_text().as_deref() {
                Some("summary") => summary = text_of(&value),
                Some("arguments") => syntax = terms(value, " "),
                Some("subcommands") => collect_docs(value, hints),
                _ => {}
            }
        }
        hints.push(CommandHint { name, syntax, summary });
    }
}

fn text_of(reply: &Reply) -> String {
    reply.as_text().unwrap_or_default().into_owned()
}

/// The terms of a list of arguments, with `separator` between them.
fn terms(arguments: Reply, separator: &str) -> String {
    let items = arguments.into_items().unwrap_or_default();
    items.into_iter().map(term).collect::<Vec<_>>().join(separator)
}

/// The text of one argument as `COMMAND DOCS` describes it.
fn term(argument: Reply) -> String {
    let (mut name, mut kind, mut token, mut shown) = Default::default();
    let mut flags = Vec::new();
    let mut inner = None;
    for (field, value) in argument.into_pairs().unwrap_or_default() {
        match field.as_text().as_deref() {
            Some("name") => name = text_of(&value),
            Some("type") => kind = text_of(&value),
            Some("token") => token = Some(text_of(&value)),
            Some("display_text" | "value") => shown = text_of(&value),
            Some("flags") => flags = value.into_items().unwrap_or_default(),
            Some("arguments") => inner = Some(value),
            _ => {}
        }
    }
    let has = |flag: &str| flags.iter().any(|it| it.as_bytes() == Some(flag.as_bytes()));
    let optional = has("optional");
    let plain = if shown.is_empty() { name } else { shown };
    let body = match (kind.as_str(), inner) {
        ("pure-token", _) => token.take().unwrap_or(plain),
        ("oneof", Some(inner)) if optional && token.is_none() => terms(inner, " | "),
        ("oneof", Some(inner)) => format!("<{}>", terms(inner, " | ")),
        (_, Some(inner)) => terms(inner, " "),
        (_, None) => plain,
    };
    let text = repeated(&body, token.as_deref(), has("multiple"), has("multiple_token"));
    if optional { format!("[{text}]") } else { text }
}

/// An argument with the token that introduces it, and what a repetition of it looks like.
fn repeated(body: &str, token: Option<&str>, multiple: bool, multiple_token: bool) -> String {
    let once = match token {
        Some("") => format!("\"\" {body}"),
        Some(token) => format!("{token} {body}"),
        None => body.to_owned(),
    };
    match (multiple, multiple_token) {
        (true, true) => format!("{once} [{once} ...]"),
        (true, false) => format!("{once} [{body} ...]"),
        _ => once,
    }
}

/// The command a line starts with, and how many of its words name it.
pub(crate) fn find<'a, S: AsRef<str>>(
    hints: &'a [CommandHint],
    words: &[S],
) -> Option<(&'a CommandHint, usize)> {
    // A subcommand is the better match, so two words are tried before one.
    [2, 1].into_iter().filter(|&len| len <= words.len()).find_map(|len| {
        let name = words[..len].iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        let hint = hints.iter().find(|hint| hint.name.eq_ignore_ascii_case(&name))?;
        Some((hint, len))
    })
}

/// What to show behind the cursor after `line`.
pub(crate) fn hint_after(hints: &[CommandHint], line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (hint, len) = find(hints, &words)?;
    let typed = words.len() - len;
    let rest = remaining_terms(&hint.syntax, typed).join(" ");
    if rest.is_empty() {
        return None;
    }
    let gap = if line.ends_with(char::is_whitespace) { "" } else { " " };
    Some(format!("{gap}{rest}"))
}

/// The terms of a syntax that are left after `typed` arguments.
fn remaining_terms(syntax: &str, typed: usize) -> Vec<&str> {
    let terms = split_terms(syntax);
    let required = terms.iter().take_while(|term| !term.starts_with('[')).count();
    terms[typed.min(required)..].to_vec()
}

/// Splits a syntax at the spaces that are outside of brackets.
fn split_terms(syntax: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let terms = syntax.split(|letter| {
        match letter {
            '[' | '<' => depth += 1,
            ']' | '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ' ' && depth == 0
    });
    terms.filter(|term| !term.is_empty()).collect()
}

/// Names that complete what is typed; none once the name is followed by an argument.
pub(crate) fn completions(hints: &[CommandHint], typed: &str) -> Vec<String> {
    let upper = typed.to_ascii_uppercase();
    let lower_case = typed.chars().any(|letter| letter.is_ascii_lowercase());
    let matching = hints.iter().filter(|hint| hint.name.starts_with(&upper));
    matching
        .map(|hint| if lower_case { hint.name.to_ascii_lowercase() } else { hint.name.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Vec<CommandHint> {
        [
            ("CONFIG", "", "Container."),
            ("CONFIG GET", "parameter [parameter ...]", "Reads."),
            ("GET", "key", "Gets."),
            ("SET", "key value [NX | XX] [GET]", "Sets."),
        ]
        .map(|(name, syntax, summary)| CommandHint {
            name: name.into(),
            syntax: syntax.into(),
            summary: summary.into(),
        })
        .to_vec()
    }

    #[test]
    fn hints_drop_what_is_typed() {
        let table = table();
        let after = |line| hint_after(&table, line);
        assert_eq!(after("set").unwrap(), " key value [NX | XX] [GET]");
        assert_eq!(after("set k ").unwrap(), "value [NX | XX] [GET]");
        assert_eq!(after("SET k v NX").unwrap(), " [NX | XX] [GET]");
        assert_eq!(after("config get ").unwrap(), "parameter [parameter ...]");
        assert_eq!(after("get k"), None);
        assert_eq!(after("nonsense x"), None);
        assert_eq!(after(""), None);
    }

    #[test]
    fn completion_keeps_the_case_typed() {
        assert_eq!(completions(&table(), "co"), ["config", "config get"]);
        assert_eq!(completions(&table(), "CONFIG G"), ["CONFIG GET"]);
        assert!(completions(&table(), "get k").is_empty());
    }

    fn argument(fields: &[(&str, Reply)]) -> Reply {
        Reply::Map(fields.iter().map(|(key, value)| (Reply::bulk(*key), value.clone())).collect())
    }

    fn named(name: &str) -> Vec<(&'static str, Reply)> {
        vec![("name", Reply::bulk(name)), ("type", Reply::bulk("string"))]
    }

    fn flags(names: &[&str]) -> Reply {
        Reply::Array(names.iter().map(|name| Reply::Simple(name.as_bytes().to_vec())).collect())
    }

    #[test]
    fn docs_become_syntax() {
        let nx = argument(&[("type", Reply::bulk("pure-token")), ("token", Reply::bulk("NX"))]);
        let xx = argument(&[("type", Reply::bulk("pure-token")), ("token", Reply::bulk("XX"))]);
        let choice = argument(&[
            ("type", Reply::bulk("oneof")),
            ("flags", flags(&["optional"])),
            ("arguments", Reply::Array(vec![nx, xx])),
        ]);
        let mut keys = named("key");
        keys.push(("flags", flags(&["multiple"])));
        let mut by = named("pattern");
        by.push(("token", Reply::bulk("GET")));
        by.push(("flags", flags(&["optional", "multiple", "multiple_token"])));
        let arguments = Reply::Array(vec![argument(&keys), choice, argument(&by)]);
        let docs = Reply::Map(vec![(
            Reply::bulk("outer|inner"),
            argument(&[("summary", Reply::bulk("Does.")), ("arguments", arguments)]),
        )]);
        let mut hints = Vec::new();
        collect_docs(docs, &mut hints);
        let expected = "key [key ...] [NX | XX] [GET pattern [GET pattern ...]]";
        assert_eq!(hints[0].name, "OUTER INNER");
        assert_eq!(hints[0].syntax, expected);
        assert_eq!(hints[0].summary, "Does.");
    }

    #[test]
    fn malformed_docs_are_survived() {
        let mut hints = Vec::new();
        collect_docs(Reply::Int(1), &mut hints);
        collect_docs(Reply::Array(vec![Reply::Null, Reply::Null]), &mut hints);
        collect_docs(Reply::Array(vec![Reply::bulk("x"), Reply::Int(1)]), &mut hints);
        assert_eq!(hints.len(), 1);
    }
}

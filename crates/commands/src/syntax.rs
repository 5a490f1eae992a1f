//! Syntax texts of rows, taken apart into the arguments that COMMAND DOCS lists.
//!
//! A text is a sequence of terms: a word in capitals is a token, any other word an argument, `[…]`
//! is optional, `<…>` groups, `|` separates alternatives, and a bracket that repeats what stands
//! before it and ends in `...` makes it repeatable. A token belongs to the argument after it.

/// One argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Argument {
    /// What it is called.
    pub(crate) name: String,
    /// `key`, `string`, `integer`, `double`, `pattern`, `pure-token`, `oneof` or `block`.
    pub(crate) kind: &'static str,
    /// The word that must stand before it.
    pub(crate) token: Option<String>,
    /// Whether it may be left out.
    pub(crate) is_optional: bool,
    /// Whether it may be given more than once …
    pub(crate) is_multiple: bool,
    /// … with its token each time.
    pub(crate) is_multiple_token: bool,
    /// The alternatives or parts.
    pub(crate) inner: Vec<Argument>,
}

/// The arguments of a syntax text; `None` when its brackets do not match.
pub(crate) fn parse(syntax: &str) -> Option<Vec<Argument>> {
    let spaced = ["[", "]", "<", ">", "|"]
        .iter()
        .fold(syntax.to_owned(), |text, mark| text.replace(mark, &format!(" {mark} ")));
    let mut words = spaced.split_whitespace().peekable();
    let mut alternatives = parse_alternatives(&mut words)?;
    (words.next().is_none() && alternatives.len() == 1).then(|| alternatives.remove(0).terms)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// Terms up to a `|` or a closing bracket.
#[derive(Default)]
struct Sequence {
    terms: Vec<Argument>,
    /// Whether it ended in `...`.
    repeats: bool,
}

/// Sequences separated by `|`, up to a closing bracket, which is left.
fn parse_alternatives(words: &mut Words<'_>) -> Option<Vec<Sequence>> {
    let mut alternatives = vec![parse_sequence(words)?];
    while words.next_if_eq(&"|").is_some() {
        alternatives.push(parse_sequence(words)?);
    }
    Some(alternatives)
}

fn parse_sequence(words: &mut Words<'_>) -> Option<Sequence> {
    let mut sequence = Sequence::default();
    let mut token: Option<&str> = None;
    while let Some(word) = words.next_if(|word| !matches!(*word, "|" | "]" | ">")) {
        let is_token = is_token(word);
        if is_token || word == "[" {
            // The token before was an argument by itself.
            sequence.terms.extend(token.take().map(pure_token));
        }
        match word {
            "..." => sequence.repeats = true,
            "[" => parse_optional(words, &mut sequence.terms)?,
            "<" => {
                let group = grouped(parse_alternatives(words)?);
                words.next_if_eq(&">")?;
                sequence.terms.push(with_token(group, token.take()));
            }
            _ if is_token => token = Some(word),
            _ => sequence.terms.push(with_token(plain(word), token.take())),
        }
    }
    sequence.terms.extend(token.map(pure_token));
    Some(sequence)
}

/// What follows a `[`: something optional, or a repetition of the last terms.
fn parse_optional(words: &mut Words<'_>, terms: &mut Vec<Argument>) -> Option<()> {
    let mut alternatives = parse_alternatives(words)?;
    words.next_if_eq(&"]")?;
    if let [sequence] = &mut alternatives[..]
        && sequence.repeats
    {
        return repeat(&sequence.terms, terms);
    }
    terms.push(Argument { is_optional: true, ..grouped(alternatives) });
    Some(())
}

/// Makes the last terms repeatable if they are the ones that `again` repeats.
fn repeat(again: &[Argument], terms: &mut Vec<Argument>) -> Option<()> {
    let start = terms.len().checked_sub(again.len())?;
    let mut repeated = terms.split_off(start);
    if let ([once], [again]) = (&mut repeated[..], again) {
        // `STREAMS key [key ...]` names its token once.
        once.is_multiple_token = once.token.is_some() && again.token == once.token;
        let is_same = Argument { token: again.token.clone(), ..once.clone() };
        let is_same = Argument { is_multiple_token: false, ..is_same } == *again;
        once.is_multiple = is_same;
        terms.append(&mut repeated);
        return is_same.then_some(());
    }
    let is_same = repeated == again;
    terms.push(Argument { is_multiple: true, ..block(repeated) });
    is_same.then_some(())
}

/// One argument for one or more alternatives.
fn grouped(mut alternatives: Vec<Sequence>) -> Argument {
    let one = |sequence: Sequence| {
        let mut terms = sequence.terms;
        if terms.len() == 1 { terms.remove(0) } else { block(terms) }
    };
    if alternatives.len() == 1 {
        return one(alternatives.remove(0));
    }
    let inner: Vec<Argument> = alternatives.into_iter().map(one).collect();
    Argument { name: joined(&inner), kind: "oneof", inner, ..Argument::default() }
}

fn block(inner: Vec<Argument>) -> Argument {
    Argument { name: joined(&inner), kind: "block", inner, ..Argument::default() }
}

fn joined(inner: &[Argument]) -> String {
    inner.iter().map(|argument| argument.name.as_str()).collect::<Vec<_>>().join("_")
}

fn is_token(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && !word.contains(|c: char| c.is_ascii_lowercase())
}

fn pure_token(word: &str) -> Argument {
    let (name, token) = (word.to_ascii_lowercase(), Some(word.to_owned()));
    Argument { name, kind: "pure-token", token, ..Argument::default() }
}

fn with_token(argument: Argument, token: Option<&str>) -> Argument {
    match token {
        None => argument,
        // What has a token already, or is optional within, keeps its own inside a block.
        Some(token) if argument.token.is_some() || argument.is_optional => {
            block(vec![pure_token(token), argument])
        }
        Some(token) => Argument { token: Some(token.to_owned()), ..argument },
    }
}

fn plain(word: &str) -> Argument {
    let kind = match word {
        "key" | "newkey" | "source" | "destination" => "key",
        "pattern" => "pattern",
        "count"
        | "cursor"
        | "offset"
        | "start"
        | "end"
        | "seconds"
        | "milliseconds"
        | "increment"
        | "decrement"
        | "db"
        | "index"
        | "numkeys"
        | "timeout"
        | "version"
        | "unix-time-seconds"
        | "unix-time-milliseconds" => "integer",
        _ => "string",
    };
    Argument { name: word.to_owned(), kind, ..Argument::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::table;

    /// The text of arguments, put together as shells do it from COMMAND DOCS.
    fn text(arguments: &[Argument], separator: &str) -> String {
        arguments.iter().map(term).collect::<Vec<_>>().join(separator)
    }

    fn term(argument: &Argument) -> String {
        let Argument { is_optional, token, inner, .. } = argument;
        let body = match argument.kind {
            "pure-token" => token.clone().expect("has one"),
            "oneof" if *is_optional && token.is_none() => text(inner, " | "),
            "oneof" => format!("<{}>", text(inner, " | ")),
            "block" => text(inner, " "),
            _ => argument.name.clone(),
        };
        let token = token.as_ref().filter(|_| argument.kind != "pure-token");
        let once = token.map_or(body.clone(), |token| format!("{token} {body}"));
        let text = match (argument.is_multiple, argument.is_multiple_token) {
            (true, true) => format!("{once} [{once} ...]"),
            (true, false) => format!("{once} [{body} ...]"),
            _ => once,
        };
        if *is_optional { format!("[{text}]") } else { text }
    }

    #[test]
    fn texts_survive_being_taken_apart() {
        for syntax in [
            "",
            "key",
            "key value [NX | XX] [GET] [EX seconds | PX milliseconds | KEEPTTL]",
            "key [key ...]",
            "key value [key value ...]",
            "[channel [channel ...]]",
            "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC]",
            "STREAMS key [key ...]",
            "<ON | OFF> [REDIRECT client-id]",
            "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
            "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
        ] {
            assert_eq!(text(&parse(syntax).expect(syntax), " "), syntax);
        }
    }

    #[test]
    fn every_row_has_a_syntax_that_can_be_taken_apart() {
        for entry in table().entries() {
            let syntax = entry.row.syntax;
            let arguments = parse(syntax).expect(&entry.full_name);
            assert_eq!(text(&arguments, " "), syntax, "{}", entry.full_name);
        }
    }

    #[test]
    fn tokens_and_kinds_are_told() {
        let arguments = parse("key [EX seconds | KEEPTTL] [GET]").expect("balanced");
        let [key, choice, get] = &arguments[..] else { panic!("{arguments:?}") };
        assert_eq!((key.kind, choice.kind, get.kind), ("key", "oneof", "pure-token"));
        assert!(choice.is_optional && get.is_optional);
        assert_eq!(choice.name, "seconds_keepttl");
        assert_eq!(choice.inner[0].token.as_deref(), Some("EX"));
        assert_eq!(choice.inner[0].kind, "integer");
    }

    #[test]
    fn brackets_that_do_not_match_are_noticed() {
        for syntax in ["[key", "key]", "<a | b", "a | b", "key [value ...]", "[key ...]"] {
            assert_eq!(parse(syntax), None, "{syntax}");
        }
    }
}

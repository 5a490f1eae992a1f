//! The interactive mode: a line editor with history, completion and hints.

use super::hints::{self, CommandHint};
use super::shell::Shell;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::PathBuf;

/// Lines kept in the history file.
const MAX_HISTORY_LINES: usize = 2000;

/// Gives the line editor what is known about commands.
struct CommandHelper {
    hints: Vec<CommandHint>,
}

impl Helper for CommandHelper {}
impl Validator for CommandHelper {}

impl Highlighter for CommandHelper {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[90m{hint}\x1b[0m"))
    }
}

impl Hinter for CommandHelper {
    type Hint = String;

    fn hint(&self, line: &str, position: usize, _: &Context<'_>) -> Option<String> {
        if position < line.len() {
            return None;
        }
        hints::hint_after(&self.hints, line)
    }
}

impl Completer for CommandHelper {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..position).unwrap_or(line);
        let (start, word) = match typed.get(..5) {
            Some(help) if help.eq_ignore_ascii_case("help ") => (5, &typed[5..]),
            _ => (0, typed),
        };
        Ok((start, hints::completions(&self.hints, word)))
    }
}

/// Reads and runs lines until the user leaves.
pub(crate) fn run(shell: &mut Shell) -> anyhow::Result<()> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .history_ignore_space(true)
        .max_history_size(MAX_HISTORY_LINES)?
        .build();
    let mut editor = Editor::<CommandHelper, FileHistory>::with_config(config)?;
    let history = history_file();
    if let Some(path) = &history {
        // There is no file the first time.
        let _ = editor.load_history(path);
    }
    if let Err(error) = shell.session.connected() {
        report(&error.into())?;
    }
    shell.show_notices()?;
    loop {
        shell.load_hints();
        if let (None, Some(hints)) = (editor.helper(), &shell.hints) {
            editor.set_helper(Some(CommandHelper { hints: hints.clone() }));
        }
        let line = match editor.readline(&shell.session.prompt()) {
            Ok(line) => line,
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        remember(&mut editor, history.as_ref(), &line);
        match shell.line(line.as_bytes()) {
            Ok(flow) if flow.is_break() => return Ok(()),
            Ok(_) => {}
            Err(error) => report(&error)?,
        }
    }
}

fn report(error: &anyhow::Error) -> io::Result<()> {
    writeln!(io::stderr(), "{error:#}")
}

/// Adds a line to the history and its file, unless it may hold a password.
fn remember(editor: &mut Editor<CommandHelper, FileHistory>, file: Option<&PathBuf>, line: &str) {
    if holds_secret(line) {
        return;
    }
    // A history that cannot be written is no reason to stop working.
    let _ = editor.add_history_entry(line);
    if let Some(path) = file {
        let _ = editor.append_history(path);
    }
}

/// Whether a line holds a password, so that it must not end up in a file.
fn holds_secret(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    match words.as_slice() {
        ["auth", ..] => true,
        ["hello" | "migrate", rest @ ..] => rest.iter().any(|word| word.starts_with("auth")),
        ["acl", "setuser", ..] => true,
        ["config", "set", rest @ ..] => {
            rest.iter().any(|word| word.contains("auth") || word.contains("pass"))
        }
        _ => false,
    }
}

fn history_file() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".hypercache_history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_the_history() {
        for line in [
            "auth x",
            " AUTH user x",
            "HELLO 3 AUTH default x",
            "acl setuser ann on >x",
            "CONFIG SET requirepass x",
            "config set maxmemory 1 masterauth x",
        ] {
            assert!(holds_secret(line), "{line}");
        }
        for line in ["get auth", "hello 3", "config get requirepass", "acl list", ""] {
            assert!(!holds_secret(line), "{line}");
        }
    }
}

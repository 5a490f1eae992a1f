//! What a line of input does, whether a person typed it, a file held it, or the arguments of the
//! program were it.

use super::format::Format;
use super::hints::{self, CommandHint};
use super::quoting::split_arguments;
use super::session::{Session, is_shutdown};
use anyhow::bail;
use hypercache_client::{Address, Error, Reply};
use hypercache_stdx::clock;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::Duration;

/// A reply that took longer than this is followed by the time it took.
const SLOW_REPLY: Duration = Duration::from_millis(500);

/// Writes replies to standard output.
#[derive(Debug)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    pub(crate) delimiter: String,
    /// Whether error replies go to standard error, for `-e`.
    pub(crate) errors_apart: bool,
}

impl Printer {
    /// Prints one reply at once.
    pub(crate) fn reply(&self, reply: &Reply) -> io::Result<()> {
        let mut out = Vec::new();
        if let (Reply::Error(message), true) = (reply, self.errors_apart) {
            out.extend_from_slice(message);
            out.push(b'\n');
            return io::stderr().write_all(&out);
        }
        self.format.render(reply, &self.delimiter, &mut out);
        write_out(&out)
    }

    /// Prints text of the tool itself.
    pub(crate) fn text(&self, text: &str) -> io::Result<()> {
        write_out(text.as_bytes())
    }
}

/// Writes bytes to standard output at once; a closed pipe is an error, not a panic.
pub(crate) fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// A session and the way its replies are shown.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) session: Session,
    pub(crate) printer: Printer,
    pub(crate) interval: Duration,
    pub(crate) interactive: bool,
    /// What is known about commands, once it has been asked for.
    pub(crate) hints: Option<Vec<CommandHint>>,
    /// Whether any reply so far was an error.
    pub(crate) any_error: bool,
}

impl Shell {
    /// Runs one line; breaks when the line asks to end the session.
    pub(crate) fn line(&mut self, line: &[u8]) -> anyhow::Result<ControlFlow<()>> {
        let Ok(mut arguments) = split_arguments(line) else {
            self.printer.text("Invalid argument(s)\n")?;
            return Ok(ControlFlow::Continue(()));
        };
        let times = take_repetitions(&mut arguments);
        let Some(first) = arguments.first() else { return Ok(ControlFlow::Continue(())) };
        match first.to_ascii_lowercase().as_slice() {
            b"quit" | b"exit" => return Ok(ControlFlow::Break(())),
            b"clear" if self.interactive => self.printer.text("\x1b[H\x1b[2J")?,
            b"help" | b"?" => self.help(&arguments[1..])?,
            b"connect" => self.move_to(&arguments[1..])?,
            _ => self.repeat(&arguments, times)?,
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Runs a command `times` times, for ever if that is negative.
    pub(crate) fn repeat(&mut self, arguments: &[Vec<u8>], times: i64) -> anyhow::Result<()> {
        let mut done = 0_i64;
        while times < 0 || done < times {
            if done > 0 {
                std::thread::sleep(self.interval);
            }
            self.once(arguments)?;
            done = done.saturating_add(1);
        }
        Ok(())
    }

    fn once(&mut self, arguments: &[Vec<u8>]) -> anyhow::Result<()> {
        if is_streaming(arguments) {
            return self.stream(arguments);
        }
        let started = clock::instant();
        let result = self.session.execute(arguments);
        self.show_notices()?;
        let reply = match result {
            // The server has no other way to say that it did as it was told.
            Err(Error::Closed) if is_shutdown(arguments) => return Ok(()),
            other => other?,
        };
        let elapsed = started.elapsed();
        match reply.as_bytes() {
            Some(text) if is_report(arguments) && !reply.is_error() => write_out(text)?,
            _ => self.printer.reply(&reply)?,
        }
        if self.interactive && elapsed >= SLOW_REPLY {
            self.printer.text(&format!("({:.2}s)\n", elapsed.as_secs_f64()))?;
        }
        for _ in 0..further_replies(arguments, &reply) {
            let reply = self.session.read_more()?;
            self.printer.reply(&reply)?;
        }
        for push in self.session.take_pushes() {
            self.printer.reply(&push)?;
        }
        self.any_error |= reply.is_error();
        Ok(())
    }

    /// Prints everything a subscriber or monitor receives, until the connection ends.
    fn stream(&mut self, arguments: &[Vec<u8>]) -> anyhow::Result<()> {
        self.session.connected()?;
        self.show_notices()?;
        if self.printer.format == Format::Tty && !is_monitor(arguments) {
            self.printer.text("Reading messages... (press Ctrl-C to quit)\n")?;
        }
        let printer = &self.printer;
        let result = self.session.stream(arguments, |reply| printer.reply(reply));
        // Whatever ended the stream, what is left of it must not be taken for replies.
        self.session.disconnect();
        result
    }

    /// Tells on standard error what happened besides replies.
    pub(crate) fn show_notices(&mut self) -> io::Result<()> {
        let mut out = io::stderr().lock();
        self.session.take_notices().iter().try_for_each(|notice| writeln!(out, "{notice}"))
    }

    fn move_to(&mut self, arguments: &[Vec<u8>]) -> anyhow::Result<()> {
        let [host, port] = arguments else { bail!("Write: connect HOST PORT") };
        let host = String::from_utf8_lossy(host).into_owned();
        let Ok(port) = String::from_utf8_lossy(port).parse() else {
            bail!("Write: connect HOST PORT")
        };
        self.session.move_to(Address::tcp(host, port));
        self.session.connected()?;
        Ok(self.show_notices()?)
    }

    /// Fetches what is known about commands, once, when that disturbs nothing.
    pub(crate) fn load_hints(&mut self) {
        if self.hints.is_some() || !self.session.is_idle() {
            return;
        }
        if let Ok(connection) = self.session.connected() {
            self.hints = Some(hints::commands(connection));
        }
    }

    fn help(&mut self, words: &[Vec<u8>]) -> anyhow::Result<()> {
        let words: Vec<String> =
            words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        if words.is_empty() {
            return Ok(self.printer.text(GENERAL_HELP)?);
        }
        if !self.interactive {
            self.session.connected()?;
        }
        self.load_hints();
        let hints = self.hints.as_deref().unwrap_or_default();
        let Some((hint, _)) = hints::find(hints, &words) else {
            bail!("No help for '{}'; press TAB for the commands there are", words.join(" "));
        };
        let syntax = if hint.syntax.is_empty() { "" } else { &format!(" {}", hint.syntax) };
        let mut text = format!("\n  {}{syntax}\n  {}\n\n", hint.name, hint.summary);
        let prefix = format!("{} ", hint.name);
        for sub in hints.iter().filter(|it| it.name.starts_with(&prefix)) {
            text.push_str(&format!("  {} {}\n", sub.name, sub.syntax));
        }
        Ok(self.printer.text(&text)?)
    }
}

const GENERAL_HELP: &str = "\
help COMMAND       what a command does and which arguments it takes
TAB                complete the name of a command
N COMMAND          run the command N times
connect HOST PORT  talk to another server
clear              clear the screen
quit               leave
";

/// Takes the number off `5 INCR n`; a lone number is a command like any other.
fn take_repetitions(arguments: &mut Vec<Vec<u8>>) -> i64 {
    let number = arguments.first().and_then(|first| std::str::from_utf8(first).ok()?.parse().ok());
    match number {
        Some(times) if arguments.len() > 1 && times > 0 => {
            arguments.remove(0);
            times
        }
        _ => 1,
    }
}

/// Whether a command has no reply of its own but turns the connection into a stream.
fn is_streaming(arguments: &[Vec<u8>]) -> bool {
    let name = arguments.first().map(|name| name.to_ascii_lowercase());
    matches!(name.as_deref(), Some(b"subscribe" | b"psubscribe" | b"ssubscribe" | b"monitor"))
}

/// How many replies follow the first: in RESP2, UNSUBSCRIBE has one for every channel named.
fn further_replies(arguments: &[Vec<u8>], reply: &Reply) -> usize {
    let name = arguments.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
    match reply {
        Reply::Array(_) if name.ends_with(b"unsubscribe") => arguments.len().saturating_sub(2),
        _ => 0,
    }
}

/// Whether the reply to a command is text for people, which is never quoted.
fn is_report(arguments: &[Vec<u8>]) -> bool {
    let word = |index: usize| arguments.get(index).map(|word| word.to_ascii_lowercase());
    let (first, second) = (word(0).unwrap_or_default(), word(1).unwrap_or_default());
    matches!(
        (first.as_slice(), second.as_slice()),
        (b"info" | b"lolwut", _)
            | (b"memory", b"malloc-stats" | b"doctor")
            | (b"latency", b"graph" | b"doctor")
            | (b"cluster", b"nodes" | b"info")
            | (b"client", b"list" | b"info")
            | (b"debug", b"htstats" | b"htstats-key")
    )
}

fn is_monitor(arguments: &[Vec<u8>]) -> bool {
    arguments.first().is_some_and(|name| name.eq_ignore_ascii_case(b"monitor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repetitions(line: &str) -> (i64, usize) {
        let mut arguments = split_arguments(line.as_bytes()).unwrap();
        let times = take_repetitions(&mut arguments);
        (times, arguments.len())
    }

    #[test]
    fn a_leading_number_repeats() {
        assert_eq!(repetitions("5 incr n"), (5, 2));
        assert_eq!(repetitions("5"), (1, 1));
        assert_eq!(repetitions("-5 x"), (1, 2));
        assert_eq!(repetitions("incr 5"), (1, 2));
    }

    #[test]
    fn every_channel_left_has_a_reply() {
        let words = |line: &str| split_arguments(line.as_bytes()).unwrap();
        let list = Reply::Array(vec![]);
        assert_eq!(further_replies(&words("unsubscribe a b c"), &list), 2);
        assert_eq!(further_replies(&words("PUNSUBSCRIBE"), &list), 0);
        assert_eq!(further_replies(&words("unsubscribe a b"), &Reply::Push(vec![])), 0);
        assert_eq!(further_replies(&words("mget a b c"), &list), 0);
    }

    #[test]
    fn reports_are_known_by_name_and_subcommand() {
        for (line, expected) in
            [("INFO", true), ("Client LIST", true), ("client getname", false), ("get info", false)]
        {
            assert_eq!(is_report(&split_arguments(line.as_bytes()).unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn streams_are_known_by_name() {
        for (name, expected) in
            [("Subscribe", true), ("MONITOR", true), ("unsubscribe", false), ("get", false)]
        {
            assert_eq!(is_streaming(&[name.as_bytes().to_vec()]), expected, "{name}");
        }
    }
}

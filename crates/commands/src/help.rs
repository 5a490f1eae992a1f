//! The HELP subcommand of containers, from the rows of their subcommands.

use crate::context::Cx;
use crate::error::{Outcome, ReplyError};
use crate::table::{Entry, table};
use hypercache_protocol::parse::Args;

/// Answers with the lines of the container that the first argument names.
pub(crate) fn help(cx: &mut Cx<'_>, args: Args<'_>) -> Outcome {
    let container = table().get(args.get(0)).ok_or(ReplyError::Syntax)?;
    let lines = lines_of(container);
    cx.reply.array(lines.len());
    lines.iter().for_each(|line| cx.reply.simple(line));
    Ok(())
}

/// A head; of each subcommand its syntax and, indented, what it does; HELP itself at the end.
fn lines_of(container: &Entry) -> Vec<String> {
    let name = container.row.name;
    let head = format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let rows = container.subcommands.iter().map(|sub| sub.row).filter(|row| row.name != "HELP");
    let texts = rows.map(|row| (row.name, row.syntax, row.summary));
    let texts = texts.chain([("HELP", "", "Prints this help.")]);
    let lines = texts.flat_map(|(name, syntax, summary)| {
        [format!("{name} {syntax}").trim_end().to_owned(), format!("    {summary}")]
    });
    [head].into_iter().chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_has_its_lines() {
        for container in table().commands().filter(|entry| !entry.subcommands.is_empty()) {
            let lines = lines_of(container);
            let helps = container.subcommand(b"HELP").is_some();
            let subcommands = container.subcommands.len() + usize::from(!helps);
            assert_eq!(lines.len(), 1 + 2 * subcommands, "{}", container.row.name);
            assert!(lines.iter().all(|line| !line.contains('\n')));
        }
    }

    #[test]
    fn lines_name_syntax_and_summary() {
        let container = table().get(b"pubsub").expect("a command");
        let lines = lines_of(container);
        assert_eq!(lines[0], "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
        assert_eq!(lines[1], "CHANNELS [pattern]");
        assert!(lines[2].starts_with("    Channels that"));
        assert_eq!(lines[lines.len() - 2..], ["HELP", "    Prints this help."]);
    }
}

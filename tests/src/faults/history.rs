//! What clients saw, as text for Jepsen's tools, and whether it is linearizable.

use hypercache_sim::wgl::{self, Call, Op, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was answered.
    Ok,
    /// It certainly had no effect.
    Fail,
    /// It may have had its effect, or have it later.
    Unknown,
}

/// One call of one client. Times are nanoseconds of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The client. One that does not know what became of a call goes on under another number.
    pub process: u32,
    /// The register.
    pub key: u32,
    /// What was written or, once it was answered, read.
    pub op: Op,
    /// When it began.
    pub start_ns: u64,
    /// When it ended, however.
    pub end_ns: u64,
    /// What became of it.
    pub fate: Fate,
    /// It was read after all faults were over and all copies there.
    pub is_last: bool,
}

/// What a history says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes that were acknowledged.
    pub acked: usize,
    /// Calls that were answered.
    pub answered: usize,
    /// Calls of which nobody knows.
    pub unknown: usize,
    /// Calls that certainly had no effect.
    pub refused: usize,
    /// Acknowledged writes that came after what was found in the end.
    pub lost: usize,
    /// Registers that were written and could not be read in the end.
    pub unread: usize,
    /// Registers whose history is not linearizable, each with the calls around the contradiction.
    pub violations: Vec<String>,
}

/// Checks everything.
pub fn judge(records: &[Record]) -> Verdict {
    let count = |is: &dyn Fn(&Record) -> bool| records.iter().filter(|record| is(record)).count();
    let mut verdict = Verdict {
        acked: count(&|r| r.fate == Fate::Ok && matches!(r.op, Op::Write(_))),
        answered: count(&|r| r.fate == Fate::Ok),
        unknown: count(&|r| r.fate == Fate::Unknown),
        refused: count(&|r| r.fate == Fate::Fail),
        ..Verdict::default()
    };
    let mut by_key: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
    for record in records {
        by_key.entry(record.key).or_default().push(*record);
    }
    for (key, records) in by_key {
        let calls = calls_of(&records);
        if !wgl::is_linearizable(&calls) {
            let around = wgl::first_contradiction(&calls).unwrap_or_default();
            verdict.violations.push(format!("register {key}: {}", tell(&around)));
        }
        let last = records.iter().find(|r| r.is_last && r.fate == Fate::Ok);
        match last.map(|record| record.op) {
            Some(Op::Read(found)) => verdict.lost += lost_after(&records, found),
            _ => verdict.unread += 1,
        }
    }
    verdict
}

/// The last calls before a contradiction.
fn tell(around: &[Call]) -> String {
    let last = around.iter().rev().take(6).rev();
    last.map(|call| format!("{:?} at {}..{:?}", call.op, call.start, call.end))
        .collect::<Vec<_>>()
        .join("; ")
}

/// What the checker is to look at: calls without effect are none, and nobody knows what a read saw that
/// was not answered.
fn calls_of(records: &[Record]) -> Vec<Call> {
    let seen = records.iter().filter(|record| match record.fate {
        Fate::Ok => true,
        Fate::Fail => false,
        Fate::Unknown => !matches!(record.op, Op::Read(_)),
    });
    let call = |record: &Record| Call {
        start: record.start_ns,
        end: (record.fate == Fate::Ok).then_some(record.end_ns),
        op: record.op,
    };
    seen.map(call).collect()
}

/// Acknowledged writes that certainly came after the one that was found in the end.
fn lost_after(records: &[Record], found: Value) -> usize {
    let writes = || records.iter().filter(|r| matches!(r.op, Op::Write(_)) && r.fate != Fate::Fail);
    let written = writes().find(|record| record.op == Op::Write(found));
    let is_after = |record: &&Record| match written {
        None => true,
        // What was found may have been written at any time since that began.
        Some(written) => written.fate == Fate::Ok && record.start_ns > written.end_ns,
    };
    writes().filter(|record| record.fate == Fate::Ok).filter(is_after).count()
}

/// The longest time in which no call was answered, before the reading in the end.
pub fn longest_gap_ms(records: &[Record]) -> u64 {
    let answered = records.iter().filter(|r| r.fate == Fate::Ok && !r.is_last);
    let mut ends: Vec<u64> = answered.map(|record| record.end_ns).collect();
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) / 1_000_000
}

/// The history in the form of Jepsen: a map a line, each call as an invocation and what became of it.
pub fn edn(records: &[Record]) -> String {
    let mut events: Vec<(u64, bool, &Record)> = Vec::new();
    for record in records {
        events.push((record.start_ns, false, record));
        events.push((record.end_ns, true, record));
    }
    events.sort_by_key(|(at, is_end, record)| (*at, *is_end, record.process));
    let mut text = String::new();
    for (index, (time, is_end, record)) in events.into_iter().enumerate() {
        let kind = match (is_end, record.fate) {
            (false, _) => "invoke",
            (true, Fate::Ok) => "ok",
            (true, Fate::Fail) => "fail",
            (true, Fate::Unknown) => "info",
        };
        let (f, value) = match record.op {
            Op::Read(value) => ("read", value.filter(|_| is_end && record.fate == Fate::Ok)),
            Op::Write(value) => ("write", value),
            Op::Cas { to, .. } => ("cas", Some(to)),
        };
        let value = value.map_or_else(|| "nil".to_owned(), |value| value.to_string());
        let Record { process, key, .. } = record;
        // Writing to a string does not fail.
        _ = writeln!(
            text,
            "{{:index {index}, :time {time}, :process {process}, :type :{kind}, :f :{f}, :value [{key} {value}]}}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: u32, op: Op, start_ns: u64, fate: Fate) -> Record {
        Record { process: 1, key, op, start_ns, end_ns: start_ns + 5, fate, is_last: false }
    }

    fn last(key: u32, found: Value) -> Record {
        Record { is_last: true, ..record(key, Op::Read(found), 1000, Fate::Ok) }
    }

    #[test]
    fn a_lost_write_is_counted_and_a_violation() {
        let write = |value, start, fate| record(1, Op::Write(Some(value)), start, fate);
        let good = [
            write(1, 0, Fate::Ok),
            write(2, 10, Fate::Unknown),
            write(3, 20, Fate::Fail),
            last(1, Some(2)),
        ];
        let verdict = judge(&good);
        assert_eq!((verdict.lost, verdict.violations.len(), verdict.acked), (0, 0, 1));
        assert_eq!((verdict.unknown, verdict.refused, verdict.unread), (1, 1, 0));
        let bad = [write(1, 0, Fate::Ok), write(2, 10, Fate::Ok), last(1, Some(1))];
        let verdict = judge(&bad);
        assert_eq!((verdict.lost, verdict.violations.len()), (1, 1));
        let gone = [write(1, 0, Fate::Ok), write(2, 10, Fate::Ok), last(1, None)];
        assert_eq!(judge(&gone).lost, 2);
        assert_eq!(judge(&good[..2]).unread, 1);
    }

    #[test]
    fn what_failed_cannot_be_read() {
        let history = [
            record(1, Op::Write(Some(1)), 0, Fate::Fail),
            record(1, Op::Read(Some(1)), 10, Fate::Ok),
            last(1, None),
        ];
        assert_eq!(judge(&history).violations.len(), 1);
    }

    #[test]
    fn a_history_is_written_as_jepsen_reads_it() {
        let text = edn(&[
            record(7, Op::Write(Some(3)), 10, Fate::Ok),
            record(7, Op::Read(Some(3)), 12, Fate::Unknown),
        ]);
        let expected = "\
{:index 0, :time 10, :process 1, :type :invoke, :f :write, :value [7 3]}
{:index 1, :time 12, :process 1, :type :invoke, :f :read, :value [7 nil]}
{:index 2, :time 15, :process 1, :type :ok, :f :write, :value [7 3]}
{:index 3, :time 17, :process 1, :type :info, :f :read, :value [7 nil]}
";
        assert_eq!(text, expected);
    }
}

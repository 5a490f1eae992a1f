//! Results as text for people and as JSON for programs.

use super::compare::{Comparison, Quantity};
use super::measure::Window;
use serde_json::{Value, json};
use std::fmt::Write;

const QUANTILES: [(f64, &str, &str); 4] = [
    (0.5, "p50", "p50_us"),
    (0.9, "p90", "p90_us"),
    (0.99, "p99", "p99_us"),
    (0.999, "p99.9", "p99_9_us"),
];

/// What a run was, as it stands above its results.
#[derive(Clone, Debug)]
pub(crate) struct Title {
    pub(crate) server: String,
    pub(crate) workload: String,
    pub(crate) clients: u64,
    pub(crate) threads: u64,
    pub(crate) pipeline: u64,
    pub(crate) rate: Option<u64>,
}

impl Title {
    fn text(&self) -> String {
        let rate = match self.rate {
            Some(rate) => format!("{rate} op/s due"),
            None => "closed loop".into(),
        };
        format!(
            "{}: {}, {} clients on {} threads, pipeline {}, {rate}\n",
            self.server, self.workload, self.clients, self.threads, self.pipeline
        )
    }

    fn json(&self) -> Value {
        json!({
            "server": self.server,
            "workload": self.workload,
            "clients": self.clients,
            "threads": self.threads,
            "pipeline": self.pipeline,
            "rate_ops": self.rate,
        })
    }
}

/// The result of a run as text.
pub(crate) fn run_text(title: &Title, window: &Window) -> String {
    let tally = &window.tally;
    let mut text = title.text();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    let seconds = tally.elapsed.as_secs_f64();
    line(
        "throughput",
        format!("{:.0} op/s ({} in {seconds:.2} s)", tally.throughput(), tally.replies),
    );
    for (quantile, name, _) in QUANTILES {
        line(name, format!("{:.1} µs", tally.quantile_us(quantile)));
    }
    line("max", format!("{:.1} µs", tally.latencies.max() as f64 / 1e3));
    if let Some(cpu) = window.cpu_us_per_op() {
        line("server CPU", format!("{cpu:.3} µs/op"));
    }
    if tally.nulls > 0 {
        line("null replies", tally.nulls.to_string());
    }
    if tally.unsent > 0 {
        line("never sent", format!("{} requests that were due", tally.unsent));
    }
    if tally.errors > 0 {
        let first = tally.first_error.as_deref().unwrap_or_default();
        line("errors", format!("{}, the first: {first}", tally.errors));
    }
    text
}

/// The result of a run as JSON.
pub(crate) fn run_json(title: &Title, window: &Window) -> Value {
    let tally = &window.tally;
    let mut value = title.json();
    let latencies = QUANTILES.map(|(quantile, _, name)| (name, tally.quantile_us(quantile)));
    for (name, latency) in latencies {
        value["latency"][name] = latency.into();
    }
    value["latency"]["max_us"] = (tally.latencies.max() as f64 / 1e3).into();
    value["latency"]["mean_us"] = (tally.latencies.mean() / 1e3).into();
    value["throughput_ops"] = tally.throughput().into();
    value["seconds"] = tally.elapsed.as_secs_f64().into();
    value["replies"] = tally.replies.into();
    value["null_replies"] = tally.nulls.into();
    value["unsent"] = tally.unsent.into();
    value["errors"] = tally.errors.into();
    value["first_error"] = tally.first_error.clone().into();
    value["cpu_us_per_op"] = window.cpu_us_per_op().into();
    value
}

/// What a comparison found.
#[derive(Debug)]
pub(crate) struct Versus {
    pub(crate) title: Title,
    pub(crate) second: String,
    pub(crate) rounds: u64,
    pub(crate) comparisons: Vec<(Quantity, Option<Comparison>)>,
    /// Error replies of the first and of the second server, and the first of them.
    pub(crate) errors: [(u64, Option<String>); 2],
}

/// The result of a comparison as a table.
pub(crate) fn versus_text(versus: &Versus) -> String {
    let Versus { title, second, rounds, comparisons, errors } = versus;
    let mut text = title.text();
    let width = title.server.len().max(second.len()).max(12);
    let _ = writeln!(
        text,
        "\n{:<20} {:>width$} {second:>width$}   ratio (median of {rounds} pairs, quartiles)",
        "", title.server
    );
    for (quantity, comparison) in comparisons {
        let (name, _) = quantity.names();
        let _ = match comparison {
            Some(Comparison { first, second, ratio: [low, median, high] }) => writeln!(
                text,
                "{name:<20} {first:>width$.2} {second:>width$.2}   {median:.3} ({low:.3} .. {high:.3})"
            ),
            None => writeln!(text, "{name:<20} {:>width$} {:>width$}   unknown", "-", "-"),
        };
    }
    for ((count, first_error), server) in errors.iter().zip([&title.server, second]) {
        if *count > 0 {
            let first = first_error.as_deref().unwrap_or_default();
            let _ = writeln!(text, "\nerrors of {server}: {count}, the first: {first}");
        }
    }
    text
}

/// The result of a comparison as JSON.
pub(crate) fn versus_json(versus: &Versus) -> Value {
    let mut value = versus.title.json();
    value["against"] = versus.second.clone().into();
    value["rounds"] = versus.rounds.into();
    for (quantity, comparison) in &versus.comparisons {
        let (_, name) = quantity.names();
        value["comparison"][name] = match comparison {
            Some(Comparison { first, second, ratio: [low, median, high] }) => json!({
                "first": first,
                "second": second,
                "ratio": { "p25": low, "median": median, "p75": high },
            }),
            None => Value::Null,
        };
    }
    value["errors"] = json!([versus.errors[0].0, versus.errors[1].0]);
    value["first_errors"] = json!([versus.errors[0].1, versus.errors[1].1]);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::generator::Tally;
    use std::time::Duration;

    fn title() -> Title {
        Title {
            server: "h:1".into(),
            workload: "get".into(),
            clients: 2,
            threads: 1,
            pipeline: 1,
            rate: None,
        }
    }

    fn window() -> Window {
        let mut tally = Tally::new().unwrap();
        tally.replies = 1000;
        tally.errors = 3;
        tally.first_error = Some("ERR x".into());
        tally.elapsed = Duration::from_secs(2);
        tally.latencies.saturating_record_n(5000, 1000);
        Window { tally, cpu: Some(Duration::from_millis(10)) }
    }

    #[test]
    fn runs_are_reported_in_both_forms() {
        let text = run_text(&title(), &window());
        for needle in ["500 op/s", "p99.9", "10.000 µs/op", "errors       3, the first: ERR x"] {
            assert!(text.contains(needle), "{needle} in {text}");
        }
        let json = run_json(&title(), &window());
        assert_eq!(json["throughput_ops"], 500.0);
        assert_eq!(json["errors"], 3);
        assert!((json["latency"]["p99_us"].as_f64().unwrap() - 5.0).abs() < 0.01);
    }

    #[test]
    fn comparisons_are_reported_in_both_forms() {
        let comparison = Comparison { first: 2.0, second: 1.0, ratio: [1.9, 2.0, 2.1] };
        let versus = Versus {
            title: title(),
            second: "h:2".into(),
            rounds: 3,
            comparisons: vec![(Quantity::Throughput, Some(comparison)), (Quantity::Cpu, None)],
            errors: [(0, None), (1, Some("ERR y".into()))],
        };
        let text = versus_text(&versus);
        assert!(text.contains("2.000 (1.900 .. 2.100)"), "{text}");
        assert!(text.contains("unknown") && text.contains("errors of h:2: 1"), "{text}");
        let json = versus_json(&versus);
        assert_eq!(json["comparison"]["throughput_ops"]["ratio"]["median"], 2.0);
        assert!(json["comparison"]["cpu_us_per_op"].is_null());
    }
}

//! `cargo xtask evict`: how many misses the server's eviction policy has on traces, beside those of
//! others at the same memory.
//!
//! The policy is the server's own code. Memory is bytes of objects and of what each policy keeps per
//! object, so one that keeps more has room for fewer.

mod adaptive;
mod cache;
mod cost;
mod curve;
mod plot;
mod queues;
mod replay;
mod sampled;
mod trace;

use crate::process::{cargo, run};
use adaptive::{Adaptive, Shape};
use anyhow::{Context, Result, bail};
use cache::{Cache, Setup};
use plot::plot;
use queues::{Arc, Recency, S3Fifo, Sieve, TinyLfu, TwoQueues};
use sampled::{Belady, Gdsf, Lhd, Redis, RedisLike};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use trace::Trace;

/// A cache's size in shares of the bytes of all objects.
const SHARES: [f64; 5] = [0.001, 0.01, 0.03, 0.1, 0.3];
/// A cache for fewer objects than this says nothing.
const OBJECTS_MIN: u64 = 64;

/// A policy by name.
struct Contestant {
    name: &'static str,
    /// Bytes that it keeps per object in the cache, what it remembers of others included. Links are
    /// counted as 4 bytes, the identity of what is remembered too.
    overhead: u64,
    make: fn(Setup) -> Box<dyn Cache>,
}

const fn contestant(
    name: &'static str,
    overhead: u64,
    make: fn(Setup) -> Box<dyn Cache>,
) -> Contestant {
    Contestant { name, overhead, make }
}

/// All policies, what they are compared with first.
const CONTESTANTS: &[Contestant] = &[
    contestant("fifo", 4, |setup| Box::new(Recency::new(setup, false))),
    contestant("adaptive", 16, |setup| {
        Box::new(Adaptive::new(setup, Shape { bucket: 6, ghosts: 2 }))
    }),
    contestant("lru", 8, |setup| Box::new(Recency::new(setup, true))),
    contestant("redis-lru", 3, |setup| Box::new(RedisLike::new(setup, Redis::Lru))),
    contestant("redis-lfu", 3, |setup| Box::new(RedisLike::new(setup, Redis::Lfu))),
    contestant("sieve", 9, |setup| Box::new(Sieve::new(setup))),
    contestant("s3-fifo", 9, |setup| Box::new(S3Fifo::new(setup))),
    contestant("w-tinylfu", 16, |setup| Box::new(TinyLfu::new(setup))),
    contestant("arc", 20, |setup| Box::new(Arc::new(setup))),
    contestant("2q", 14, |setup| Box::new(TwoQueues::new(setup))),
    contestant("lhd", 12, |setup| Box::new(Lhd::new(setup))),
    contestant("gdsf", 12, |setup| Box::new(Gdsf::new(setup))),
    contestant("belady", 0, |setup| Box::new(Belady::new(setup))),
];

/// Miss ratios of all policies on one trace at one size.
struct Point {
    trace: String,
    share: f64,
    misses: Vec<f64>,
}

/// What is asked for.
struct Options {
    traces: Vec<PathBuf>,
    svg: Option<PathBuf>,
    /// Not policies but miss-ratio curves.
    is_of_curves: bool,
    /// Not the simulator but running servers.
    is_replay: bool,
    /// Bytes of objects of traces that do not say.
    object_bytes: Option<u32>,
    shares: Vec<f64>,
    contestants: Vec<&'static Contestant>,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Options> {
        let mut options = Options {
            traces: Vec::new(),
            svg: None,
            is_of_curves: false,
            is_replay: false,
            object_bytes: None,
            shares: SHARES.to_vec(),
            contestants: CONTESTANTS.iter().collect(),
        };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word {
                "--curves" => options.is_of_curves = true,
                "--replay" => options.is_replay = true,
                "--object-bytes" => options.object_bytes = Some(value()?.parse()?),
                "--svg" => options.svg = Some(PathBuf::from(value()?)),
                "--percent" => {
                    let percent = value()?.split(',').map(str::parse::<f64>);
                    options.shares = percent.map(|p| Ok(p? / 100.0)).collect::<Result<_>>()?;
                }
                "--policies" => {
                    let wanted: Vec<_> = value()?.split(',').collect();
                    options.contestants.retain(|c| c.name == "fifo" || wanted.contains(&c.name));
                }
                option if option.starts_with("--") => bail!("no such option: {option}"),
                path => options.traces.push(PathBuf::from(path)),
            }
        }
        if options.traces.is_empty() {
            bail!("name trace files (*.hct.zst)");
        }
        Ok(options)
    }
}

/// Runs the policies over traces and prints a table. Debug builds start the release build.
pub(crate) fn evict(words: &[&str]) -> Result<()> {
    let is_of_cost = words == ["--cost"];
    let options = if is_of_cost { None } else { Some(Options::parse(words)?) };
    if cfg!(debug_assertions) {
        let release = ["run", "--quiet", "--release", "--package", "xtask", "--", "evict"];
        return run("cargo", &[&release[..], words].concat());
    }
    let Some(options) = options else {
        cost::print();
        return Ok(());
    };
    if options.is_of_curves {
        return curves(&options.traces);
    }
    if options.is_replay {
        cargo(&["build", "--release", "--package", "hypercache"])?;
        let traces = options.traces.iter().map(|path| Trace::read(path));
        let traces = traces.collect::<Result<Vec<_>>>()?;
        return options.shares.iter().try_for_each(|&share| {
            println!("\n{} % of the bytes of all objects:\n", share * 100.0);
            replay::replay(&traces, share, options.object_bytes)
        });
    }
    let mut points = Vec::new();
    for path in &options.traces {
        run_trace(path, &options, &mut points)?;
    }
    print!("{}", table(&points, &options.contestants));
    if let Some(path) = &options.svg {
        let names: Vec<_> = options.contestants.iter().map(|c| c.name).collect();
        let means: Vec<_> =
            (0..names.len()).map(|policy| mean_reduction(&points, policy)).collect();
        std::fs::write(path, plot(&names, &means))?;
    }
    Ok(())
}

/// Prints how far the miss-ratio curve of each trace is from the exact one.
fn curves(paths: &[PathBuf]) -> Result<()> {
    println!(
        "| trace | requests | objects | mean absolute error of the hit ratio |\n|---|---:|---:|---:|"
    );
    for path in paths {
        let trace = Trace::read(path)?;
        let (requests, objects) = (trace.ids.len(), trace.sizes.len());
        println!("| {} | {requests} | {objects} | {:.4} |", trace.name, curve::error(&trace));
    }
    Ok(())
}

fn run_trace(path: &Path, options: &Options, points: &mut Vec<Point>) -> Result<()> {
    let trace = Rc::new(Trace::read(path)?);
    let footprint = trace.footprint();
    for &share in &options.shares {
        let capacity = (footprint as f64 * share) as u64;
        let objects = capacity as f64 / footprint as f64 * trace.sizes.len() as f64;
        if (objects as u64) < OBJECTS_MIN {
            continue;
        }
        let ratio = |contestant: &&Contestant| {
            let Contestant { overhead, make, .. } = **contestant;
            miss_ratio(&mut *make(Setup { capacity, trace: Rc::clone(&trace), overhead }), &trace)
        };
        let misses = options.contestants.iter().map(ratio).collect();
        let point = Point { trace: trace.name.clone(), share, misses };
        eprintln!("{}", row(&point));
        points.push(point);
    }
    Ok(())
}

fn miss_ratio(cache: &mut dyn Cache, trace: &Trace) -> f64 {
    let requests = trace.ids.iter().enumerate();
    let misses = requests.filter(|(at, id)| !cache.request(**id, *at)).count();
    misses as f64 / trace.ids.len() as f64
}

/// By how much a policy has fewer misses than the first: the difference divided by the greater of both.
fn reduction(point: &Point, policy: usize) -> f64 {
    let (first, other) = (point.misses[0], point.misses[policy]);
    (first - other) / first.max(other)
}

fn mean_reduction(points: &[Point], policy: usize) -> f64 {
    points.iter().map(|point| reduction(point, policy)).sum::<f64>() / points.len().max(1) as f64
}

/// A line of the table: miss ratios and the best reference.
fn row(point: &Point) -> String {
    let mut line = format!("| {} | {} % |", point.trace, point.share * 100.0);
    for misses in &point.misses {
        // Writing to a string cannot fail.
        let _ = write!(line, " {misses:.4} |");
    }
    line
}

/// The points as a table, with the mean reduction last.
fn table(points: &[Point], contestants: &[&Contestant]) -> String {
    let names: Vec<_> = contestants.iter().map(|c| c.name).collect();
    let mut lines = vec![
        format!("| trace | memory | {} |", names.join(" | ")),
        format!("|---|---|{}", "---:|".repeat(names.len())),
    ];
    lines.extend(points.iter().map(row));
    let means = (0..names.len()).map(|policy| mean_reduction(points, policy) * 100.0);
    let means: Vec<_> = means.map(|mean| format!("{mean:.1} %")).collect();
    lines.push(format!("| **fewer misses than {}, mean** | | {} |", names[0], means.join(" | ")));
    lines.join("\n") + "\n"
}

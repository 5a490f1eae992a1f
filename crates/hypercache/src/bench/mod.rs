//! `hypercache bench`: a load generator that can be trusted with small differences.
//!
//! [`generator`] explains how load is made and how latency is measured, [`compare`] how two
//! servers are compared. A run is: set the keys, warm up, measure, report.

mod compare;
mod cpu;
mod generator;
mod keys;
mod measure;
mod options;
mod random;
mod replies;
mod report;
mod request;
mod workload;

use anyhow::Context;
use clap::Parser;
use compare::{Quantity, compare};
use hypercache_client::Endpoint;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use measure::{Fleet, Length, Shape, Window, share};
use options::Options;
use report::{Title, Versus};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use workload::Recipe;

/// Requests per batch when setting the keys, where latency does not matter.
const LOADING_PIPELINE: u64 = 32;
/// Bytes of values per batch when setting the keys.
const LOADING_BATCH_BYTES: u64 = 1 << 20;

/// Runs `hypercache bench` with the arguments that follow `bench`.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let words = std::iter::once("hypercache bench").chain(args.iter().map(String::as_str));
    let parsed = Options::try_parse_from(words)
        .and_then(|options| options.validate().map(|workload| (options, workload)));
    let (options, workload) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)));
        }
    };
    let bench = Bench { recipe: options.recipe(workload)?, shape: options.shape(), options };
    let errors = match bench.options.endpoints() {
        (only, None) => bench.measure(&only)?,
        (first, Some(second)) => bench.versus(&first, &second)?,
    };
    Ok(if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Everything a run is made from.
struct Bench {
    options: Options,
    recipe: Recipe,
    shape: Shape,
}

impl Bench {
    /// Measures one server and returns how many replies were errors.
    fn measure(&self, endpoint: &Endpoint) -> anyhow::Result<u64> {
        self.load(endpoint)?;
        let mut fleet = self.fleet(endpoint)?;
        self.warm_up(&mut fleet)?;
        let window = match self.options.request_limit() {
            Some(requests) => {
                let bar = self.bar("measuring", requests);
                fleet.run(Length::Requests(requests), |done| bar.set_position(done))?
            }
            None => self.timed(&mut fleet, "measuring", self.options.duration())?,
        };
        let title = self.title(endpoint);
        if self.options.json {
            print_out(&format!("{:#}\n", report::run_json(&title, &window)))?;
        } else {
            print_out(&report::run_text(&title, &window))?;
        }
        Ok(window.tally.errors)
    }

    /// Compares two servers and returns how many replies were errors.
    fn versus(&self, first: &Endpoint, second: &Endpoint) -> anyhow::Result<u64> {
        self.load(first)?;
        self.load(second)?;
        let mut fleets = [self.fleet(first)?, self.fleet(second)?];
        for fleet in &mut fleets {
            self.warm_up(fleet)?;
        }
        let pairs = self.alternate(&mut fleets)?;
        let versus = Versus {
            title: self.title(first),
            second: second.address.to_string(),
            rounds: self.options.rounds,
            comparisons: Quantity::ALL.map(|it| (it, compare(&pairs, it))).to_vec(),
            errors: [
                sum_errors(pairs.iter().map(|(window, _)| window)),
                sum_errors(pairs.iter().map(|(_, window)| window)),
            ],
        };
        if self.options.json {
            print_out(&format!("{:#}\n", report::versus_json(&versus)))?;
        } else {
            print_out(&report::versus_text(&versus))?;
        }
        Ok(versus.errors.iter().map(|(count, _)| count).sum())
    }

    /// Lets two fleets take turns.
    fn alternate(&self, fleets: &mut [Fleet; 2]) -> anyhow::Result<Vec<(Window, Window)>> {
        let [first, second] = fleets;
        let length = Length::Time(self.options.window());
        let bar = self.bar("comparing", self.options.rounds);
        let mut pairs = Vec::new();
        for round in 0..self.options.rounds {
            let pair = if round % 2 == 0 {
                let window = first.run(length, |_| ())?;
                (window, second.run(length, |_| ())?)
            } else {
                let window = second.run(length, |_| ())?;
                (first.run(length, |_| ())?, window)
            };
            pairs.push(pair);
            bar.inc(1);
        }
        Ok(pairs)
    }

    fn fleet(&self, endpoint: &Endpoint) -> anyhow::Result<Fleet> {
        Fleet::connect(endpoint, &self.shape, |thread| self.recipe.source(thread))
    }

    /// Sets every key, if the workload wants that.
    fn load(&self, endpoint: &Endpoint) -> anyhow::Result<()> {
        if !self.options.loads(&self.recipe.workload) {
            return Ok(());
        }
        let fitting = LOADING_BATCH_BYTES / (self.recipe.value_size.max as u64 + 1);
        let shape = Shape {
            pipeline: LOADING_PIPELINE.min(fitting).max(1),
            rate: None,
            ..self.shape.clone()
        };
        let (keys, threads) = (self.recipe.keys, shape.threads);
        let mut fleet = Fleet::connect(endpoint, &shape, |thread| {
            let first = (0..thread).map(|index| share(keys, index, threads)).sum();
            self.recipe.loading_source(first)
        })?;
        let bar = self.bar("loading", keys);
        let window = fleet.run(Length::Requests(keys), |done| bar.set_position(done))?;
        match window.tally.first_error {
            Some(error) => Err(anyhow::anyhow!("{error}")).context("Setting the keys failed"),
            None => Ok(()),
        }
    }

    fn warm_up(&self, fleet: &mut Fleet) -> anyhow::Result<()> {
        let time = self.options.warmup();
        if time.is_zero() {
            return Ok(());
        }
        self.timed(fleet, "warming up", time).map(drop)
    }

    fn timed(
        &self,
        fleet: &mut Fleet,
        what: &'static str,
        time: std::time::Duration,
    ) -> anyhow::Result<Window> {
        let bar = self.bar(what, time.as_millis() as u64);
        let start = hypercache_stdx::clock::instant();
        fleet.run(Length::Time(time), |_| bar.set_position(start.elapsed().as_millis() as u64))
    }

    /// A progress bar on standard error, hidden unless a person is looking.
    fn bar(&self, what: &'static str, len: u64) -> ProgressBar {
        let hidden = self.options.quiet || self.options.json || !std::io::stderr().is_terminal();
        let target =
            if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(len), target).with_message(what);
        // The template is a constant, so the plain style is only a formality.
        let style = ProgressStyle::with_template("{msg:>10} [{bar:40}] {percent}% {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.with_style(style).with_finish(indicatif::ProgressFinish::AndClear)
    }

    fn title(&self, endpoint: &Endpoint) -> Title {
        Title {
            server: endpoint.address.to_string(),
            workload: self.recipe.workload.name(),
            clients: self.shape.clients,
            threads: self.shape.threads,
            pipeline: self.shape.pipeline,
            rate: self.shape.rate,
        }
    }
}

fn sum_errors<'a>(windows: impl Iterator<Item = &'a Window>) -> (u64, Option<String>) {
    windows.fold((0, None), |(count, first), window| {
        let first = first.or_else(|| window.tally.first_error.clone());
        (count + window.tally.errors, first)
    })
}

/// Writes a report to standard output; a reader that has gone away does not matter.
fn print_out(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

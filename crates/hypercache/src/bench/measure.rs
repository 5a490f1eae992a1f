//! Runs windows of load on all threads at once and gathers what they measured.

use super::cpu::ServerCpu;
use super::generator::{Generator, Limit, Plan, Tally};
use super::request::RequestSource;
use anyhow::{Context, bail};
use hypercache_client::Endpoint;
use hypercache_stdx::clock;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(100);

/// How long a window is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Requests(u64),
    Time(Duration),
}

/// How a fleet is made up.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) clients: u64,
    pub(crate) threads: u64,
    pub(crate) pipeline: u64,
    pub(crate) rate: Option<u64>,
    pub(crate) pin_core: Option<usize>,
}

/// What one window of load on one server showed.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) tally: Tally,
    /// Processor time the server used meanwhile, if it could be read.
    pub(crate) cpu: Option<Duration>,
}

impl Window {
    /// Microseconds of the server's processor time per operation.
    pub(crate) fn cpu_us_per_op(&self) -> Option<f64> {
        let cpu = self.cpu?;
        (self.tally.replies > 0).then(|| cpu.as_secs_f64() * 1e6 / self.tally.replies as f64)
    }
}

/// The generators that put load on one server, one per thread.
#[derive(Debug)]
pub(crate) struct Fleet {
    generators: Vec<Generator>,
    shape: Shape,
    cpu: Option<ServerCpu>,
}

/// The part of `total` that falls to thread `index` of `threads`.
pub(crate) fn share(total: u64, index: u64, threads: u64) -> u64 {
    total / threads + u64::from(index < total % threads)
}

impl Fleet {
    /// Opens all connections; `source` makes the requests of a thread.
    pub(crate) fn connect(
        endpoint: &Endpoint,
        shape: &Shape,
        source: impl Fn(u64) -> RequestSource,
    ) -> anyhow::Result<Fleet> {
        let mut generators = Vec::new();
        for index in 0..shape.threads {
            let clients = share(shape.clients, index, shape.threads) as usize;
            generators.push(Generator::connect(endpoint, clients, shape.pipeline, source(index))?);
        }
        Ok(Fleet { generators, shape: shape.clone(), cpu: ServerCpu::find(endpoint) })
    }

    /// Runs one window; `tick` is called now and then with the replies so far.
    pub(crate) fn run(&mut self, length: Length, tick: impl Fn(u64)) -> anyhow::Result<Window> {
        let threads = self.shape.threads;
        let interval = self.shape.rate.map(|rate| {
            Duration::from_secs_f64((self.shape.pipeline * threads) as f64 / rate as f64)
        });
        let cpu_before = self.cpu.as_ref().and_then(ServerCpu::run_time);
        let start = clock::instant();
        let done = AtomicU64::new(0);
        let pin_core = self.shape.pin_core;
        let (sender, receiver) = channel();
        let results = thread::scope(|scope| {
            let mut handles = Vec::new();
            for (index, generator) in (0..).zip(&mut self.generators) {
                let limit = match length {
                    Length::Requests(requests) => Limit::Requests(share(requests, index, threads)),
                    Length::Time(time) => Limit::Until(start + time),
                };
                // Threads take turns, so that the rate is even and not in bursts.
                let offset = interval.unwrap_or_default().mul_f64(index as f64 / threads as f64);
                let plan = Plan { start: start + offset, limit, interval };
                let (sender, done) = (sender.clone(), &done);
                handles.push(scope.spawn(move || {
                    let result = prepare_thread(pin_core).and_then(|()| generator.run(plan, done));
                    // The other side waits for as many messages as there are threads.
                    let _ = sender.send(());
                    result
                }));
            }
            drop(sender);
            while receiver.recv_timeout(TICK) != Err(RecvTimeoutError::Disconnected) {
                tick(done.load(Ordering::Relaxed));
            }
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|_| bail!("A generator failed")))
                .collect::<anyhow::Result<Vec<Tally>>>()
        })?;
        let cpu_after = self.cpu.as_ref().and_then(ServerCpu::run_time);
        let mut tally = Tally::new()?;
        for result in results {
            tally.merge(result)?;
        }
        let cpu = cpu_after.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
        Ok(Window { tally, cpu })
    }
}

/// Pins the calling thread if asked to, and makes its timers as exact as they can be.
fn prepare_thread(pin_core: Option<usize>) -> anyhow::Result<()> {
    if let Some(core) = pin_core {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set)
            .with_context(|| format!("The threads cannot be pinned to core {core}"))?;
    }
    // By default the kernel may wake a thread 50 microseconds late, which would be measured.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).context("Timer slack")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (total, threads) in [(0, 1), (1, 3), (50, 4), (100, 7)] {
            let shares: Vec<u64> = (0..threads).map(|index| share(total, index, threads)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn cpu_is_per_operation() {
        let mut window = Window { tally: Tally::new().unwrap(), cpu: None };
        assert_eq!(window.cpu_us_per_op(), None);
        window.cpu = Some(Duration::from_millis(2));
        assert_eq!(window.cpu_us_per_op(), None);
        window.tally.replies = 1000;
        assert_eq!(window.cpu_us_per_op(), Some(2.0));
    }
}

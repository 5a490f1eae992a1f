//! Whether io_uring can be used here, found out by using it.

use super::{Ring, Uring};
use crate::io::{Driver, Event, Waker};
use hypercache_protocol::reply::Output;
use io_uring::opcode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(100);
const WAITS: u32 = 20;

/// Checks everything that [`Uring`] needs.
///
/// # Errors
/// A sentence that says what is missing.
pub(crate) fn probe() -> Result<(), String> {
    check_features(&Ring::new().map_err(|error| explain_setup(&error))?)?;
    let waker = Waker::new().map_err(|error| format!("no eventfd can be made: {error}"))?;
    let driver = Uring::new(waker)
        .map_err(|error| format!("the kernel refuses a ring of receive buffers: {error}"))?;
    exchange(driver)
}

fn explain_setup(error: &std::io::Error) -> String {
    let why = match Errno::from_io_error(error) {
        Some(Errno::NOSYS) => "the kernel has no io_uring",
        Some(Errno::PERM | Errno::ACCESS) => {
            "it is forbidden, by kernel.io_uring_disabled or by the container's system call filter"
        }
        Some(Errno::INVAL) => "the kernel is older than 6.1 and lacks deferred task running",
        Some(Errno::NOMEM) => "there is too little lockable memory (ulimit -l)",
        _ => return format!("the kernel refuses to set it up: {error}"),
    };
    why.into()
}

fn check_features(ring: &Ring) -> Result<(), String> {
    let params = ring.uring.params();
    let features = [
        (params.is_feature_ext_arg(), "waiting with a timeout"),
        (params.is_feature_nodrop(), "keeping all completions"),
        (params.is_feature_submit_stable(), "taking requests at once"),
        (params.is_feature_fast_poll(), "waiting for sockets without threads"),
    ];
    let mut probe = io_uring::Probe::new();
    let submitter = ring.uring.submitter();
    submitter
        .register_probe(&mut probe)
        .map_err(|error| format!("the kernel does not say what it supports: {error}"))?;
    let requests = [
        (probe.is_supported(opcode::AcceptMulti::CODE), "accept requests"),
        (probe.is_supported(opcode::RecvMulti::CODE), "receive requests"),
        (probe.is_supported(opcode::Send::CODE), "send requests"),
        (probe.is_supported(opcode::SendMsg::CODE), "requests to send messages"),
        (probe.is_supported(opcode::PollAdd::CODE), "poll requests"),
        (probe.is_supported(opcode::AsyncCancel::CODE), "cancel requests"),
    ];
    let missing = features.iter().chain(&requests).find(|(is_there, _)| !is_there);
    missing.map_or(Ok(()), |(_, what)| Err(format!("the kernel's io_uring lacks {what}")))
}

/// Sends a few bytes to and fro.
fn exchange(mut driver: Uring) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("an exchange over a socket pair failed: {error}");
    let flags = SocketFlags::CLOEXEC;
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let (near, far) = pair.map_err(|error| fail(error.into()))?;
    driver.add(0, near).map_err(fail)?;
    let mut bytes = Vec::new();
    for message in [b"to", b"go"] {
        rustix::net::send(&far, message, SendFlags::NOSIGNAL)
            .map_err(|error| fail(error.into()))?;
        receive(&mut driver, &mut bytes, message)?;
    }
    let output = Output { bytes, shared: Vec::new() };
    let mut events = Vec::new();
    let is_sent = |event: &Event| matches!(event, Event::Sent { .. });
    let mut is_done = driver.send(0, Box::new(output)).is_some();
    for _ in 0..WAITS {
        if is_done {
            break;
        }
        driver.wait(PATIENCE, &mut events).map_err(fail)?;
        driver.end_turn();
        is_done = events.drain(..).any(|event| is_sent(&event));
    }
    let mut echo = [0; 8];
    match rustix::net::recv(&far, &mut echo, RecvFlags::DONTWAIT) {
        Ok((_, 4)) if is_done && &echo[..4] == b"togo" => Ok(()),
        _ => Err("bytes sent over a socket pair did not arrive".into()),
    }
}

/// Waits for `message` and appends it to `bytes`.
fn receive(driver: &mut Uring, bytes: &mut Vec<u8>, message: &[u8]) -> Result<(), String> {
    let expected = bytes.len() + message.len();
    let mut events = Vec::new();
    for _ in 0..WAITS {
        driver.wait(PATIENCE, &mut events).map_err(|error| format!("waiting failed: {error}"))?;
        for event in events.drain(..) {
            match event {
                Event::Received { chunk, .. } => bytes.extend_from_slice(driver.bytes(chunk)),
                Event::Closed { .. } => {
                    return Err("the kernel's io_uring lacks multishot receives".into());
                }
                _ => {}
            }
        }
        driver.end_turn();
        if bytes.len() >= expected {
            return Ok(());
        }
    }
    Err("bytes of a multishot receive did not arrive".into())
}

//! Running other programs.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

/// Runs a program to its end; fails when it does.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    finish(Command::new(program).args(args))
}

/// Runs cargo.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    cargo_with(args, &[])
}

/// Runs cargo with further environment.
pub(crate) fn cargo_with(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    finish(Command::new(program).args(args).envs(env.iter().copied()))
}

/// Runs the nightly toolchain's cargo.
pub(crate) fn cargo_nightly(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).args(args).envs(env.iter().copied());
    // What the stable cargo that runs us set would name the wrong compiler.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    finish(&mut command)
}

/// Whether a program can be started and succeeds.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What a program prints.
pub(crate) fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} {} failed: {}", args.join(" "), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn finish(command: &mut Command) -> Result<()> {
    let words = command.get_args().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let name = command.get_program().to_string_lossy().into_owned();
    println!("\n$ {name} {words}");
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} {words}: {status}");
    }
    Ok(())
}

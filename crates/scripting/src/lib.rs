//! The Lua engine: its sandbox, the libraries that scripts expect, and the bridge to the commands.
//!
//! The language is Luau, which was made to run what strangers wrote: no bytecode is loaded, no file
//! opened, an endless loop or pattern is interrupted, memory is bounded. What Redis' Lua 5.1 has and
//! Luau lacks is in `prelude.luau` and the modules beside it. Known differences: messages of errors
//! inside the language, and numbers that `..` and `table.concat` turn into text, which show up to 17
//! digits and not 14.
#![forbid(unsafe_code)]

mod bridge;
mod json;
mod msgpack;
mod native;
mod numbers;
mod pack;
mod straight;
pub mod testing;
mod texts;
mod vm;

use hypercache_commands::Shared;
use hypercache_commands::scripts;

/// What the server installs.
#[derive(Debug)]
pub struct Engine;

impl scripts::Engine for Engine {
    fn new_vm(&self, shared: &Shared) -> Box<dyn scripts::Vm> {
        Box::new(vm::LuaVm::new(shared))
    }
}

//! What the prelude gets from Rust.

use crate::numbers;
use hypercache_commands::function::NAME_RULE;
use hypercache_commands::scripts::ScriptFlags;
use hypercache_stdx::sha1;
use mlua::{ChunkMode, Lua, Result, Table, Value};
use std::cell::Cell;
use std::rc::Rc;

/// The version of Redis that scripts are told.
const VERSION: &str = hypercache_commands::REDIS_VERSION;

/// The table that the prelude gets. `resp` is what `redis.setresp` chose; `env` will hold the
/// globals that loaded texts see.
pub(crate) fn table(lua: &Lua, resp: &Rc<Cell<i64>>) -> Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("version", VERSION)?;
    table.raw_set("version_number", version_number())?;
    table.raw_set("name_rule", NAME_RULE)?;
    table.raw_set("null", Value::NULL)?;
    table.raw_set("json", lua.create_function(|lua, ()| crate::json::library(lua))?)?;
    table.raw_set("msgpack", crate::msgpack::library(lua)?)?;
    table.raw_set("struct", crate::pack::library(lua)?)?;
    table.raw_set(
        "number",
        lua.create_function(|lua, n: f64| lua.create_string(numbers::text(n, numbers::SHOWN)))?,
    )?;
    table.raw_set(
        "sha1hex",
        lua.create_function(|lua, text: mlua::String| {
            lua.create_string(sha1::to_hex(&sha1::digest(&text.as_bytes())))
        })?,
    )?;
    let freeze = lua.create_function(|_, table: Table| {
        table.set_readonly(true);
        Ok(())
    })?;
    table.raw_set("freeze", freeze)?;
    let resp = Rc::clone(resp);
    table.raw_set(
        "setresp",
        lua.create_function(move |_, version: i64| {
            resp.set(version);
            Ok(())
        })?,
    )?;
    table.raw_set(
        "log",
        lua.create_function(|_, (level, text): (i64, mlua::String)| {
            log(level, &text.to_string_lossy());
            Ok(())
        })?,
    )?;
    table.raw_set(
        "is_flag",
        lua.create_function(|_, name: mlua::String| {
            Ok(ScriptFlags::by_name(&name.as_bytes()).is_some())
        })?,
    )?;
    // No script has a value of this kind but null, so none can make a call look like a question.
    let mark = mlua::LightUserData(std::ptr::without_provenance_mut(1));
    table.raw_set("acl_mark", Value::LightUserData(mark))?;
    Ok(table)
}

/// Adds the function that compiles a text for `loadstring` and `load`.
pub(crate) fn add_load(lua: &Lua, table: &Table, env: Rc<Cell<Option<Table>>>) -> Result<()> {
    let load =
        lua.create_function(move |lua, (text, name): (mlua::String, Option<mlua::String>)| {
            let text = text.as_bytes().to_vec();
            let name = match name {
                Some(name) => name.to_string_lossy(),
                None => format!("{}", String::from_utf8_lossy(&text)),
            };
            let globals = env.take();
            env.set(globals.clone());
            let chunk = lua.load(text).set_name(name).set_mode(ChunkMode::Text);
            let chunk = match globals {
                Some(globals) => chunk.set_environment(globals),
                None => chunk,
            };
            match chunk.into_function() {
                Ok(function) => Ok((Value::Function(function), Value::Nil)),
                Err(error) => {
                    let text = lua.create_string(crate::vm::syntax_message(&error))?;
                    Ok((Value::Nil, Value::String(text)))
                }
            }
        })?;
    table.raw_set("load", load)
}

/// The version as one number, a byte for each part.
fn version_number() -> u32 {
    VERSION.split('.').fold(0, |n, part| n << 8 | part.parse::<u32>().unwrap_or(0))
}

fn log(level: i64, text: &str) {
    match level {
        0 => tracing::trace!("{text}"),
        1 => tracing::debug!("{text}"),
        2 => tracing::info!("{text}"),
        _ => tracing::warn!("{text}"),
    }
}

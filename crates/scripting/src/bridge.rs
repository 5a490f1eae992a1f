//! Replies of commands to values of Lua, and values that scripts return to replies.

use crate::numbers::{self, truncated};
use hypercache_protocol::parse::OwnedArgs;
use hypercache_protocol::reply::{Output, Reply, Version};
use mlua::{Either, IntoLua, Lua, MultiValue, Result, Table, Value};

/// Whole numbers below this have no exponent.
const PLAIN_MAX: u64 = 100_000_000_000_000_000;
/// Tables nested deeper than this are not sent: each level is a frame of ours.
const DEPTH_MAX: usize = 500;
/// A table may refer to itself or to another very often, so a reply ends somewhere.
const REPLY_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Puts the arguments of `redis.call` into `args`; `None` when one is neither text nor number.
pub(crate) fn read_args(values: &MultiValue, args: &mut OwnedArgs) -> Option<()> {
    args.clear();
    for value in values {
        match value {
            Value::String(text) => args.push(&text.as_bytes()),
            Value::Integer(n) if n.unsigned_abs() < PLAIN_MAX => {
                args.push(itoa::Buffer::new().format(*n).as_bytes());
            }
            Value::Integer(_) | Value::Number(_) => {
                args.push(&numbers::text(numbers::of(value)?, numbers::EXACT));
            }
            _ => return None,
        }
    }
    Some(())
}

/// A string on its way to Lua. Text is copied to where it belongs at once, other bytes become a value
/// first.
pub(crate) fn text(bytes: &[u8]) -> impl IntoLua {
    match std::str::from_utf8(bytes) {
        Ok(text) => Either::Left(text),
        Err(_) => Either::Right(mlua::String::wrap(bytes)),
    }
}

/// A table with the text of an error.
pub(crate) fn error_table(lua: &Lua, text: &[u8]) -> Result<Table> {
    let table = single(lua, "err", text)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(table)
}

fn single(lua: &Lua, field: &str, text: &[u8]) -> Result<Table> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set(field, lua.create_string(text)?)?;
    Ok(table)
}

/// The value that the reply in `out` stands for, and whether it is an error.
pub(crate) fn read_reply(lua: &Lua, out: &Output) -> Result<(bool, Value)> {
    let is_error = out.bytes.first() == Some(&b'-');
    if out.shared.is_empty() {
        let value = Replies { lua, rest: &out.bytes }.value()?;
        return Ok((!is_error, value));
    }
    let bytes = out.flattened();
    Ok((!is_error, Replies { lua, rest: &bytes }.value()?))
}

/// Reads replies that we wrote ourselves, so they are whole.
struct Replies<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl<'a> Replies<'a> {
    fn line(&mut self) -> &'a [u8] {
        let end = self.rest.windows(2).position(|w| w == b"\r\n").unwrap_or(self.rest.len());
        let line = &self.rest[..end];
        self.rest = &self.rest[(end + 2).min(self.rest.len())..];
        line
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let bytes = &self.rest[..len.min(self.rest.len())];
        self.rest = &self.rest[(len + 2).min(self.rest.len())..];
        bytes
    }

    fn value(&mut self) -> Result<Value> {
        let line = self.line();
        let (kind, text) = line.split_first().unwrap_or((&b'_', b""));
        let len = || hypercache_stdx::number::parse_i64(text).unwrap_or(-1);
        Ok(match kind {
            b'+' => Value::Table(single(self.lua, "ok", text)?),
            b'-' => Value::Table(error_table(self.lua, text)?),
            b':' => Value::Number(len() as f64),
            b'$' | b'*' if len() < 0 => Value::Boolean(false),
            b'$' => Value::String(self.lua.create_string(self.bytes(len() as usize))?),
            b'*' | b'>' => Value::Table(self.array(len())?),
            b'%' => self.wrapped("map", |this| this.map(len()))?,
            b'~' => self.wrapped("set", |this| this.set(len()))?,
            b',' => self.wrapped("double", |_| Ok(double(text)))?,
            b'(' => {
                self.wrapped("big_number", |this| Ok(Value::String(this.lua.create_string(text)?)))?
            }
            b'=' => self.wrapped("verbatim_string", |this| this.verbatim(len()))?,
            b'#' => Value::Boolean(text == b"t"),
            // In RESP3 no value is nil; RESP2 has a form of false for it.
            _ => Value::Nil,
        })
    }

    fn wrapped(
        &mut self,
        field: &str,
        f: impl FnOnce(&mut Self) -> Result<Value>,
    ) -> Result<Value> {
        let table = self.lua.create_table_with_capacity(0, 1)?;
        table.raw_set(field, f(self)?)?;
        Ok(Value::Table(table))
    }

    fn array(&mut self, len: i64) -> Result<Table> {
        let table = self.lua.create_table_with_capacity(len.clamp(0, 1 << 20) as usize, 0)?;
        for i in 1..=len {
            table.raw_set(i, self.value()?)?;
        }
        Ok(table)
    }

    fn map(&mut self, len: i64) -> Result<Value> {
        let table = self.lua.create_table()?;
        for _ in 0..len {
            let (key, value) = (self.value()?, self.value()?);
            if !key.is_nil() {
                table.raw_set(key, value)?;
            }
        }
        Ok(Value::Table(table))
    }

    fn set(&mut self, len: i64) -> Result<Value> {
        let table = self.lua.create_table()?;
        for _ in 0..len {
            let member = self.value()?;
            if !member.is_nil() {
                table.raw_set(member, true)?;
            }
        }
        Ok(Value::Table(table))
    }

    fn verbatim(&mut self, len: i64) -> Result<Value> {
        let bytes = self.bytes(len.max(0) as usize);
        let (format, text) = bytes.split_at(bytes.len().min(3));
        let table = single(self.lua, "format", format)?;
        let text = text.strip_prefix(b":").unwrap_or(text);
        table.raw_set("string", self.lua.create_string(text)?)?;
        Ok(Value::Table(table))
    }
}

fn double(text: &[u8]) -> Value {
    let number = match text {
        b"nan" => f64::NAN,
        text => hypercache_stdx::number::parse_f64(text).unwrap_or(0.0),
    };
    Value::Number(number)
}

/// A field of a table that is text, and no other's.
fn text_field(table: &Table, name: &str) -> Result<Option<Vec<u8>>> {
    let value: Value = table.raw_get(name)?;
    let Value::String(text) = value else { return Ok(None) };
    Ok(Some(text.as_bytes().to_vec()))
}

/// Writes what a script returned. `version` is the one that the script chose for itself.
pub(crate) fn write_reply(reply: &mut Reply<'_>, value: &Value, version: Version) -> Result<()> {
    let start = reply.output().mark();
    if !(Writer { reply, version }.value(value, 0)?) {
        reply.output().truncate(start);
        reply.error(b"ERR reached lua stack limit");
    }
    Ok(())
}

struct Writer<'a, 'r> {
    reply: &'a mut Reply<'r>,
    version: Version,
}

impl Writer<'_, '_> {
    /// Says whether the value could be written: not if it is nested too deeply or is too large.
    fn value(&mut self, value: &Value, depth: usize) -> Result<bool> {
        match value {
            Value::String(text) => self.reply.bulk(&text.as_bytes()),
            Value::Integer(n) => self.reply.int(*n),
            Value::Number(n) => self.reply.int(truncated(*n)),
            Value::Boolean(b) if self.version == Version::V3 => self.reply.bool(*b),
            Value::Boolean(true) => self.reply.int(1),
            Value::Table(_)
                if depth > DEPTH_MAX || self.reply.output().bytes.len() > REPLY_BYTES_MAX =>
            {
                return Ok(false);
            }
            Value::Table(table) => return self.table(table, depth + 1),
            _ => self.reply.null(),
        }
        Ok(true)
    }

    fn table(&mut self, table: &Table, depth: usize) -> Result<bool> {
        if let Some(text) = text_field(table, "err")? {
            self.reply.error(&text);
            return Ok(true);
        }
        if let Some(text) = text_field(table, "ok")? {
            self.reply.status(&text);
            return Ok(true);
        }
        if let Some(number) = numbers::of(&table.raw_get("double")?) {
            let mut text = Vec::new();
            hypercache_stdx::number::write_f64_resp3(number, &mut text);
            self.reply.double_text(&text);
            return Ok(true);
        }
        if let Value::Table(map) = table.raw_get("map")? {
            return self.map(&map, depth);
        }
        if let Value::Table(set) = table.raw_get("set")? {
            return self.set(&set, depth);
        }
        if let Some(digits) = text_field(table, "big_number")? {
            self.reply.big_number(&digits);
            return Ok(true);
        }
        if let Value::Table(verbatim) = table.raw_get("verbatim_string")?
            && let Some(text) = text_field(&verbatim, "string")?
            && let Some(format) = text_field(&verbatim, "format")?
        {
            let format = String::from_utf8_lossy(&format).into_owned();
            let format = if format.len() == 3 { format.as_str() } else { "txt" };
            self.reply.verbatim(format, &text);
            return Ok(true);
        }
        self.array(table, depth)
    }

    fn map(&mut self, map: &Table, depth: usize) -> Result<bool> {
        let pairs = map.pairs::<Value, Value>().collect::<Result<Vec<_>>>()?;
        self.reply.map(pairs.len());
        for (key, value) in &pairs {
            if !self.value(key, depth)? || !self.value(value, depth)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn set(&mut self, set: &Table, depth: usize) -> Result<bool> {
        let pairs = set.pairs::<Value, Value>().collect::<Result<Vec<_>>>()?;
        self.reply.set(pairs.len());
        for (member, _) in &pairs {
            if !self.value(member, depth)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The elements from one on to the first that is nil.
    fn array(&mut self, table: &Table, depth: usize) -> Result<bool> {
        let len =
            (1..).map(|i| table.raw_get::<Value>(i)).take_while(|v| !matches!(v, Ok(Value::Nil)));
        let len = len.count();
        self.reply.array(len);
        for i in 1..=len {
            if !self.value(&table.raw_get::<Value>(i)?, depth)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

//! `cmsgpack`: MessagePack as the library of that name packs and unpacks it.

use crate::numbers;
use mlua::{Lua, MultiValue, Result, Table, Value};

/// Tables nested deeper than this are packed as nil.
const NESTING_MAX: usize = 16;
/// Values nested deeper than this are not unpacked: each is a frame of ours.
const UNPACK_NESTING_MAX: usize = 256;

fn text(lua: &Lua, text: &str) -> Result<(bool, MultiValue)> {
    Ok((false, [Value::String(lua.create_string(text)?)].into_iter().collect()))
}

/// A table of the functions.
pub(crate) fn library(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.raw_set(
        "pack",
        lua.create_function(|lua, args: MultiValue| {
            if args.is_empty() {
                return text(lua, "bad argument #0 to 'pack' (MessagePack pack needs input.)");
            }
            let mut out = Vec::new();
            args.iter().try_for_each(|value| pack(value, 0, &mut out))?;
            Ok((true, [Value::String(lua.create_string(out)?)].into_iter().collect()))
        })?,
    )?;
    table.raw_set(
        "unpack",
        lua.create_function(|lua, args: MultiValue| {
            unpack_some(lua, &args, "unpack", |_| Some((0, 0)))
        })?,
    )?;
    table.raw_set(
        "unpack_one",
        lua.create_function(|lua, args: MultiValue| {
            unpack_some(lua, &args, "unpack_one", |args| Some((1, whole(args, 1, Some(0))?)))
        })?,
    )?;
    table.raw_set(
        "unpack_limit",
        lua.create_function(|lua, args: MultiValue| {
            let choose =
                |args: &MultiValue| Some((whole(args, 1, None)?, whole(args, 2, Some(0))?));
            unpack_some(lua, &args, "unpack_limit", choose)
        })?,
    )?;
    Ok(table)
}

/// A whole number that is argument `i`, or what it is by default.
fn whole(args: &MultiValue, i: usize, default: Option<i64>) -> Option<i64> {
    match args.get(i) {
        None | Some(Value::Nil) => default,
        Some(value) => numbers::of(value).map(|n| n as i64),
    }
}

/// Unpacks at most a number of values (0: all) from an offset, which `choose` gives. Unless it is
/// all, the first result is where to go on, or -1 at the end.
fn unpack_some(
    lua: &Lua,
    args: &MultiValue,
    name: &str,
    choose: impl Fn(&MultiValue) -> Option<(i64, i64)>,
) -> Result<(bool, MultiValue)> {
    let Some(Value::String(packed)) = args.front() else {
        return text(lua, &format!("bad argument #1 to '{name}' (string expected)"));
    };
    let Some((limit, offset)) = choose(args) else {
        return text(lua, &format!("bad argument #2 to '{name}' (number expected)"));
    };
    let packed = packed.as_bytes();
    if limit < 0 || offset < 0 {
        let message = format!(
            "Invalid request to unpack with offset of {offset} and limit of {}.",
            packed.len()
        );
        return text(lua, &message);
    }
    if offset as usize > packed.len() {
        let message = format!("Start offset {offset} greater than input length {}.", packed.len());
        return text(lua, &message);
    }
    let mut unpacker = Unpacker { lua, rest: &packed[offset as usize..] };
    let mut values = Vec::new();
    while !unpacker.rest.is_empty() && (limit == 0 || values.len() < limit as usize) {
        if values.len() == VALUES_MAX {
            return text(lua, "Too many values in input.");
        }
        match unpacker.value(0) {
            Ok(value) => values.push(value),
            Err(Wrong::Data(message)) => return text(lua, message),
            Err(Wrong::Lua(error)) => return Err(error),
        }
    }
    let rest = unpacker.rest.len();
    if limit != 0 {
        let next = if rest == 0 { -1 } else { (packed.len() - rest) as i64 };
        values.insert(0, Value::Number(next as f64));
    }
    Ok((true, values.into_iter().collect()))
}

/// As many as one call may give back.
const VALUES_MAX: usize = 7900;

fn pack(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<()> {
    match value {
        Value::Boolean(b) => out.push(if *b { 0xc3 } else { 0xc2 }),
        Value::Integer(n) => pack_int(*n, out),
        Value::Number(n) => pack_number(*n, out),
        Value::String(text) => {
            let text = text.as_bytes();
            pack_head(text.len(), [(0xa0, 32)], &[(0xd9, 1), (0xda, 2), (0xdb, 4)], out);
            out.extend_from_slice(&text);
        }
        Value::Table(table) if depth < NESTING_MAX => pack_table(table, depth + 1, out)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn pack_number(n: f64, out: &mut Vec<u8>) {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if n.trunc() == n && (-LIMIT..LIMIT).contains(&n) {
        pack_int(n as i64, out);
    } else if f64::from(n as f32) == n {
        out.push(0xca);
        out.extend_from_slice(&(n as f32).to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend_from_slice(&n.to_be_bytes());
    }
}

fn pack_int(n: i64, out: &mut Vec<u8>) {
    match n {
        -32..128 => out.push(n as u8),
        128..256 => out.extend_from_slice(&[0xcc, n as u8]),
        256..65_536 => put(0xcd, &(n as u16).to_be_bytes(), out),
        65_536..4_294_967_296 => put(0xce, &(n as u32).to_be_bytes(), out),
        4_294_967_296.. => put(0xcf, &n.to_be_bytes(), out),
        -128..-32 => out.extend_from_slice(&[0xd0, n as u8]),
        -32_768..-128 => put(0xd1, &(n as i16).to_be_bytes(), out),
        -2_147_483_648..-32_768 => put(0xd2, &(n as i32).to_be_bytes(), out),
        _ => put(0xd3, &n.to_be_bytes(), out),
    }
}

fn put(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(bytes);
}

/// A length: in the byte of the kind when it is small, else in 1, 2 or 4 bytes after it.
fn pack_head(
    len: usize,
    [(fixed, below)]: [(u8, usize); 1],
    kinds: &[(u8, usize)],
    out: &mut Vec<u8>,
) {
    if len < below {
        return out.push(fixed | len as u8);
    }
    let fits = |width: usize| width == 4 || len < 1 << (8 * width);
    if let Some((kind, width)) = kinds.iter().find(|(_, width)| fits(*width)) {
        put(*kind, &(len as u32).to_be_bytes()[4 - width..], out);
    }
}

fn pack_table(table: &Table, depth: usize, out: &mut Vec<u8>) -> Result<()> {
    let len = table.raw_len();
    let mut count = 0;
    let mut is_array = true;
    for pair in table.pairs::<Value, Value>() {
        let key = numbers::of(&pair?.0);
        is_array &= key.is_some_and(|key| key >= 1.0 && key <= len as f64 && key.trunc() == key);
        count += 1;
    }
    if is_array && count == len {
        pack_head(len, [(0x90, 16)], &[(0xdc, 2), (0xdd, 4)], out);
        return (1..=len).try_for_each(|i| pack(&table.raw_get::<Value>(i)?, depth, out));
    }
    pack_head(count, [(0x80, 16)], &[(0xde, 2), (0xdf, 4)], out);
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        pack(&key, depth, out)?;
        pack(&value, depth, out)?;
    }
    Ok(())
}

struct Unpacker<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

enum Wrong {
    Data(&'static str),
    Lua(mlua::Error),
}

impl From<mlua::Error> for Wrong {
    fn from(error: mlua::Error) -> Self {
        Wrong::Lua(error)
    }
}

impl<'a> Unpacker<'a> {
    fn take(&mut self, len: usize) -> std::result::Result<&'a [u8], Wrong> {
        let missing = Wrong::Data("Missing bytes in input.");
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(missing)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned number of so many bytes.
    fn unsigned(&mut self, width: usize) -> std::result::Result<u64, Wrong> {
        Ok(self.take(width)?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    fn value(&mut self, depth: usize) -> std::result::Result<Value, Wrong> {
        let kind = self.take(1)?[0];
        let number = |n: f64| Ok(Value::Number(n));
        match kind {
            0x00..0x80 => number(f64::from(kind)),
            0x80..0x90 => self.map(usize::from(kind & 15), depth),
            0x90..0xa0 => self.array(usize::from(kind & 15), depth),
            0xa0..0xc0 => self.string(usize::from(kind & 31)),
            0xc0 => Ok(Value::Nil),
            0xc2 | 0xc3 => Ok(Value::Boolean(kind == 0xc3)),
            0xc4..0xc7 => self.sized_string(1 << (kind - 0xc4)),
            0xca => number(f64::from(f32::from_bits(self.unsigned(4)? as u32))),
            0xcb => number(f64::from_bits(self.unsigned(8)?)),
            0xcc..0xd0 => number(self.unsigned(1 << (kind - 0xcc))? as f64),
            0xd0..0xd4 => {
                let width = 1 << (kind - 0xd0);
                let unused = 64 - 8 * width as u32;
                number(((self.unsigned(width)? << unused) as i64 >> unused) as f64)
            }
            0xd9..0xdc => self.sized_string(1 << (kind - 0xd9)),
            0xdc | 0xdd => {
                let len = self.unsigned(if kind == 0xdc { 2 } else { 4 })?;
                self.array(len as usize, depth)
            }
            0xde | 0xdf => {
                let len = self.unsigned(if kind == 0xde { 2 } else { 4 })?;
                self.map(len as usize, depth)
            }
            0xe0..=0xff => number(f64::from(kind as i8)),
            _ => Err(Wrong::Data("Bad data format in input.")),
        }
    }

    fn sized_string(&mut self, width: usize) -> std::result::Result<Value, Wrong> {
        let len = self.unsigned(width)? as usize;
        self.string(len)
    }

    fn string(&mut self, len: usize) -> std::result::Result<Value, Wrong> {
        let bytes = self.take(len)?;
        Ok(Value::String(self.lua.create_string(bytes)?))
    }

    fn table(&self, depth: usize) -> std::result::Result<Table, Wrong> {
        if depth == UNPACK_NESTING_MAX {
            return Err(Wrong::Data("Too many nested values in input."));
        }
        Ok(self.lua.create_table()?)
    }

    fn array(&mut self, len: usize, depth: usize) -> std::result::Result<Value, Wrong> {
        let table = self.table(depth)?;
        for i in 1..=len {
            table.raw_set(i, self.value(depth + 1)?)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, len: usize, depth: usize) -> std::result::Result<Value, Wrong> {
        let table = self.table(depth)?;
        for _ in 0..len {
            let (key, value) = (self.value(depth + 1)?, self.value(depth + 1)?);
            let is_no_key = key.is_nil() || numbers::of(&key).is_some_and(f64::is_nan);
            if is_no_key {
                return Err(Wrong::Data("Bad data format in input."));
            }
            table.raw_set(key, value)?;
        }
        Ok(Value::Table(table))
    }
}

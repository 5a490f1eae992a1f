//! `struct`: values to and from bytes by a format, as the library of that name does it.
//!
//! A format is letters: `b B h H l L T i I` whole numbers (`i` and `I` with a width), `f d` floats,
//! `s` text that a zero ends, `c` text of a length (0: the number before, or all), `x` a byte to
//! skip; `<` little and `>` big end first, `!` alignment.

use crate::numbers;
use mlua::{Lua, MultiValue, Result, Table, Value};

/// Widest whole number, and largest alignment.
const WIDTH_MAX: usize = 32;
/// Most bytes that a width or length in a format may stand for.
const COUNT_MAX: usize = i32::MAX as usize;

type Packed<T> = std::result::Result<T, String>;

fn given(lua: &Lua, result: Packed<Vec<Value>>) -> Result<(bool, MultiValue)> {
    match result {
        Ok(values) => Ok((true, values.into_iter().collect())),
        Err(text) => Ok((false, [Value::String(lua.create_string(text)?)].into_iter().collect())),
    }
}

/// A table of the functions.
pub(crate) fn library(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    table.raw_set(
        "pack",
        lua.create_function(|lua, args: MultiValue| match pack(&args) {
            Ok(bytes) => given(lua, Ok(vec![Value::String(lua.create_string(bytes)?)])),
            Err(text) => given(lua, Err(text)),
        })?,
    )?;
    table.raw_set(
        "unpack",
        lua.create_function(|lua, args: MultiValue| {
            let unpacked = unpack(lua, &args);
            given(lua, unpacked)
        })?,
    )?;
    table.raw_set(
        "size",
        lua.create_function(|lua, args: MultiValue| {
            let size = size(&args).map(|size| vec![Value::Number(size as f64)]);
            given(lua, size)
        })?,
    )?;
    Ok(table)
}

/// One letter of a format with its width.
struct Item {
    letter: u8,
    width: usize,
}

/// Reads a format; keeps byte order and alignment.
struct Format<'a> {
    rest: &'a [u8],
    is_little: bool,
    align: usize,
}

impl Format<'_> {
    fn number(&mut self, default: usize) -> Packed<usize> {
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(digits);
        self.rest = rest;
        if digits.is_empty() {
            return Ok(default);
        }
        let add = |n: usize, d: &u8| n.checked_mul(10)?.checked_add(usize::from(d - b'0'));
        let number = digits.iter().try_fold(0, add).filter(|n| *n <= COUNT_MAX);
        number.ok_or_else(|| "integral size overflow".to_owned())
    }

    fn next(&mut self) -> Packed<Option<Item>> {
        loop {
            let Some((&letter, rest)) = self.rest.split_first() else { return Ok(None) };
            self.rest = rest;
            let width = match letter {
                b' ' => continue,
                b'<' | b'>' => {
                    self.is_little = letter == b'<';
                    continue;
                }
                b'!' => {
                    let align = self.number(8)?;
                    if !align.is_power_of_two() {
                        return Err("alignment is not a power of 2".to_owned());
                    }
                    self.align = align;
                    continue;
                }
                b'b' | b'B' | b'x' => 1,
                b'h' | b'H' => 2,
                b'l' | b'L' | b'T' | b'd' => 8,
                b'f' => 4,
                b's' => 0,
                b'c' => self.number(1)?,
                b'i' | b'I' => {
                    let width = self.number(4)?;
                    if width == 0 || width > WIDTH_MAX {
                        let text =
                            format!("integral size {width} is larger than limit of {WIDTH_MAX}");
                        return Err(text);
                    }
                    width
                }
                other => return Err(format!("invalid format option '{}'", char::from(other))),
            };
            return Ok(Some(Item { letter, width }));
        }
    }

    /// Bytes to skip before an item at `position`.
    fn padding(&self, item: &Item, position: usize) -> usize {
        if item.width == 0 || matches!(item.letter, b'c' | b'x' | b's') {
            return 0;
        }
        let align = item.width.min(self.align);
        // As the library does it, also for widths that are no power of two.
        (align - (position & (align - 1))) & (align - 1)
    }
}

fn format_of(args: &MultiValue, name: &str) -> Packed<Vec<u8>> {
    match args.front() {
        Some(Value::String(text)) => Ok(text.as_bytes().to_vec()),
        _ => Err(format!("bad argument #1 to '{name}' (string expected)")),
    }
}

fn in_order(mut bytes: Vec<u8>, is_little: bool) -> Vec<u8> {
    if !is_little {
        bytes.reverse();
    }
    bytes
}

fn pack(args: &MultiValue) -> Packed<Vec<u8>> {
    let format = format_of(args, "pack")?;
    let mut format = Format { rest: &format, is_little: true, align: 1 };
    let (mut out, mut next) = (Vec::new(), 1);
    while let Some(item) = format.next()? {
        let padding = format.padding(&item, out.len());
        out.resize(out.len() + padding, 0);
        if item.letter == b'x' {
            out.push(0);
            continue;
        }
        let value = args.get(next).unwrap_or(&Value::Nil);
        next += 1;
        let wrong = |what: &str| {
            format!("bad argument #{next} to 'pack' ({what} expected, got {})", value.type_name())
        };
        match item.letter {
            b's' | b'c' => pack_text(&item, value, &mut out).ok_or_else(|| wrong("string"))?,
            letter => {
                let n =
                    numbers::of(value).or_else(|| coerced(value)).ok_or_else(|| wrong("number"))?;
                let bytes = match letter {
                    b'f' => (n as f32).to_le_bytes().to_vec(),
                    b'd' => n.to_le_bytes().to_vec(),
                    _ => whole_bytes(n, item.width),
                };
                out.extend_from_slice(&in_order(bytes, format.is_little));
            }
        }
    }
    Ok(out)
}

/// A string that reads as a number.
fn coerced(value: &Value) -> Option<f64> {
    let Value::String(text) = value else { return None };
    hypercache_stdx::number::parse_f64(&text.as_bytes())
}

fn whole_bytes(n: f64, width: usize) -> Vec<u8> {
    let n = if n < 0.0 { n as i64 } else { n as u64 as i64 };
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(width.max(8), if n < 0 { 0xff } else { 0 });
    bytes.truncate(width);
    bytes
}

/// Appends text: of `c` its first bytes, all for `c0`; of `s` all and a zero.
fn pack_text(item: &Item, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    let text = match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Integer(_) | Value::Number(_) => numbers::text(numbers::of(value)?, numbers::SHOWN),
        _ => return None,
    };
    let len = if item.letter == b's' || item.width == 0 { text.len() } else { item.width };
    out.extend_from_slice(text.get(..len)?);
    if item.letter == b's' {
        out.push(0);
    }
    Some(())
}

fn size(args: &MultiValue) -> Packed<usize> {
    let format = format_of(args, "size")?;
    let mut format = Format { rest: &format, is_little: true, align: 1 };
    let mut size = 0;
    while let Some(item) = format.next()? {
        if item.letter == b's' {
            return Err("variable-size format in 'size'".to_owned());
        }
        if item.letter == b'c' && item.width == 0 {
            return Err("variable-length format in 'size'".to_owned());
        }
        size += format.padding(&item, size) + item.width;
    }
    Ok(size)
}

fn unpack(lua: &Lua, args: &MultiValue) -> Packed<Vec<Value>> {
    let format = format_of(args, "unpack")?;
    let mut format = Format { rest: &format, is_little: true, align: 1 };
    let Some(Value::String(data)) = args.get(1) else {
        return Err("bad argument #2 to 'unpack' (string expected)".to_owned());
    };
    let data = data.as_bytes();
    let start = match args.get(2) {
        None | Some(Value::Nil) => 1.0,
        Some(value) => numbers::of(value).ok_or("bad argument #3 to 'unpack' (number expected)")?,
    };
    if start < 1.0 {
        return Err("offset must be 1 or greater".to_owned());
    }
    let short = || "bad argument #2 to 'unpack' (data string too short)".to_owned();
    let mut at = start as usize - 1;
    let mut values: Vec<Value> = Vec::new();
    let string = |bytes: &[u8]| {
        let text = lua.create_string(bytes).map_err(|error| error.to_string())?;
        Ok::<_, String>(Value::String(text))
    };
    while let Some(item) = format.next()? {
        at = at.checked_add(format.padding(&item, at)).ok_or_else(short)?;
        let rest = data.get(at..).ok_or_else(short)?;
        let mut width = item.width;
        let value = match item.letter {
            b's' => {
                let len =
                    rest.iter().position(|byte| *byte == 0).ok_or("unfinished string in data")?;
                width = len + 1;
                Some(string(&rest[..len])?)
            }
            b'c' => {
                if width == 0 {
                    let len = values.pop().and_then(|value| numbers::of(&value));
                    width = len.filter(|n| *n >= 0.0).ok_or("format 'c0' needs a previous size")?
                        as usize;
                }
                Some(string(rest.get(..width).ok_or_else(short)?)?)
            }
            b'x' => None,
            letter => {
                let bytes = rest.get(..width).ok_or_else(short)?;
                Some(Value::Number(number_of(letter, in_order(bytes.to_vec(), format.is_little))))
            }
        };
        if rest.len() < width {
            return Err(short());
        }
        at += width;
        values.extend(value);
    }
    values.push(Value::Number((at + 1) as f64));
    Ok(values)
}

/// The number that bytes, the least first, stand for.
fn number_of(letter: u8, bytes: Vec<u8>) -> f64 {
    if let (b'f', Some(bytes)) = (letter, bytes.first_chunk()) {
        return f64::from(f32::from_le_bytes(*bytes));
    }
    if let (b'd', Some(bytes)) = (letter, bytes.first_chunk()) {
        return f64::from_le_bytes(*bytes);
    }
    let is_signed = letter.is_ascii_lowercase();
    let is_negative = is_signed && bytes.last().is_some_and(|top| top & 0x80 != 0);
    let mut whole = [if is_negative { 0xff } else { 0 }; 8];
    let len = bytes.len().min(8);
    whole[..len].copy_from_slice(&bytes[..len]);
    if is_signed { i64::from_le_bytes(whole) as f64 } else { u64::from_le_bytes(whole) as f64 }
}

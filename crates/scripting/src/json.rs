//! `cjson`: JSON as the library of that name reads and writes it, with its settings and messages.

use crate::numbers;
use mlua::{Lua, MultiValue, Result, Table, Value};
use std::cell::RefCell;
use std::rc::Rc;

/// Most levels that may be asked for: each is a frame of ours.
const DEPTH_MAX: f64 = 1000.0;

#[derive(Debug)]
struct Settings {
    sparse_converts: bool,
    sparse_ratio: f64,
    sparse_safe: f64,
    encode_depth: f64,
    decode_depth: f64,
    precision: f64,
    keeps_buffer: bool,
    encodes_invalid: bool,
    decodes_invalid: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sparse_converts: false,
            sparse_ratio: 2.0,
            sparse_safe: 10.0,
            encode_depth: DEPTH_MAX,
            decode_depth: DEPTH_MAX,
            precision: numbers::SHOWN as f64,
            keeps_buffer: true,
            encodes_invalid: false,
            decodes_invalid: true,
        }
    }
}

/// True and what a function gives, or false and why it gives nothing.
type Given = Result<(bool, MultiValue)>;

fn given(lua: &Lua, result: std::result::Result<Vec<Value>, Failure>) -> Given {
    match result {
        Ok(values) => Ok((true, values.into_iter().collect())),
        Err(Failure::Text(text)) => {
            Ok((false, [Value::String(lua.create_string(text)?)].into_iter().collect()))
        }
        Err(Failure::Lua(error)) => Err(error),
    }
}

/// Why there is no result: a message for the script, or an error of the interpreter.
enum Failure {
    Text(String),
    Lua(mlua::Error),
}

impl From<mlua::Error> for Failure {
    fn from(error: mlua::Error) -> Self {
        Failure::Lua(error)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Failure::Text(text)
    }
}

/// A table of the functions, with settings of their own.
pub(crate) fn library(lua: &Lua) -> Result<Table> {
    let settings = Rc::new(RefCell::new(Settings::default()));
    let table = lua.create_table()?;
    let s = Rc::clone(&settings);
    table.raw_set(
        "encode",
        lua.create_function(move |lua, args: MultiValue| {
            if args.len() != 1 {
                return given(
                    lua,
                    Err("bad argument #1 to 'encode' (expected 1 argument)".to_owned().into()),
                );
            }
            let mut encoder = Encoder { settings: &s.borrow(), out: Vec::new() };
            let encoded =
                encoder.value(&args[0], 0).and_then(|()| Ok(lua.create_string(&encoder.out)?));
            given(lua, encoded.map(|text| vec![Value::String(text)]))
        })?,
    )?;
    let s = Rc::clone(&settings);
    table.raw_set(
        "decode",
        lua.create_function(move |lua, args: MultiValue| {
            if args.len() != 1 {
                return given(
                    lua,
                    Err("bad argument #1 to 'decode' (expected 1 argument)".to_owned().into()),
                );
            }
            let text = match &args[0] {
                Value::String(text) => text.as_bytes().to_vec(),
                Value::Integer(n) => n.to_string().into_bytes(),
                Value::Number(n) => numbers::text(*n, numbers::SHOWN),
                other => {
                    let got = other.type_name();
                    let text = format!("bad argument #1 to 'decode' (string expected, got {got})");
                    return given(lua, Err(text.into()));
                }
            };
            let decoded = Decoder { lua, text: &text, at: 0, settings: &s.borrow() }.all();
            given(lua, decoded.map(|value| vec![value]))
        })?,
    )?;
    add_settings(lua, &table, &settings)?;
    Ok(table)
}

/// Sets what is given of several settings, and gives all of them.
fn add_settings(lua: &Lua, table: &Table, settings: &Rc<RefCell<Settings>>) -> Result<()> {
    let add = |name: &'static str, get: Get, ranges: &'static [(f64, f64)]| {
        let settings = Rc::clone(settings);
        let function = lua.create_function(move |lua, args: MultiValue| {
            let set = set_all(name, &mut get(&mut settings.borrow_mut()), &args, ranges);
            given(lua, set.map_err(Failure::Text))
        })?;
        table.raw_set(name, function)
    };
    add(
        "encode_sparse_array",
        |s| {
            vec![
                Setting::Bool(&mut s.sparse_converts),
                Setting::Number(&mut s.sparse_ratio),
                Setting::Number(&mut s.sparse_safe),
            ]
        },
        &[(0.0, 0.0), (0.0, 2_147_483_647.0), (0.0, 2_147_483_647.0)],
    )?;
    add("encode_max_depth", |s| vec![Setting::Number(&mut s.encode_depth)], &[(1.0, DEPTH_MAX)])?;
    add("decode_max_depth", |s| vec![Setting::Number(&mut s.decode_depth)], &[(1.0, DEPTH_MAX)])?;
    add("encode_number_precision", |s| vec![Setting::Number(&mut s.precision)], &[(1.0, 17.0)])?;
    add("encode_keep_buffer", |s| vec![Setting::Bool(&mut s.keeps_buffer)], &[(0.0, 0.0)])?;
    add("encode_invalid_numbers", |s| vec![Setting::Bool(&mut s.encodes_invalid)], &[(0.0, 0.0)])?;
    add("decode_invalid_numbers", |s| vec![Setting::Bool(&mut s.decodes_invalid)], &[(0.0, 0.0)])
}

type Get = fn(&mut Settings) -> Vec<Setting<'_>>;

enum Setting<'a> {
    Bool(&'a mut bool),
    Number(&'a mut f64),
}

fn set_all(
    name: &str,
    settings: &mut [Setting<'_>],
    args: &MultiValue,
    ranges: &[(f64, f64)],
) -> std::result::Result<Vec<Value>, String> {
    for (i, (setting, range)) in settings.iter_mut().zip(ranges).enumerate() {
        let wrong = |what: &str| format!("bad argument #{} to '{name}' ({what})", i + 1);
        match (setting, args.get(i)) {
            (_, None | Some(Value::Nil)) => {}
            (Setting::Bool(to), Some(Value::Boolean(from))) => **to = *from,
            (Setting::Number(to), Some(from)) => {
                let from = numbers::of(from).ok_or_else(|| wrong("number expected"))?;
                if from < range.0 || from > range.1 {
                    return Err(wrong(&format!(
                        "expected integer between {} and {}",
                        range.0, range.1
                    )));
                }
                **to = from.trunc();
            }
            (Setting::Bool(_), Some(_)) => return Err(wrong("boolean expected")),
        }
    }
    let value = |setting: &Setting<'_>| match setting {
        Setting::Bool(value) => Value::Boolean(**value),
        Setting::Number(value) => Value::Number(**value),
    };
    Ok(settings.iter().map(value).collect())
}

struct Encoder<'a> {
    settings: &'a Settings,
    out: Vec<u8>,
}

/// Either of the two forms that a table has.
enum Form {
    Array(usize),
    Object,
}

impl Encoder<'_> {
    fn value(&mut self, value: &Value, depth: u32) -> std::result::Result<(), Failure> {
        match value {
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::LightUserData(pointer) if pointer.0.is_null() => {
                self.out.extend_from_slice(b"null")
            }
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Integer(n) => self.number(*n as f64)?,
            Value::Number(n) => self.number(*n)?,
            Value::String(text) => self.string(&text.as_bytes()),
            Value::Table(table) => self.table(table, depth + 1)?,
            other => {
                let name = other.type_name();
                return Err(format!("Cannot serialise {name}: type not supported").into());
            }
        }
        Ok(())
    }

    fn number(&mut self, n: f64) -> std::result::Result<(), Failure> {
        if !n.is_finite() && !self.settings.encodes_invalid {
            return Err("Cannot serialise number: must not be NaN or Inf".to_owned().into());
        }
        numbers::write(n, self.settings.precision as usize, &mut self.out);
        Ok(())
    }

    fn string(&mut self, text: &[u8]) {
        self.out.push(b'"');
        for &byte in text {
            match byte {
                b'"' | b'\\' | b'/' => self.out.extend_from_slice(&[b'\\', byte]),
                0x08 => self.out.extend_from_slice(b"\\b"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                0x0c => self.out.extend_from_slice(b"\\f"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                0..32 | 127 => self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                _ => self.out.push(byte),
            }
        }
        self.out.push(b'"');
    }

    fn table(&mut self, table: &Table, depth: u32) -> std::result::Result<(), Failure> {
        if f64::from(depth) > self.settings.encode_depth {
            return Err(format!("Cannot serialise, excessive depth ({depth})").into());
        }
        match self.form(table)? {
            Form::Array(len) => {
                for i in 1..=len {
                    self.out.push(if i == 1 { b'[' } else { b',' });
                    self.value(&table.raw_get::<Value>(i)?, depth)?;
                }
                self.out.push(b']');
            }
            Form::Object => self.object(table, depth)?,
        }
        Ok(())
    }

    /// An array when all keys are whole numbers from one on, without too many gaps.
    fn form(&self, table: &Table) -> std::result::Result<Form, Failure> {
        let (mut most, mut count) = (0.0, 0.0);
        for pair in table.pairs::<Value, Value>() {
            match numbers::of(&pair?.0) {
                Some(key) if key >= 1.0 && key.trunc() == key => {
                    most = f64::max(most, key);
                    count += 1.0;
                }
                _ => return Ok(Form::Object),
            }
        }
        let Settings { sparse_ratio, sparse_safe, sparse_converts, .. } = *self.settings;
        if sparse_ratio > 0.0 && most > count * sparse_ratio && most > sparse_safe {
            if !sparse_converts {
                return Err("Cannot serialise table: excessively sparse array".to_owned().into());
            }
            return Ok(Form::Object);
        }
        Ok(if most > 0.0 { Form::Array(most as usize) } else { Form::Object })
    }

    fn object(&mut self, table: &Table, depth: u32) -> std::result::Result<(), Failure> {
        self.out.push(b'{');
        for (i, pair) in table.pairs::<Value, Value>().enumerate() {
            let (key, value) = pair?;
            if i > 0 {
                self.out.push(b',');
            }
            match &key {
                Value::String(text) => self.string(&text.as_bytes()),
                Value::Integer(_) | Value::Number(_) => {
                    self.out.push(b'"');
                    self.number(numbers::of(&key).unwrap_or_default())?;
                    self.out.push(b'"');
                }
                _ => {
                    let text = "Cannot serialise table: table key must be a number or string";
                    return Err(text.to_owned().into());
                }
            }
            self.out.push(b':');
            self.value(&value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

struct Decoder<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
    settings: &'a Settings,
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Colon,
    Comma,
    End,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Wrong(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::String(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Wrong(what) => what,
        }
    }
}

type Decoded<T> = std::result::Result<T, Failure>;

fn expected(what: &str, (token, at): &(Token, usize)) -> Failure {
    format!("Expected {what} but found {} at character {}", token.name(), at + 1).into()
}

impl Decoder<'_> {
    fn all(mut self) -> Decoded<Value> {
        if self.text.len() >= 2 && (self.text[0] == 0 || self.text[1] == 0) {
            return Err("JSON parser does not support UTF-16 or UTF-32".to_owned().into());
        }
        let first = self.next();
        let value = self.value(first, 0)?;
        match self.next() {
            (Token::End, _) => Ok(value),
            other => Err(expected("the end", &other)),
        }
    }

    fn value(&mut self, token: (Token, usize), depth: u32) -> Decoded<Value> {
        Ok(match token {
            (Token::String(text), _) => Value::String(self.lua.create_string(text)?),
            (Token::Number(n), _) => Value::Number(n),
            (Token::Boolean(b), _) => Value::Boolean(b),
            (Token::Null, _) => Value::NULL,
            (Token::ObjectBegin, _) => Value::Table(self.object(depth + 1)?),
            (Token::ArrayBegin, _) => Value::Table(self.array(depth + 1)?),
            other => return Err(expected("value", &other)),
        })
    }

    fn descend(&self, depth: u32) -> Decoded<()> {
        if f64::from(depth) > self.settings.decode_depth {
            let at = self.at;
            let text = format!("Found too many nested data structures ({depth}) at character {at}");
            return Err(text.into());
        }
        Ok(())
    }

    fn object(&mut self, depth: u32) -> Decoded<Table> {
        self.descend(depth)?;
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if let (Token::ObjectEnd, _) = token {
            return Ok(table);
        }
        loop {
            let key = match token {
                (Token::String(key), _) => key,
                other => return Err(expected("object key string", &other)),
            };
            match self.next() {
                (Token::Colon, _) => {}
                other => return Err(expected("colon", &other)),
            }
            let next = self.next();
            let value = self.value(next, depth)?;
            table.raw_set(self.lua.create_string(key)?, value)?;
            match self.next() {
                (Token::ObjectEnd, _) => return Ok(table),
                (Token::Comma, _) => token = self.next(),
                other => return Err(expected("comma or object end", &other)),
            }
        }
    }

    fn array(&mut self, depth: u32) -> Decoded<Table> {
        self.descend(depth)?;
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if let (Token::ArrayEnd, _) = token {
            return Ok(table);
        }
        for i in 1.. {
            let value = self.value(token, depth)?;
            table.raw_set(i, value)?;
            match self.next() {
                (Token::ArrayEnd, _) => break,
                (Token::Comma, _) => token = self.next(),
                other => return Err(expected("comma or array end", &other)),
            }
        }
        Ok(table)
    }

    /// The next token and where it begins.
    fn next(&mut self) -> (Token, usize) {
        let rest = &self.text[self.at..];
        let spaces = rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += spaces;
        let at = self.at;
        let Some(&first) = self.text.get(at) else { return (Token::End, at) };
        let single = match first {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            b'"' => return self.string(),
            _ => return (self.word(), at),
        };
        self.at += 1;
        (single, at)
    }

    fn word(&mut self) -> Token {
        let rest = &self.text[self.at..];
        for (word, token) in [
            (&b"true"[..], Token::Boolean(true)),
            (b"false", Token::Boolean(false)),
            (b"null", Token::Null),
        ] {
            if rest.starts_with(word) {
                self.at += word.len();
                return token;
            }
        }
        let is_of_number = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        let len = rest.iter().take_while(is_of_number).count();
        let first = rest[0].to_ascii_lowercase();
        if !(first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'i' | b'n')) {
            return Token::Wrong("invalid token");
        }
        // As much as is a number; what follows is another token.
        let longest = (1..=len).rev().find_map(|len| Some((len, self.number(&rest[..len])?)));
        match longest {
            Some((len, n)) => {
                self.at += len;
                Token::Number(n)
            }
            None if first.is_ascii_alphabetic() => Token::Wrong("invalid token"),
            None => Token::Wrong("invalid number"),
        }
    }

    fn number(&self, text: &[u8]) -> Option<f64> {
        let unsigned = text.strip_prefix(b"-").unwrap_or(text);
        let is_plain = match unsigned {
            [b'0'] => true,
            [b'0', next, ..] => matches!(next, b'.' | b'e' | b'E'),
            [first, ..] => first.is_ascii_digit(),
            [] => false,
        };
        if !is_plain && !self.settings.decodes_invalid {
            return None;
        }
        let parsed = std::str::from_utf8(text).ok()?.parse::<f64>().ok();
        parsed.or_else(|| hypercache_stdx::number::parse_f64(text))
    }

    /// A string; what is wrong with one is said to be where it is.
    fn string(&mut self) -> (Token, usize) {
        let start = self.at;
        let mut out = Vec::new();
        let mut i = start + 1;
        loop {
            let Some(&byte) = self.text.get(i) else {
                return (Token::Wrong("unexpected end of string"), i);
            };
            i += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    let at = i - 1;
                    if let Err(wrong) = self.escape(&mut i, &mut out) {
                        return (Token::Wrong(wrong), at);
                    }
                }
                _ => out.push(byte),
            }
        }
        self.at = i;
        (Token::String(out), start)
    }

    fn escape(&self, i: &mut usize, out: &mut Vec<u8>) -> std::result::Result<(), &'static str> {
        const WRONG: &str = "invalid unicode escape code";
        let kind = self.text.get(*i).ok_or("unexpected end of string")?;
        *i += 1;
        out.push(match kind {
            b'"' | b'\\' | b'/' => *kind,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = self.hex4(*i).ok_or(WRONG)?;
                *i += 4;
                if (0xd800..0xdc00).contains(&code) {
                    let is_pair = self.text[*i..].starts_with(b"\\u");
                    let low = if is_pair { self.hex4(*i + 2) } else { None };
                    let low = low.filter(|low| (0xdc00..0xe000).contains(low)).ok_or(WRONG)?;
                    *i += 6;
                    code = 0x1_0000 + ((code - 0xd800) << 10 | (low - 0xdc00));
                }
                let letter = char::from_u32(code).ok_or(WRONG)?;
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err("invalid escape code"),
        });
        Ok(())
    }

    fn hex4(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 4)?;
        digits.iter().try_fold(0, |n, d| Some(n << 4 | char::from(*d).to_digit(16)?))
    }
}

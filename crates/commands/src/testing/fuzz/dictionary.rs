//! The words that a target's inputs are made of, from the tables that know them.

use super::command_sequence::{EDGES, options_of};
use crate::config::{Kind, SETTINGS};
use crate::memcached::ROWS;
use crate::table::{Acl, table};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The dictionary of a target in the notation of libFuzzer and AFL.
#[must_use]
pub fn dictionary(target: &str) -> String {
    let words = match target {
        "resp_parser" => protocol_words(),
        "memcached_parser" => memcached_words(),
        "command_sequence" => command_words(),
        "config_file" => setting_words(),
        "lua_bridge" => lua_words(),
        "acl_rules" => rule_words(),
        "restore_payload" => payload_words(),
        _ => BTreeSet::new(),
    };
    let mut text = format!("# The words of {target}. Written by `cargo xtask gen`.\n");
    for word in words.iter().filter(|word| !word.is_empty()) {
        writeln!(text, "\"{}\"", escaped(word)).unwrap_or_default();
    }
    text
}

fn escaped(word: &[u8]) -> String {
    let escape = |b: &u8| match b {
        b'"' | b'\\' => format!("\\{}", *b as char),
        0x20..=0x7e => (*b as char).to_string(),
        _ => format!("\\x{b:02x}"),
    };
    word.iter().map(escape).collect()
}

type Words = BTreeSet<Vec<u8>>;

fn protocol_words() -> Words {
    let heads = ["*", "$"].iter().flat_map(|mark| {
        let counts = ["0", "1", "3", "10", "11", "64", "65", "-1", "-0", "+1", "01", "16385"];
        let large = ["536870912", "536870913", "999999999", "2147483648", "9223372036854775807"];
        let numbers: Vec<_> = counts.iter().chain(&large).collect();
        numbers.into_iter().map(move |n| format!("{mark}{n}\r\n")).collect::<Vec<_>>()
    });
    let pieces = ["\r\n", "\n", "\r", "\"", "'", "\\x41", "\\\"", "\\'", "\\n", " ", "\t", "\0"];
    let calls =
        ["*1\r\n$4\r\nPING\r\n", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "PING\r\n", "$0\r\n\r\n"];
    let texts = pieces.iter().chain(&calls).map(|text| (*text).to_owned());
    heads.chain(texts).map(String::into_bytes).collect()
}

fn memcached_words() -> Words {
    let names = ROWS.iter().map(|row| format!("{} ", row.name));
    let pieces = [" noreply", "\r\n", "\n", "\r", "\t", "\0", " k 0 0 ", " 101\r\n", " 2147483646"];
    let requests = ["set k 0 0 1\r\nx\r\n", "ms k 1 T0\r\nx\r\n", "get k\r\n"];
    let texts = pieces.iter().chain(&requests).map(|text| (*text).to_owned());
    names.chain(texts).map(String::into_bytes).collect()
}

fn command_words() -> Words {
    let mut words = Words::new();
    for entry in table().entries() {
        words.insert(entry.full_name.replace('|', " ").into_bytes());
        words.extend(options_of(entry).map(|option| option.as_bytes().to_vec()));
    }
    words.extend(EDGES.iter().map(|edge| edge.to_vec()));
    words.extend(SETTINGS.iter().map(|setting| setting.name.as_bytes().to_vec()));
    words.extend(
        ["@log\n", "@client ", "@wait ", "@expire\n", "\n"].map(|word| word.as_bytes().to_vec()),
    );
    words
}

fn lua_words() -> Words {
    let words = "and break do else elseif end false for function if in local nil not or repeat return \
                 then true until while KEYS ARGV _G redis.call( redis.pcall( redis.error_reply( \
                 redis.status_reply( redis.setresp(3) redis.sha1hex( redis.register_function( \
                 cjson.encode( cjson.decode( cjson.null cmsgpack.pack( cmsgpack.unpack( struct.pack( \
                 struct.unpack( bit.band( string.rep( string.format( table.concat( table.sort( \
                 coroutine.wrap( setmetatable( pcall( error( unpack( tostring( loadstring( 'SET' 'GET' \
                 'INCR' 'MGET' 'SELECT' err= ok= map= set= double= big_number= verbatim_string= \
                 1e308 0/0 2^53 -1 [[ ]] .. == # #!lua name=l flags=no-writes";
    words.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

fn rule_words() -> Words {
    let mut words = Words::new();
    words
        .extend(table().entries().iter().map(|entry| format!("+{}", entry.full_name).into_bytes()));
    for (_, name) in Acl::NAMES {
        words.extend([format!("+@{name}"), format!("-@{name}")].map(String::into_bytes));
    }
    let plain = ["on", "off", "nopass", "resetpass", "allkeys", "resetkeys", "allchannels"];
    let others = ["resetchannels", "clearselectors", "reset", "+@all", "-@all", "(", ")", "~*"];
    let marks =
        ["&*", "%R~", "%W~", "%RW~", "~a", "&b", ">x", "<x", "#", "!", "|", "\"", "'", "\n"];
    let all = plain.iter().chain(&others).chain(&marks);
    words.extend(all.map(|word| word.as_bytes().to_vec()));
    words
}

/// Heads of lengths and numbers, of the packed encodings and their ends.
fn payload_words() -> Words {
    let texts: [&[u8]; 24] = [
        b"\x40\x40",
        b"\x80\0\0\x40\0",
        b"\x81\0\0\0\0\0\0\0\x01",
        b"\xc0\x7f",
        b"\xc1\0\x7f",
        b"\xc2\0\0\0\x7f",
        b"\xc3\x05\x0a",
        b"\xff",
        b"\xfe",
        b"\xf1\0\x01\x04",
        b"\xf2\0\0\x01\x05",
        b"\xf3\0\0\0\x01\x06",
        b"\xf4\0\0\0\0\0\0\0\x01\x0a",
        b"\xe0\x40",
        b"\xdf\xff\x02",
        b"\x81a\x02",
        b"\xc0\x41\x02",
        b"\xf0\x01\0\0\0a\x06",
        b"\x04\x01",
        b"\x02\x01\0\x01",
        b"\0\0\0\0\0\0\xf0\x3f",
        b"\0\0\0\0\0\0\xf8\x7f",
        b"\0\0\0\0\0\0\0\x80",
        b"\x031.5",
    ];
    texts.iter().map(|text| text.to_vec()).collect()
}

fn setting_words() -> Words {
    let mut words = Words::new();
    for setting in SETTINGS {
        words.insert(setting.name.as_bytes().to_vec());
        words.insert(setting.default.as_bytes().to_vec());
        match setting.kind {
            Kind::Choice(choices) => words.extend(choices.iter().map(|c| c.as_bytes().to_vec())),
            Kind::Int(min, max) => words.extend([min, max].map(|n| n.to_string().into_bytes())),
            Kind::Bytes(min, max) => words.extend([min, max].map(|n| n.to_string().into_bytes())),
            _ => {}
        }
    }
    let others = ["yes", "no", "include", "normal", "replica", "slave", "pubsub", "1k", "1kb"];
    let texts = ["mb", "gb", "KEA", "\"", "'", "\\x", "\\n", "#", "\r\n", "\n", " ", "-1", "99.9"];
    words.extend(others.iter().chain(&texts).map(|word| word.as_bytes().to_vec()));
    words
}

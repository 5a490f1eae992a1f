//! Any payload is refused or restored; what was restored is dumped as a payload that restores the same,
//! and takes memory in proportion.

use crate::config::Config;
use crate::testing::Harness;
use crate::testing::replay::{KEEP_ALL, dataset, replay};
use hypercache_rdb::{
    Reader, VERSION, VERSION_DEADLINES, VERSION_VALKEY, Value, payload, put_object,
    put_string_value, read_value,
};

/// The versions that an input may be of, by its first byte.
const VERSIONS: [u16; 4] = [9, VERSION, VERSION_DEADLINES, VERSION_VALKEY];
/// No value takes more memory than this for each byte of a payload that packs nothing.
const GROWTH_MAX: usize = 64;
/// And beside that.
const GROWTH_FREE: usize = 64 * 1024;
/// The first byte of a packed string.
const PACKED: u8 = 0xc3;

/// The first byte chooses a version, the others are type and value. They are sealed here: a checksum
/// would not be guessed.
///
/// # Panics
/// When what was restored is dumped as something else, or takes too much memory.
pub fn restore_payload(input: &[u8]) {
    let Some((version, content)) = input.split_first() else { return };
    // As it is it has no checksum, or one that was guessed.
    let _refused = read(input).is_none();
    let version = VERSIONS[usize::from(*version) % VERSIONS.len()];
    let mut sealed = content.to_vec();
    payload::seal(&mut sealed, version);
    let Some(value) = read(&sealed) else { return };
    check_size(content, &value);
    let dumped = dump(&value);
    let again = read(&dumped).unwrap_or_else(|| panic!("{}", dumped.escape_ascii()));
    assert_eq!(canonical(&again), canonical(&value), "dumped as {}", dumped.escape_ascii());
    // A server takes many times as long as the rest.
    if content.len().is_multiple_of(8) {
        check_command(&sealed);
    }
}

fn read(payload: &[u8]) -> Option<Value> {
    let (content, version) = payload::open(payload)?;
    let mut reader = Reader::new(content);
    let kind = reader.u8()?;
    read_value(kind, &mut reader, version).ok()
}

fn dump(value: &Value) -> Vec<u8> {
    let mut dumped = Vec::new();
    let version = match value {
        Value::String(string) => put_string_value(&mut dumped, string),
        Value::Object(object) => put_object(&mut dumped, object),
    };
    payload::seal(&mut dumped, version);
    dumped
}

fn canonical(value: &Value) -> Vec<u8> {
    match value {
        Value::String(string) => string.clone(),
        Value::Object(object) => object.canonical(),
    }
}

fn check_size(content: &[u8], value: &Value) {
    let bytes = match value {
        Value::String(string) => string.capacity(),
        Value::Object(object) => object.bytes(),
    };
    let is_packed = content.contains(&PACKED);
    let most = GROWTH_MAX * content.len() + GROWTH_FREE;
    assert!(is_packed || bytes <= most, "{bytes} bytes of {}", content.len());
}

/// RESTORE and what it tells lead to the same; and the account of memory is right.
fn check_command(sealed: &[u8]) {
    let mut config = Config::default();
    for (name, value) in KEEP_ALL {
        config.set_at_start(name, value).expect("a valid setting");
    }
    let mut harness = Harness::new(config);
    let restore = [&b"RESTORE"[..], b"key", b"0", sealed, b"REPLACE"];
    assert_eq!(harness.run_args(restore), b"+OK\r\n");
    assert_eq!(harness.run_args(restore), b"+OK\r\n");
    assert_eq!(replay(&harness), dataset(&harness));
    assert_eq!(harness.shared.bytes_used(), harness.bytes_there());
}

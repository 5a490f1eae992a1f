//! Scripts: replies compared with Redis, well-known patterns, and scripts that take long.

use hypercache_tests::{Server, Wire, request};
use std::time::Duration;

/// A script with its keys and arguments.
pub(crate) type Call = (&'static str, &'static [&'static str], &'static [&'static str]);

fn words<'a>((script, keys, args): &Call, count: &'a str) -> Vec<&'a str>
where
    'static: 'a,
{
    let head = ["EVAL", *script, count];
    head.into_iter().chain(keys.iter().copied()).chain(args.iter().copied()).collect()
}

/// Calls all in order on both servers, under both protocols.
pub(crate) fn compare(calls: &[Call]) {
    let (ours, redis) = (Server::start(&[]), Server::redis(&[]));
    for version in ["2", "3"] {
        let (mut ours, mut redis) = (ours.wire(), redis.wire());
        for wire in [&mut ours, &mut redis] {
            wire.call(&["HELLO", version]);
            wire.call(&["FLUSHALL"]);
        }
        for call in calls {
            let count = call.1.len().to_string();
            let words = words(call, &count);
            let replies = (ours.call(&words), redis.call(&words));
            assert_eq!(replies.0, replies.1, "RESP{version}: {words:?}");
        }
    }
}

/// Deletes a lock only for who holds it.
const UNLOCK: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
/// Prolongs a lock only for who holds it.
const PROLONG: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])";
/// So many requests in a window that begins with the first.
const FIXED_WINDOW: &str = "local n = redis.call('INCR', KEYS[1]) if n == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end if n > tonumber(ARGV[1]) then return {0, 0} end return {1, ARGV[1] - n}";
/// The count of the last window counts in part.
const SLIDING_WINDOW: &str = "local now, width, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]) local window = math.floor(now / width) local this = tonumber(redis.call('GET', KEYS[1] .. window) or 0) local last = tonumber(redis.call('GET', KEYS[1] .. (window - 1)) or 0) if this + last * (1 - now % width / width) >= limit then return 0 end redis.call('SET', KEYS[1] .. window, this + 1, 'PX', 2 * width) return 1";
/// Tokens come back at a rate, up to a capacity.
const TOKEN_BUCKET: &str = "local rate, capacity, now, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]) local state = redis.call('GET', KEYS[1]) local tokens, at = capacity, now if state then tokens, at = string.match(state, '(.+):(.+)') tokens, at = tonumber(tokens), tonumber(at) end tokens = math.min(capacity, tokens + (now - at) * rate) local allowed = tokens >= cost if allowed then tokens = tokens - cost end redis.call('SET', KEYS[1], string.format('%.3f:%d', tokens, now)) return {allowed and 1 or 0, tostring(tokens)}";
/// Adds up to a cap.
const CAPPED: &str = "local n = tonumber(redis.call('GET', KEYS[1]) or '0') + ARGV[1] if n > tonumber(ARGV[2]) then return redis.error_reply('CAP reached') end redis.call('SET', KEYS[1], n) return n";
/// Sets what is greater.
const SET_GREATER: &str = "local old = tonumber(redis.call('GET', KEYS[1])) if old and old >= tonumber(ARGV[1]) then return old end redis.call('SET', KEYS[1], ARGV[1]) return redis.status_reply('SET')";
/// Takes several locks or none.
const LOCK_ALL: &str = "for _, key in ipairs(KEYS) do if redis.call('EXISTS', key) == 1 then return {err = 'LOCKED ' .. key} end end for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1], 'EX', 10) end return #KEYS";
/// Replaces a value if it is as it was when it was read.
const COMPARE_AND_SET: &str = "local old = redis.call('GET', KEYS[1]) if (old or '') == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return true end return false";
/// A document that is merged into another.
const MERGE_JSON: &str = "local t = cjson.decode(redis.call('GET', KEYS[1]) or '{}') for k, v in pairs(cjson.decode(ARGV[1])) do t[k] = v end redis.call('SET', KEYS[1], cjson.encode(t)) return t.n";
/// Reads through: the first to miss is told to fill.
const FILL_ONCE: &str = "local v = redis.call('GET', KEYS[1]) if v then return {'hit', v} end if redis.call('SET', KEYS[2], 1, 'NX', 'EX', 5) then return {'fill'} end return {'wait'}";
/// Moves an amount between two counters, all or nothing.
const TRANSFER: &str = "local have = tonumber(redis.call('GET', KEYS[1]) or 0) if have < tonumber(ARGV[1]) then return redis.error_reply('FUNDS only ' .. have) end redis.call('DECRBY', KEYS[1], ARGV[1]) return redis.call('INCRBY', KEYS[2], ARGV[1])";
/// Deletes keys by a pattern, and says how many went.
const DELETE_MATCHING: &str = "local n = 0 for _, key in ipairs(redis.call('KEYS', ARGV[1])) do n = n + redis.call('DEL', key) end return n";
/// One flag per user and day, counted.
const SEEN: &str = "local before = redis.call('SETBIT', KEYS[1], ARGV[1], 1) return {before, redis.call('BITCOUNT', KEYS[1])}";
/// Numbers that are given out once, some at a time.
const SEQUENCE: &str =
    "local last = redis.call('INCRBY', KEYS[1], ARGV[1]) return {last - ARGV[1] + 1, last}";

#[test]
fn well_known_patterns_reply_as_on_redis() {
    compare(&[
        (COMPARE_AND_SET, &["lock"], &["", "me"]),
        (UNLOCK, &["lock"], &["other"]),
        (PROLONG, &["lock"], &["me", "5000"]),
        (UNLOCK, &["lock"], &["me"]),
        (PROLONG, &["lock"], &["me", "5000"]),
        (FIXED_WINDOW, &["w"], &["2", "60"]),
        (FIXED_WINDOW, &["w"], &["2", "60"]),
        (FIXED_WINDOW, &["w"], &["2", "60"]),
        (SLIDING_WINDOW, &["s"], &["10500", "1000", "2"]),
        (SLIDING_WINDOW, &["s"], &["10600", "1000", "2"]),
        (SLIDING_WINDOW, &["s"], &["10700", "1000", "2"]),
        (SLIDING_WINDOW, &["s"], &["11200", "1000", "2"]),
        (SLIDING_WINDOW, &["s"], &["11900", "1000", "2"]),
        (TOKEN_BUCKET, &["b"], &["0.5", "3", "100", "2"]),
        (TOKEN_BUCKET, &["b"], &["0.5", "3", "101", "2"]),
        (TOKEN_BUCKET, &["b"], &["0.5", "3", "103", "2"]),
        (CAPPED, &["c"], &["7", "10"]),
        (CAPPED, &["c"], &["7", "10"]),
        (CAPPED, &["c"], &["2.5", "10"]),
        (SET_GREATER, &["g"], &["5"]),
        (SET_GREATER, &["g"], &["3"]),
        (LOCK_ALL, &["l1", "l2"], &["me"]),
        (LOCK_ALL, &["l0", "l2"], &["me"]),
        (COMPARE_AND_SET, &["x"], &["", "a"]),
        (COMPARE_AND_SET, &["x"], &["b", "c"]),
        (MERGE_JSON, &["j"], &["{\"n\":1,\"m\":[1,2]}"]),
        (MERGE_JSON, &["j"], &["{\"n\":\"two\"}"]),
        (FILL_ONCE, &["v", "v:filling"], &[]),
        (FILL_ONCE, &["v", "v:filling"], &[]),
        (TRANSFER, &["from", "to"], &["5"]),
        (SEQUENCE, &["from"], &["8"]),
        (TRANSFER, &["from", "to"], &["5"]),
        (SEEN, &["seen"], &["7"]),
        (SEEN, &["seen"], &["7"]),
        (DELETE_MATCHING, &[], &["l[0-9]"]),
    ]);
}

#[test]
fn conversions_and_refusals_are_those_of_redis() {
    compare(&[
        ("return {1, 2.9, -2.9, 'x', true, false, {}, {1, {2}}}", &[], &[]),
        ("return {1, nil, 3}", &[], &[]),
        ("return {KEYS, ARGV}", &["a", "b"], &["c"]),
        ("return {double = 1.5}", &[], &[]),
        ("return {map = {a = {1, 2}}}", &[], &[]),
        ("return {set = {x = true}}", &[], &[]),
        ("return {big_number = '123'}", &[], &[]),
        ("return {verbatim_string = {format = 'mkd', string = 'x'}}", &[], &[]),
        ("return {ok = 'a\\r\\nb'}", &[], &[]),
        ("return {err = 'MY a\\r\\nb'}", &[], &[]),
        ("redis.setresp(3) return {true, false, redis.call('GET', 'nosuch')}", &[], &[]),
        ("return tostring(redis.call('GET', 'nosuch'))", &[], &[]),
        ("return redis.call('PING')", &[], &[]),
        ("return redis.pcall('GET')", &[], &[]),
        ("return redis.call('GET')", &[], &[]),
        ("return redis.call('nosuch', 1)", &[], &[]),
        ("\n\nreturn redis.call('SET', 'a')", &[], &[]),
        ("return redis.call('SUBSCRIBE', 'a')", &[], &[]),
        ("return redis.call('SET', 'n', 0.1)", &[], &[]),
        ("return redis.call('GET', 'n')", &[], &[]),
        ("return redis.call('INCR', 'n')", &[], &[]),
        ("return {redis.pcall('INCR', 'n').err}", &[], &[]),
        ("return {pcall(redis.call, 'INCR', 'n')}", &[], &[]),
        ("error('boom')", &[], &[]),
        ("error({err = 'MY boom'})", &[], &[]),
        ("error(nil)", &[], &[]),
        ("return redis.error_reply('a')", &[], &[]),
        ("return redis.error_reply('-A b')", &[], &[]),
        ("return redis.sha1hex('x')", &[], &[]),
        ("return redis.setresp(5)", &[], &[]),
        ("return redis.log('x')", &[], &[]),
        ("x = 1", &[], &[]),
        ("return x", &[], &[]),
        ("return cjson.encode({1, 0.1, 'a/\\n\\127', {a = 1e20}, cjson.null, {}})", &[], &[]),
        ("return cjson.encode({[3] = 1})", &[], &[]),
        ("return cjson.decode('[1, {\"a\": null}, 2.5e3, \"\\\\ud83d\\\\ude00\"]')", &[], &[]),
        ("return cjson.decode('{\"a\" 1}')", &[], &[]),
        ("return cjson.decode('[1,]')", &[], &[]),
        ("return cjson.decode('[1] x')", &[], &[]),
        ("return cjson.decode('\"\\\\q\"')", &[], &[]),
        ("return cjson.decode('\"abc')", &[], &[]),
        ("return cjson.decode('{\"a\":tru}')", &[], &[]),
        ("return cjson.decode('')", &[], &[]),
        ("return cjson.decode('\"\\\\ud800\"')", &[], &[]),
        ("return cjson.encode(function() end)", &[], &[]),
        (
            "return cmsgpack.pack(1, -1, 127, 128, -33, 65536, 2^40, -2^40, 0.5, 0.1, 'x', true)",
            &[],
            &[],
        ),
        ("return cmsgpack.pack({1, 2, 3}, {}, {a = 1}, {1, nil, 3}, {[2] = 1})", &[], &[]),
        ("return {cmsgpack.unpack_limit(cmsgpack.pack(1, 2, 3), 2)}", &[], &[]),
        ("return cmsgpack.unpack('\\193')", &[], &[]),
        ("return struct.pack('>!4bHi3lfdsxc3', 1, 2, 3, 4, 5.5, 6.5, 'seven', 'eight')", &[], &[]),
        ("return {struct.unpack('<hB', '\\255\\255\\255')}", &[], &[]),
        ("return struct.unpack('i4', 'abc')", &[], &[]),
        ("return {bit.tobit(2^33 + 5), bit.bnot(0), bit.rol(5, 31), bit.tohex(-1, 4)}", &[], &[]),
        ("return string.format('%5.1f|%d|%s|%q|%x', 1.25, 7, 1/3, 'a\"b', 255)", &[], &[]),
        ("return {tostring(1e15), tostring(2^53), tostring(0.1 + 0.2), tostring(-1.5)}", &[], &[]),
        ("return {math.mod(7, 3), table.getn({1, 2}), #table.concat({1, 2}, ',')}", &[], &[]),
        ("#!lua flags=no-writes\nreturn redis.call('SET', 'a', 1)", &[], &[]),
        ("#!lua flags=x\nreturn 1", &[], &[]),
        ("#!lua", &[], &[]),
    ]);
}

#[test]
fn commands_about_scripts_reply_as_on_redis() {
    let (ours, redis) = (Server::start(&[]), Server::redis(&[]));
    let (mut ours, mut redis) = (ours.wire(), redis.wire());
    let library = "#!lua name=l\nredis.register_function('f', function(k, a) return {k, a} end)";
    let digest = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let calls: &[&[&str]] = &[
        &["EVALSHA", digest, "0"],
        &["SCRIPT", "LOAD", "return 1"],
        &["EVALSHA", digest, "0"],
        &["EVALSHA_RO", digest, "0"],
        &["SCRIPT", "EXISTS", digest, "x"],
        &["SCRIPT", "FLUSH", "ASYNC"],
        &["SCRIPT", "EXISTS", digest],
        &["SCRIPT", "FLUSH", "x"],
        &["SCRIPT", "KILL"],
        &["SCRIPT", "nosuch"],
        &["EVAL", "return 1", "x"],
        &["EVAL", "return 1", "-1"],
        &["EVAL", "return 1", "3", "a"],
        &["EVAL_RO", "#!lua\nreturn 1", "0"],
        &["FUNCTION", "LOAD", library],
        &["FUNCTION", "LOAD", library],
        &["FUNCTION", "LOAD", "REPLACE", library],
        &["FCALL", "f", "1", "k", "a"],
        &["FCALL", "f", "x"],
        &["FCALL_RO", "f", "0"],
        &["FCALL", "nosuch", "0"],
        &["FUNCTION", "LIST", "WITHCODE"],
        &["FUNCTION", "STATS"],
        &["FUNCTION", "DELETE", "nosuch"],
        &["FUNCTION", "DELETE", "l"],
        &["FUNCTION", "DUMP"],
        &["FUNCTION", "LIST"],
        &["FUNCTION", "KILL"],
        &["COMMAND", "GETKEYS", "EVAL", "return 1", "2", "a", "b", "c"],
        &["COMMAND", "GETKEYSANDFLAGS", "EVAL_RO", "return 1", "1", "a"],
    ];
    for words in calls {
        assert_eq!(ours.call(words), redis.call(words), "{words:?}");
    }
}

#[test]
fn libraries_that_redis_dumped_are_restored() {
    let (ours, redis) = (Server::start(&[]), Server::redis(&[]));
    let (mut ours, mut redis) = (ours.wire(), redis.wire());
    let body =
        "redis.register_function('f', function(k, a) return 'as long as needed to be packed' end)";
    redis.call(&["FUNCTION", "LOAD", &format!("#!lua name=l\n{body}\n-- {body}")]);
    let dump = redis.call(&["FUNCTION", "DUMP"]);
    let start = dump.0.iter().position(|b| *b == b'\n').expect("a head") + 1;
    let payload = &dump.0[start..dump.0.len() - 2];
    let restored = ours.call(&[b"FUNCTION", &b"RESTORE"[..], payload]);
    assert_eq!(restored.line(), "OK");
    assert_eq!(ours.call(&["FCALL", "f", "0"]), redis.call(&["FCALL", "f", "0"]));
}

/// Starts a script that does not end and waits until others are told so.
fn run_for_ever(wire: &mut Wire, script: &str) {
    wire.send(&request(&["EVAL", script, "1", "k"]));
    std::thread::sleep(Duration::from_millis(400));
}

#[test]
fn a_script_that_takes_long_can_be_killed_by_any_client() {
    for flags in [
        ["--threads", "1", "--io", "auto"],
        ["--threads", "1", "--io", "epoll"],
        ["--threads", "2", "--io", "auto"],
    ] {
        let server = Server::start(&[&flags[..], &["--busy-reply-threshold", "100"]].concat());
        let mut wires: Vec<Wire> = (0..4).map(|_| server.wire()).collect();
        wires.iter_mut().for_each(|wire| assert_eq!(wire.call(&["PING"]).line(), "PONG"));
        for killer in 1..4 {
            run_for_ever(&mut wires[0], "while true do end");
            assert_eq!(wires[killer].call(&["SCRIPT", "KILL"]).line(), "OK", "{flags:?}");
            assert!(wires[0].read().text().contains("Script killed by user"), "{flags:?}");
        }
        run_for_ever(&mut wires[0], "while true do end");
        let mut late = server.wire();
        assert!(late.call(&["GET", "k"]).text().contains("BUSY Redis is busy"), "{flags:?}");
        assert_eq!(late.call(&["SCRIPT", "KILL"]).line(), "OK", "{flags:?}");
        assert!(wires[0].read().text().contains("Script killed by user"), "{flags:?}");
        assert_eq!(late.call(&["SET", "k", "v"]).line(), "OK");
        assert!(wires[1].call(&["GET", "k"]).text().contains('v'));
    }
}

#[test]
fn a_script_that_has_written_ends_with_the_server() {
    for threads in ["1", "2"] {
        let flags = ["--threads", threads, "--busy-reply-threshold", "100"];
        let server = Server::start(&flags);
        let (mut wire, mut other) = (server.wire(), server.wire());
        other.call(&["PING"]);
        run_for_ever(&mut wire, "redis.call('SET', KEYS[1], 1) while true do end");
        let refused = server.wire().call(&["SCRIPT", "KILL"]).text();
        assert!(refused.contains("UNKILLABLE Sorry the script already executed"), "{refused}");
        other.send(&request(&["SHUTDOWN", "NOSAVE"]));
        assert!(other.is_closed(), "the server ends");
    }
}

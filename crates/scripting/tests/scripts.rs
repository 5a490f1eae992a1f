//! Scripts by the commands that run them, without sockets: conversions, libraries, sandbox, locks.

use hypercache_commands::Shared;
use hypercache_commands::config::Config;
use hypercache_commands::testing::Harness;
use hypercache_protocol::reply::Version;
use hypercache_stdx::clock;
use std::sync::Arc;
use std::time::Duration;

fn harness_with(settings: &[(&str, &str)]) -> Harness {
    let mut config = Config::default();
    for (name, value) in settings {
        config.set_at_start(name, value).expect("a valid setting");
    }
    let harness = Harness::new(config);
    harness.shared.scripts.install(Box::new(hypercache_scripting::Engine));
    harness
}

fn harness() -> Harness {
    harness_with(&[])
}

fn eval(h: &mut Harness, script: &str, keys: &[&str], args: &[&str]) -> String {
    let count = keys.len().to_string();
    let head = ["EVAL", script, &count];
    text(h.run_args(head.iter().chain(keys).chain(args)))
}

fn text(reply: Vec<u8>) -> String {
    String::from_utf8_lossy(&reply).replace("\r\n", " ").trim_end().to_owned()
}

/// Each script with its reply.
fn check(h: &mut Harness, cases: &[(&str, &str)]) {
    for (script, reply) in cases {
        assert_eq!(eval(h, script, &[], &[]), *reply, "{script}");
    }
}

/// Each script with how its reply begins.
fn check_starts(h: &mut Harness, cases: &[(&str, &str)]) {
    for (script, start) in cases {
        let reply = eval(h, script, &[], &[]);
        assert!(reply.starts_with(start), "{script}\n  gives {reply}");
    }
}

#[test]
fn values_become_replies() {
    check(
        &mut harness(),
        &[
            ("return 3.99", ":3"),
            ("return 1e30", ":-9223372036854775808"),
            ("return 'a\\r\\nb'", "$4 a b"),
            ("return {1, 'x', {true, false}, nil, 5}", "*3 :1 $1 x *2 :1 $-1"),
            ("return {ok = 'fine'}", "+fine"),
            ("return {err = 'MY text'}", "-MY text"),
            ("return {double = 3.5}", "$3 3.5"),
            ("return {map = {a = 1}}", "*2 $1 a :1"),
            ("return {set = {a = true}}", "*1 $1 a"),
            ("return {big_number = '12'}", "$2 12"),
            ("return {verbatim_string = {format = 'txt', string = 'x'}}", "$1 x"),
            ("return function() end", "$-1"),
            ("return redis.error_reply('My Err')", "-My Err"),
            ("return redis.error_reply('Err')", "-ERR Err"),
            ("return redis.status_reply('x')", "+x"),
        ],
    );
}

#[test]
fn values_become_replies_of_resp3() {
    let mut h = harness();
    h.session.set_version(Version::V3);
    check(
        &mut h,
        &[
            ("return {double = 3.5}", ",3.5"),
            ("return {map = {a = 1}}", "%1 $1 a :1"),
            ("return {set = {a = true}}", "~1 $1 a"),
            ("return {big_number = '12'}", "(12"),
            ("return {verbatim_string = {format = 'txt', string = 'x'}}", "=5 txt:x"),
            ("return true", ":1"),
            ("return false", "_"),
            ("redis.setresp(3) return true", "#t"),
            ("redis.setresp(3) return false", "#f"),
            ("redis.setresp(3) return redis.call('GET', 'nosuch')", "_"),
        ],
    );
}

#[test]
fn replies_become_values() {
    let mut h = harness();
    h.run("SET s v");
    check(
        &mut h,
        &[
            ("return redis.call('SET', 'a', 1).ok", "$2 OK"),
            ("return redis.call('INCR', 'a') + 0.5", ":2"),
            ("return redis.call('GET', 's') .. '!'", "$2 v!"),
            ("return tostring(redis.call('GET', 'nosuch'))", "$5 false"),
            ("redis.setresp(3) return tostring(redis.call('GET', 'nosuch'))", "$3 nil"),
            ("return #redis.call('MGET', 's', 'nosuch', 'a')", ":3"),
            (
                "return redis.pcall('INCR', 's').err",
                "$43 ERR value is not an integer or out of range",
            ),
        ],
    );
    let large = "x".repeat(100_000);
    h.run_args(["SET", "large", &large]);
    assert_eq!(eval(&mut h, "return #redis.call('GET', KEYS[1])", &["large"], &[]), ":100000");
}

#[test]
fn numbers_are_arguments_with_17_digits_and_text_with_14() {
    let mut h = harness();
    for (number, stored, shown) in [
        ("0.1", "0.10000000000000001", "0.1"),
        ("1e17", "1e+17", "1e+17"),
        ("2^53", "9007199254740992", "9.007199254741e+15"),
        ("-7", "-7", "-7"),
    ] {
        eval(&mut h, &format!("redis.call('SET', 'n', {number})"), &[], &[]);
        assert_eq!(text(h.run("GET n")), format!("${} {stored}", stored.len()));
        let reply = eval(&mut h, &format!("return tostring({number})"), &[], &[]);
        assert_eq!(reply, format!("${} {shown}", shown.len()));
        let reply = eval(&mut h, &format!("return string.format('%s', {number})"), &[], &[]);
        assert_eq!(reply, format!("${} {shown}", shown.len()));
    }
}

#[test]
fn errors_name_script_and_line() {
    check(
        &mut harness(),
        &[
            (
                "return redis.call('nosuch')",
                "-ERR Unknown Redis command called from script script: 206396248e12c6e742fd7296250433c8d7343b74, on @user_script:1.",
            ),
            (
                "error('boom')",
                "-ERR user_script:1: boom script: 82903a0434f1503e152f89c03c9acd881a0e8150, on @user_script:1.",
            ),
            (
                "return cjson.decode('x')",
                "-ERR user_script:1: Expected value but found invalid token at character 1 script: 5f58dd5cefb3eb0313af3534f36be4b83e79ae80, on @user_script:1.",
            ),
            (
                "return x",
                "-ERR user_script:1: Script attempted to access nonexistent global variable 'x' script: 03c387736bb5cc009ff35151572cee04677aa374, on @user_script:1.",
            ),
        ],
    );
}

#[test]
fn what_is_not_allowed_is_refused() {
    let mut h = harness();
    check_starts(
        &mut h,
        &[
            (
                "return redis.call()",
                "-ERR Please specify at least one argument for this redis lib call",
            ),
            (
                "return redis.call('GET')",
                "-ERR Wrong number of args calling Redis command from script",
            ),
            (
                "return redis.call('GET', {})",
                "-ERR Lua redis lib command arguments must be strings or integers",
            ),
            (
                "return redis.call('EVAL', 'return 1', 0)",
                "-ERR This Redis command is not allowed from script",
            ),
            (
                "#!lua flags=no-writes\nreturn redis.call('SET', 'a', 1)",
                "-ERR Write commands are not allowed from read-only scripts.",
            ),
            ("x = 1", "-ERR user_script:1: Attempt to modify a readonly table"),
            ("string.x = 1", "-ERR user_script:1: Attempt to modify a readonly table"),
            ("rawset(redis, 'call', 1)", "-ERR Attempt to modify a readonly table"),
            (
                "return io",
                "-ERR user_script:1: Script attempted to access nonexistent global variable 'io'",
            ),
            (
                "return print",
                "-ERR user_script:1: Script attempted to access nonexistent global variable 'print'",
            ),
            (
                "return setfenv",
                "-ERR user_script:1: Script attempted to access nonexistent global variable 'setfenv'",
            ),
            ("return tostring(loadstring(string.char(3, 1, 2)))", "$3 nil"),
            ("return 1 +", "-ERR Error compiling script (new function): user_script:1: "),
        ],
    );
    assert!(
        text(h.run("EVAL_RO \"return redis.call('SET', 'a', 1)\" 0")).starts_with("-ERR Write")
    );
    assert_eq!(text(h.run("EXISTS a")), ":0");
}

#[test]
fn libraries_of_lua_51_are_there() {
    check(
        &mut harness(),
        &[
            ("return math.mod(7, 3)", ":1"),
            ("return table.getn({1, 2})", ":2"),
            ("return loadstring('return 1 + 1')()", ":2"),
            ("return string.gfind('a', 'a')()", "$1 a"),
            ("return ('x'):rep(3)", "$3 xxx"),
            ("return {unpack({1, 2})}", "*2 :1 :2"),
            ("return _VERSION", "$7 Lua 5.1"),
            ("return bit.tohex(bit.bor(1, 254))", "$8 000000ff"),
            (
                "return {bit.tobit(0xffffffff), bit.lshift(1, 31), bit.arshift(-16, 2)}",
                "*3 :-1 :-2147483648 :-4",
            ),
            ("return redis.sha1hex('')", "$40 da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            ("return {pcall(error, {err = 'x'})}", "*2 $-1 $1 x"),
            ("return #KEYS + #ARGV + #_G.KEYS", ":0"),
        ],
    );
}

#[test]
fn json_and_msgpack_and_struct_round_trip() {
    check(
        &mut harness(),
        &[
            ("return cjson.encode({1, 2, {a = 'b/\\n'}})", "$19 [1,2,{\"a\":\"b\\/\\n\"}]"),
            ("return cjson.encode({})", "$2 {}"),
            ("return cjson.encode({0.1, 1e15, cjson.null})", "$16 [0.1,1e+15,null]"),
            ("return cjson.decode('{\"a\":[1,2,\"\\\\u00e9\"]}').a[3]", "$2 é"),
            ("return tostring(cjson.decode('[null]')[1] == cjson.null)", "$4 true"),
            (
                "return select(2, pcall(cjson.encode, {[100] = 1}))",
                "$48 Cannot serialise table: excessively sparse array",
            ),
            ("return cmsgpack.unpack(cmsgpack.pack({a = {1, 2.5, 'x'}})).a[3]", "$1 x"),
            (
                "return {cmsgpack.unpack(cmsgpack.pack(1, -1, 300, -70000, true))}",
                "*5 :1 :-1 :300 :-70000 :1",
            ),
            ("return {cmsgpack.unpack_one(cmsgpack.pack(1, 2))}", "*2 :1 :1"),
            ("return select(2, pcall(cmsgpack.unpack, '\\146\\1'))", "$23 Missing bytes in input."),
            (
                "return {struct.unpack('>I2hbds', struct.pack('>I2hbds', 1, -2, 3, 1.5, 'z'))}",
                "*6 :1 :-2 :3 :1 $1 z :16",
            ),
            ("return struct.size('i4c10')", ":14"),
        ],
    );
}

#[test]
fn what_is_hostile_ends_and_harms_nobody() {
    let mut h = harness_with(&[("lua-memory-limit", "16mb")]);
    check_starts(
        &mut h,
        &[
            ("local s = 'x' while true do s = s .. s end", "-ERR not enough memory"),
            ("return string.rep('x', 1e8)", "-ERR not enough memory"),
            (
                "local t = {} while true do t[#t + 1] = #t .. string.rep('y', 1e5) end",
                "-ERR not enough memory",
            ),
            (
                "local function f() return 1 + f() end return f()",
                "-ERR user_script:1: stack overflow",
            ),
            ("return {unpack({}, 1, 1e7)}", "-ERR user_script:1: too many results to unpack"),
            ("return {pcall(unpack, {}, 0, 2147483647)}", "*2 $-1 "),
            ("local t = {} t[1] = t return t", "-ERR reached lua stack limit"),
            (
                "return cjson.decode(string.rep('[', 1e5))",
                "-ERR user_script:1: Found too many nested",
            ),
            (
                "return cmsgpack.unpack(string.rep('\\145', 1e5))",
                "-ERR user_script:1: Too many nested",
            ),
            ("error({})", "-ERR unknown error"),
            (
                "error(setmetatable({}, {__index = function() error('x') end}))",
                "-ERR unknown error",
            ),
            ("local function f() return coroutine.wrap(f)() end return f()", "-ERR "),
            ("return coroutine.wrap(function() return redis.call('PING') end)()", "+PONG"),
            ("return xpcall(error, function() error('again') end)", "$-1"),
            ("return tostring(getmetatable(redis.call))", "$3 nil"),
            ("getmetatable('').__index = nil", "-ERR user_script:1: Attempt to modify"),
        ],
    );
    assert_eq!(eval(&mut h, "return 1", &[], &[]), ":1");
}

/// Runs a script on a thread of its own and gives its reply; `meanwhile` runs beside it.
fn beside(shared: &Arc<Shared>, script: &'static str, meanwhile: impl FnOnce()) -> String {
    let turn = Arc::clone(&shared.keyspace.turn);
    let shared = Arc::clone(shared);
    let thread = std::thread::spawn(move || {
        let mut other = Harness::beside(&shared);
        eval(&mut other, script, &["k"], &[])
    });
    while turn.running().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    meanwhile();
    thread.join().expect("no panic")
}

#[test]
fn a_script_is_killed_from_elsewhere_whatever_it_catches() {
    for script in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "xpcall(function() while true do end end, function() while true do end end)",
        "local s = string.rep('a', 1e5) return s:find(('a-'):rep(60) .. 'b')",
        "while true do redis.pcall('GET', 'k') end",
        "coroutine.wrap(function() while true do end end)()",
    ] {
        let mut h = harness_with(&[("busy-reply-threshold", "50")]);
        let shared = Arc::clone(&h.shared);
        let reply = beside(&shared, script, || {
            while !shared.keyspace.turn.is_busy() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let busy = "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
            assert_eq!(text(h.run("GET k")), busy);
            assert_eq!(text(h.run("EVAL 'return 1' 0")), busy);
            assert_eq!(text(h.run("DBSIZE")), busy);
            assert_eq!(text(h.run("PING")), "+PONG");
            assert_eq!(text(h.run("SCRIPT KILL")), "+OK");
        });
        assert!(reply.starts_with("-ERR Script killed by user with SCRIPT KILL..."), "{reply}");
        // A script that catches errors may use up the time to find the line.
        let is_named = reply.ends_with(", on @user_script:1.");
        assert!(is_named || script.contains("pcall"), "{script}\n  gives {reply}");
        assert_eq!(text(h.run("SCRIPT KILL")), "-NOTBUSY No scripts in execution right now.");
        assert_eq!(text(h.run("SET k v")), "+OK");
    }
}

#[test]
fn a_script_that_has_written_is_not_killed_but_ends_when_the_server_does() {
    let h = harness_with(&[("busy-reply-threshold", "50")]);
    let shared = Arc::clone(&h.shared);
    let reply = beside(&shared, "redis.call('SET', KEYS[1], 1) while true do end", || {
        while !shared.keyspace.turn.has_written() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut other = Harness::beside(&shared);
        assert!(text(other.run("SCRIPT KILL")).starts_with("-UNKILLABLE "));
        shared.stop();
    });
    assert!(reply.starts_with("-ERR Script killed"), "{reply}");
}

#[test]
fn undeclared_keys_are_locked_when_they_are_met() {
    let mut h = harness();
    let script = "for i = 1, 50 do redis.call('INCR', 'k' .. i) end return redis.call('DBSIZE')";
    assert_eq!(eval(&mut h, script, &["k7"], &[]), ":50");
    assert_eq!(text(h.run("MGET k1 k50")), "*2 $1 1 $1 1");
}

/// Scripts with undeclared keys, transactions and commands on several keys, all at once: nothing
/// waits for ever, and no script is half applied.
#[test]
fn scripts_and_commands_meet_without_a_deadlock() {
    const ROUNDS: usize = 200;
    let h = harness();
    let script = "for i = 0, 9 do redis.call('INCRBY', 'n' .. (i * 7 + ARGV[1]) % 10, 1) end";
    let threads: Vec<_> = (0..4)
        .map(|n: usize| {
            let shared = Arc::clone(&h.shared);
            std::thread::spawn(move || {
                let mut h = Harness::beside(&shared);
                for round in 0..ROUNDS {
                    let first = ((n + round) % 10).to_string();
                    if n < 2 {
                        assert_eq!(eval(&mut h, script, &["n3"], &[&first]), "$-1");
                    } else {
                        let keys = (0..10).map(|i| format!("n{}", (i * 3 + round) % 10));
                        let reply = text(h.run_args(["MGET".to_owned()].into_iter().chain(keys)));
                        let values: Vec<&str> = reply.split(' ').skip(2).step_by(2).collect();
                        assert!(
                            values.iter().all(|v| *v == values[0]) || reply.contains("$-1"),
                            "{reply}"
                        );
                    }
                }
            })
        })
        .collect();
    let started_ms = clock::mono_ms();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert!(clock::mono_ms() - started_ms < 60_000);
    let mut h = h;
    assert_eq!(text(h.run("GET n5")), format!("$3 {}", 2 * ROUNDS));
}

#[test]
fn scripts_run_inside_transactions() {
    let mut h = harness();
    h.run("MULTI");
    h.run("SET a 1");
    h.run("EVAL \"return redis.call('INCR', KEYS[1]) + redis.call('INCR', 'undeclared')\" 1 a");
    h.run("GET a");
    assert_eq!(text(h.run("EXEC")), "*3 +OK :3 $1 2");
}

#[test]
fn the_database_of_a_script_is_its_own() {
    let mut h = harness();
    assert_eq!(eval(&mut h, "redis.call('SELECT', 3) redis.call('SET', 'a', 1)", &[], &[]), "$-1");
    assert_eq!(text(h.run("GET a")), "$-1");
    h.run("SELECT 3");
    assert_eq!(eval(&mut h, "return redis.call('GET', 'a')", &["a"], &[]), "$1 1");
}

#[test]
fn writes_of_scripts_are_refused_without_memory_unless_they_have_begun() {
    let mut h = harness();
    h.run_args(["SET", "large", &"x".repeat(1000)]);
    h.run("CONFIG SET maxmemory 1");
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.";
    assert!(eval(&mut h, "return redis.call('SET', 'a', 1)", &[], &[]).starts_with(oom));
    assert_eq!(
        eval(&mut h, "redis.call('DEL', 'a') return redis.call('SET', 'a', 1)", &[], &[]),
        "+OK"
    );
    assert_eq!(eval(&mut h, "return redis.call('GET', 'a')", &[], &[]), "$1 1");
    assert!(
        eval(&mut h, "#!lua\nreturn 1", &[], &[]).starts_with("-OOM allow-oom flag is not set")
    );
    assert_eq!(
        eval(&mut h, "#!lua flags=allow-oom\nreturn redis.call('SET', 'a', 2)", &[], &[]),
        "+OK"
    );
}

#[test]
fn scripts_are_known_by_digest_until_flushed() {
    let mut h = harness();
    let digest = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let evalsha = format!("EVALSHA {} 0", digest.to_uppercase());
    assert_eq!(text(h.run(&evalsha)), "-NOSCRIPT No matching script. Please use EVAL.");
    assert_eq!(text(h.run("EVAL 'return 1' 0")), ":1");
    assert_eq!(text(h.run(&evalsha)), ":1");
    assert_eq!(text(h.run(&format!("SCRIPT EXISTS {digest} x"))), "*2 :1 :0");
    assert_eq!(text(h.run("SCRIPT FLUSH")), "+OK");
    assert_eq!(text(h.run(&evalsha)), "-NOSCRIPT No matching script. Please use EVAL.");
}

const LIBRARY: &str = "#!lua name=l\nlocal n = 0\nredis.register_function('count', function(keys, args) n = n + 1 return n end)\nredis.register_function{function_name = 'get', callback = function(keys) return redis.call('GET', keys[1]) end, flags = {'no-writes'}, description = 'reads'}\nredis.register_function('bad', function() return redis.call('nosuch') end)";

#[test]
fn functions_are_loaded_called_dumped_and_restored() {
    let mut h = harness();
    assert_eq!(text(h.run_args(["FUNCTION", "LOAD", LIBRARY])), "$1 l");
    assert_eq!(text(h.run_args(["FUNCTION", "LOAD", LIBRARY])), "-ERR Library 'l' already exists");
    assert_eq!(text(h.run("FCALL count 0")), ":1");
    assert_eq!(text(h.run("FCALL count 0")), ":2");
    h.run("SET a v");
    assert_eq!(text(h.run("FCALL_RO get 1 a")), "$1 v");
    let refused = "-ERR Can not execute a script with write flag using *_ro command.";
    assert_eq!(text(h.run("FCALL_RO count 0")), refused);
    let unknown = "-ERR Unknown Redis command called from script script: bad, on @user_function:5.";
    assert_eq!(text(h.run("FCALL bad 0")), unknown);
    let dump = h.run("FUNCTION DUMP");
    let start = dump.iter().position(|b| *b == b'\n').expect("a head") + 1;
    let dump = dump[start..dump.len() - 2].to_vec();
    assert_eq!(text(h.run("FUNCTION DELETE l")), "+OK");
    assert_eq!(text(h.run("FCALL count 0")), "-ERR Function not found");
    assert_eq!(text(h.run_args([b"FUNCTION", &b"RESTORE"[..], &dump])), "+OK");
    assert_eq!(text(h.run("FCALL count 0")), ":1");
    let list = text(h.run("FUNCTION LIST LIBRARYNAME l*"));
    assert!(list.contains("$3 get $11 description $5 reads $5 flags *1 +no-writes"), "{list}");
}

#[test]
fn what_is_wrong_with_a_library_is_told() {
    let mut h = harness();
    for (code, reply) in [
        ("x", "-ERR Missing library metadata"),
        ("#!lua\nx", "-ERR Library name was not given"),
        ("#!lua name=l-2\nx", "-ERR Library names can only contain letters"),
        ("#!js name=l\nx", "-ERR Engine 'js' not found"),
        ("#!lua name=l\nlocal x = 1", "-ERR No functions registered"),
        (
            "#!lua name=l\nredis.call('PING')",
            "-ERR Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable 'call'",
        ),
        (
            "#!lua name=l\nredis.register_function('x', 1)",
            "-ERR Error registering functions: ERR second argument to redis.register_function must be a function",
        ),
        (
            "#!lua name=l\nredis.register_function{function_name = 'x'}",
            "-ERR Error registering functions: ERR redis.register_function must get a callback argument",
        ),
        (
            "#!lua name=l\nwhile true do end",
            "-ERR Error registering functions: ERR FUNCTION LOAD timeout",
        ),
    ] {
        let got = text(h.run_args(["FUNCTION", "LOAD", code]));
        assert!(got.starts_with(reply), "{code}\n  gives {got}");
    }
    assert_eq!(text(h.run("FUNCTION LIST")), "*0");
}

/// What is compiled is kept from run to run, and the functions around it are the same ones: nothing
/// that a script does may show in the next run, of itself or of another.
#[test]
fn a_run_leaves_nothing_behind() {
    let mut h = harness();
    let look =
        "return tostring(KEYS.n) .. tostring(ARGV[2]) .. tostring(pcall(function() return n end))";
    let before = eval(&mut h, look, &["k"], &["a"]);
    let counts = "local n = 0 local function add() n = n + 1 return n end add() return add()";
    let fields = "KEYS.n = (KEYS.n or 0) + 1 ARGV[2] = (ARGV[2] or 0) + 1 return {KEYS.n, ARGV[2]}";
    let waits = "local co = coroutine.wrap(function() local n = 0 while true do n = n + 1 \
                 coroutine.yield(n) end end) co() return co()";
    for (script, reply) in [(counts, ":2"), (fields, "*2 :1 :1"), (waits, ":2")] {
        for _ in 0..3 {
            assert_eq!(eval(&mut h, script, &["k"], &["a"]), reply, "{script}");
            assert_eq!(eval(&mut h, look, &["k"], &["a"]), before, "after {script}");
        }
    }
    let attempts = [
        "n = 1",
        "rawset(_G, 'n', 1)",
        "redis.n = 1",
        "redis.call = nil",
        "string.n = 1",
        "getmetatable('').__index = nil",
        "math.floor = nil",
        "cjson.n = 1",
        "KEYS.x.y = 1",
        "setmetatable(_G, {__index = function() return 1 end})",
    ];
    for script in attempts {
        for _ in 0..2 {
            let reply = eval(&mut h, script, &["k"], &["a"]);
            assert!(reply.starts_with("-ERR"), "{script} gives {reply}");
            assert_eq!(eval(&mut h, look, &["k"], &["a"]), before, "after {script}");
        }
    }
}

/// Such a script is not asked whether it goes on, but at its commands.
#[test]
fn a_script_without_loops_is_told_to_end_at_its_commands() {
    let mut h = harness();
    let script = "redis.call('PING') return redis.call('PING')";
    assert_eq!(eval(&mut h, script, &[], &[]), "+PONG");
    h.shared.keyspace.turn.stop();
    assert!(eval(&mut h, script, &[], &[]).starts_with("-ERR Script killed"));
    assert_eq!(
        eval(&mut h, "return 1", &[], &[]),
        "-ERR Script killed by user with SCRIPT KILL..."
    );
}

/// Values are made without the interpreter's limit as long as they surely fit, and with it beyond.
#[test]
fn what_takes_long_without_a_loop_is_told_to_end() {
    // A pattern of this kind asks at about two to the 39th places whether it fits.
    let args: [&str; 2] = [&"a".repeat(40), &("a-".repeat(39) + "b")];
    for script in [
        "return ARGV[1]:find(ARGV[2])",
        "return string.find(ARGV[1], ARGV[2])",
        "return ARGV[1]:\u{b}find(ARGV[2])",
        "return ARGV[1]:--\u{b}\nfind(ARGV[2])",
    ] {
        let mut h = harness_with(&[("busy-reply-threshold", "20")]);
        let turn = Arc::downgrade(&h.shared.keyspace.turn);
        h.shared.keyspace.turn.watch(Box::new(move |_| {
            turn.upgrade().into_iter().for_each(|turn| turn.stop());
        }));
        let reply = eval(&mut h, script, &[], &args);
        assert!(reply.starts_with("-ERR Script killed"), "{script}\n  gives {reply}");
    }
}

#[test]
fn a_script_that_hashes_much_is_killed() {
    let mut h = harness();
    h.run_args(["SET", "k", &"x".repeat(8 << 20)]);
    let hashes = "h(a) ".repeat(190);
    let script = format!("local h, a = redis.sha1hex, redis.call('GET', KEYS[1]) {hashes}");
    let shared = Arc::clone(&h.shared);
    let reply = beside(&shared, script.leak(), || {
        assert_eq!(text(h.run("SCRIPT KILL")), "+OK");
    });
    // One that was told and ended by itself names no line.
    assert!(reply.starts_with("-ERR Script killed"), "{reply}");
    assert!(reply.ends_with(", on @user_script:1."), "{reply}");
}

#[test]
fn the_text_of_an_error_is_trimmed_in_one_pass() {
    let mut h = harness();
    for (given, reply) in [("-MY text \t\n", "-MY text"), ("-", "-ERR"), ("  ", "-ERR")] {
        assert_eq!(eval(&mut h, "return redis.error_reply(ARGV[1])", &[], &[given]), reply);
    }
    let spaces = " ".repeat(1 << 20);
    let reply = eval(&mut h, "return redis.error_reply(ARGV[1]).err", &[], &[&(spaces + "x")]);
    assert!(reply.starts_with("$1048577 ") && reply.ends_with(" x"), "{} bytes", reply.len());
}

#[test]
fn memory_stays_bounded_whatever_is_given_and_answered() {
    let mut h = harness_with(&[("lua-memory-limit", "2mb")]);
    let large = "x".repeat(3 << 20);
    assert!(eval(&mut h, "return #ARGV[1]", &[], &[&large]).starts_with("-ERR"));
    assert_eq!(eval(&mut h, "return #ARGV[1]", &[], &["x"]), ":1");
    h.run_args(["SET", "large", &large]);
    assert!(eval(&mut h, "return #redis.call('GET', 'large')", &[], &[]).starts_with("-ERR"));
    assert_eq!(eval(&mut h, "return #redis.call('SET', 'a', 'b').ok", &[], &[]), ":2");
    let many: Vec<String> = (0..50_000).map(|n| n.to_string()).collect();
    let add = ["RPUSH", "many"].into_iter().chain(many.iter().map(String::as_str));
    h.run_args(add);
    for _ in 0..5 {
        let reply = eval(&mut h, "return #redis.call('LRANGE', 'many', 0, -1)", &[], &[]);
        assert!(reply == ":50000" || reply.starts_with("-ERR"), "{reply}");
    }
    assert_eq!(eval(&mut h, "return 1", &[], &[]), ":1");
}

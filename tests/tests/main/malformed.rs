//! Requests that are no requests: what is answered, and whether the connection closes.

use Then::{Closes, Waits};
use hypercache_tests::{Server, Wire};
use std::time::Duration;

/// What the server does after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Closes,
    Waits,
}

/// Bytes sent, all that is answered, and what then happens.
type Row = (&'static [u8], &'static [u8], Then);

const NOTHING: &[u8] = b"";
const PONG: &[u8] = b"+PONG\r\n";
const COUNT: &[u8] = b"-ERR Protocol error: invalid multibulk length\r\n";
const LENGTH: &[u8] = b"-ERR Protocol error: invalid bulk length\r\n";
const QUOTES: &[u8] = b"-ERR Protocol error: unbalanced quotes in request\r\n";
const NOAUTH: &[u8] = b"-NOAUTH Authentication required.\r\n";

/// Where Redis answers in the same way.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    (b"*1\r\n$4\r\nPI", NOTHING, Waits),
    (b"*1\r\n", NOTHING, Waits),
    (b"*", NOTHING, Waits),
    (b"$", NOTHING, Waits),
    (b"*2\r\n$3\r\nGET\r\n", NOTHING, Waits),
    (b"*-1\r\n*1\r\n$4\r\nPING\r\n", PONG, Waits),
    (b"*0\r\n*1\r\n$4\r\nPING\r\n", PONG, Waits),
    (b"*-10\r\nPING\r\n", PONG, Waits),
    (b"\r\n\r\nPING\r\n", PONG, Waits),
    (b"\n\nPING\n", PONG, Waits),
    (b"*-9223372036854775808\r\nPING\r\n", PONG, Waits),
    (b"*-99999999999999999999\r\nPING\r\n", COUNT, Closes),
    (b"*1000000000\r\n", NOTHING, Waits),
    (b"*2147483647\r\n", NOTHING, Waits),
    (b"*2147483648\r\n", COUNT, Closes),
    (b"*4294967296\r\n", COUNT, Closes),
    (b"*99999999999999999999\r\n", COUNT, Closes),
    (b"*1048577\r\n", NOTHING, Waits),
    (b"*1048576\r\n", NOTHING, Waits),
    (b"*1\r\n$1073741824\r\n", LENGTH, Closes),
    (b"*1\r\n$536870912\r\n", NOTHING, Waits),
    (b"*1\r\n$536870913\r\n", LENGTH, Closes),
    (b"*1\r\n$-1\r\n", LENGTH, Closes),
    (b"*1\r\n$-10\r\n", LENGTH, Closes),
    (b"*1\r\n$99999999999999999999\r\n", LENGTH, Closes),
    (b"*1\r\n$9223372036854775807\r\n", LENGTH, Closes),
    (b"*1\r\n$4294967300\r\nPING\r\n", LENGTH, Closes),
    (b"*1\r\n$0\r\n\r\nPING\r\n", b"-ERR unknown command '', with args beginning with: \r\n+PONG\r\n", Waits),
    (b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", b"$-1\r\n", Waits),
    (b"*a\r\n", COUNT, Closes),
    (b"*1a\r\n", COUNT, Closes),
    (b"* 1\r\n", COUNT, Closes),
    (b"*+1\r\n$4\r\nPING\r\n", COUNT, Closes),
    (b"*01\r\n$4\r\nPING\r\n", COUNT, Closes),
    (b"*\r\n", COUNT, Closes),
    (b"*1 \r\n", COUNT, Closes),
    (b"*-0\r\nPING\r\n", COUNT, Closes),
    (b"*1.0\r\n", COUNT, Closes),
    (b"*1\r\n$a\r\n", LENGTH, Closes),
    (b"*1\r\n$\r\n", LENGTH, Closes),
    (b"*1\r\n$4a\r\nPING\r\n", LENGTH, Closes),
    (b"*1\r\n$ 4\r\nPING\r\n", LENGTH, Closes),
    (b"*1\r\n$+4\r\nPING\r\n", LENGTH, Closes),
    (b"*1\r\n$04\r\nPING\r\n", LENGTH, Closes),
    (b"*1\r\n:4\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n", Closes),
    (b"*1\r\nPING\r\n", b"-ERR Protocol error: expected '$', got 'P'\r\n", Closes),
    (b"*1\r\n+PING\r\n", b"-ERR Protocol error: expected '$', got '+'\r\n", Closes),
    (b"*1\r\n*1\r\n$4\r\nPING\r\n", b"-ERR Protocol error: expected '$', got '*'\r\n", Closes),
    (b"*1\r\n\r\nPING\r\n", b"-ERR Protocol error: expected '$', got ' '\r\n", Closes),
    (b"*1\r\n\"\r\n", b"-ERR Protocol error: expected '$', got '\"'\r\n", Closes),
    (b"*1\n$4\nPING\n", NOTHING, Waits),
    (b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n", b"+PONG\r\n+PONG\r\n", Waits),
    (b"*1\r\n$4\r\nPINGPONG\r\nPING\r\n", b"+PONG\r\n-ERR unknown command 'NG', with args beginning with: \r\n+PONG\r\n", Waits),
    (b"*1\r\r\n$4\r\nPING\r\n", b"-ERR Protocol error: expected '$', got ' '\r\n", Closes),
    (b"*1\rX$4\rXPING\rX", PONG, Waits),
    (b"PING \"\r\n", QUOTES, Closes),
    (b"PING '\r\n", QUOTES, Closes),
    (b"PING \"a\"b\r\n", QUOTES, Closes),
    (b"PING 'a'b\r\n", QUOTES, Closes),
    (b"PING \"a\\\"\r\n", QUOTES, Closes),
    (b"PING a\"b\r\n", QUOTES, Closes),
    (b"PING \"\\x41\\x4\\n\\q\"\r\n", b"$5\r\nAx4\nq\r\n", Waits),
    (b"PING 'it\\'s'\r\n", b"$4\r\nit's\r\n", Waits),
    (b"PING \"\"\r\n", b"$0\r\n\r\n", Waits),
    (b"''\r\nPING\r\n", b"-ERR unknown command '', with args beginning with: \r\n+PONG\r\n", Waits),
    (b"\"\" a\r\n", b"-ERR unknown command '', with args beginning with: 'a' \r\n", Waits),
    (b"  PING  \r\n", PONG, Waits),
    (b"\tPING\ta\r\n", b"$1\r\na\r\n", Waits),
    (b"   \r\nPING\r\n", PONG, Waits),
    (b"PING\x0b\r\n", b"-ERR unknown command 'PING\x0b', with args beginning with: \r\n", Waits),
    (b"PING\r\rPING\r\n", b"$4\r\nPING\r\n", Waits),
    (b"PING\nPING\r\n", b"+PONG\r\n+PONG\r\n", Waits),
    (b"\xff\xfe\xfd\r\n", b"-ERR unknown command '\xff\xfe\xfd', with args beginning with: \r\n", Waits),
    (b"\x80\x81PING \xff\r\n", b"-ERR unknown command '\x80\x81PING', with args beginning with: '\xff' \r\n", Waits),
    (b"$4\r\nPING\r\n", b"-ERR unknown command '$4', with args beginning with: \r\n+PONG\r\n", Waits),
    (b"+PING\r\n", b"-ERR unknown command '+PING', with args beginning with: \r\n", Waits),
    (b"-1\r\n", b"-ERR unknown command '-1', with args beginning with: \r\n", Waits),
    (b":1\r\n", b"-ERR unknown command ':1', with args beginning with: \r\n", Waits),
    (b"%1\r\n", b"-ERR unknown command '%1', with args beginning with: \r\n", Waits),
    (b"_\r\n", b"-ERR unknown command '_', with args beginning with: \r\n", Waits),
    (b"PING \r\n\r\n", PONG, Waits),
    (b"*00000000000000000000000000000000000000001\r\n$4\r\nPING\r\n", COUNT, Closes),
    (b"POST / HTTP/1.1\r\n\r\n", NOTHING, Closes),
    (b"Host: x\r\nPING\r\n", NOTHING, Closes),
    (b"post\r\n", NOTHING, Closes),
    (b"*1\r\n$4\r\nPOST\r\n", NOTHING, Closes),
    (b"*1\r\n$5\r\nHOST:\r\n*1\r\n$4\r\nPING\r\n", NOTHING, Closes),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", NOTHING, Waits),
    (b"NOSUCH\r\n", b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n", Waits),
    (b"NOSUCH a 'b c' \"d\\n\"\r\n", b"-ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b c' 'd ' \r\n", Waits),
    (b"no such\r\n", b"-ERR unknown command 'no', with args beginning with: 'such' \r\n", Waits),
    (b"GET\r\n", b"-ERR wrong number of arguments for 'get' command\r\n", Waits),
    (b"GET a b\r\n", b"-ERR wrong number of arguments for 'get' command\r\n", Waits),
    (b"SET a\r\n", b"-ERR wrong number of arguments for 'set' command\r\n", Waits),
    (b"MSET a\r\n", b"-ERR wrong number of arguments for 'mset' command\r\n", Waits),
    (b"CONFIG\r\n", b"-ERR wrong number of arguments for 'config' command\r\n", Waits),
    (b"CONFIG GET\r\n", b"-ERR wrong number of arguments for 'config|get' command\r\n", Waits),
    (b"CONFIG nosuch\r\n", b"-ERR unknown subcommand 'nosuch'. Try CONFIG HELP.\r\n", Waits),
    (b"CLIENT nosuch a b\r\n", b"-ERR unknown subcommand 'nosuch'. Try CLIENT HELP.\r\n", Waits),
    (b"OBJECT\r\n", b"-ERR wrong number of arguments for 'object' command\r\n", Waits),
    (b"OBJECT x\r\n", b"-ERR unknown subcommand 'x'. Try OBJECT HELP.\r\n", Waits),
    (b"CONFIG|GET a\r\n", b"-ERR unknown command 'CONFIG|GET', with args beginning with: 'a' \r\n", Waits),
    (b"CLIENT\r\n", b"-ERR wrong number of arguments for 'client' command\r\n", Waits),
    (b"COMMAND nosuch\r\n", b"-ERR unknown subcommand 'nosuch'. Try COMMAND HELP.\r\n", Waits),
    (b"QUIT\r\nPING\r\n", b"+OK\r\n", Closes),
    (b"*1\r\n$4\r\nQUIT\r\n*a\r\n", b"+OK\r\n", Closes),
    (b"PING\r\n*1\r\n$a\r\nPING\r\n", b"+PONG\r\n-ERR Protocol error: invalid bulk length\r\n", Closes),
    (b"SET k v\r\nGET k\r\n*x\r\nGET k\r\n", b"+OK\r\n$1\r\nv\r\n-ERR Protocol error: invalid multibulk length\r\n", Closes),
    (b"MULTI\r\nNOSUCH\r\nEXEC\r\n", b"+OK\r\n-ERR unknown command 'NOSUCH', with args beginning with: \r\n-EXECABORT Transaction discarded because of previous errors.\r\n", Waits),
    (b"MULTI\r\nPING\r\n*x\r\n", b"+OK\r\n+QUEUED\r\n-ERR Protocol error: invalid multibulk length\r\n", Closes),
    (b"HELLO 4\r\n", b"-NOPROTO unsupported protocol version\r\n", Waits),
    (b"HELLO a\r\n", b"-ERR Protocol version is not an integer or out of range\r\n", Waits),
    (b"HELLO 3 AUTH a\r\n", b"-ERR Syntax error in HELLO option 'AUTH'\r\n", Waits),
    (b"HELLO 2 SETNAME\r\n", b"-ERR Syntax error in HELLO option 'SETNAME'\r\n", Waits),
    (b"HELLO 2 nosuch\r\n", b"-ERR Syntax error in HELLO option 'nosuch'\r\n", Waits),
    (b"HELLO 99999999999999999999\r\n",
     b"-ERR Protocol version is not an integer or out of range\r\n", Waits),
    (b"HELLO 2 SETNAME \"a b\"\r\n", b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n", Waits),
];

/// The same for clients that have not authenticated, with the password `secret`.
#[rustfmt::skip]
const LOCKED: &[Row] = &[
    (b"*11\r\n", b"-ERR Protocol error: unauthenticated multibulk length\r\n", Closes),
    (b"*10\r\n$4\r\n", NOTHING, Waits),
    (b"*1\r\n$16385\r\n", b"-ERR Protocol error: unauthenticated bulk length\r\n", Closes),
    (b"*1\r\n$16384\r\n", NOTHING, Waits),
    (b"*1\r\n$4\r\nPING\r\n", NOAUTH, Waits),
    (b"GET a\r\n", NOAUTH, Waits),
    (b"NOSUCH\r\n", b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n", Waits),
    (b"GET\r\n", b"-ERR wrong number of arguments for 'get' command\r\n", Waits),
    (b"AUTH x\r\n", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", Waits),
    (b"AUTH a b\r\n", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", Waits),
    (b"AUTH a b c\r\n", b"-ERR syntax error\r\n", Waits),
    (b"AUTH\r\n", b"-ERR wrong number of arguments for 'auth' command\r\n", Waits),
    (b"HELLO 2\r\n", b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n", Waits),
    (b"HELLO 2 AUTH default x\r\n", b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", Waits),
    (b"HELLO 3 AUTH default secret EXTRA\r\n", b"-ERR Syntax error in HELLO option 'EXTRA'\r\n", Waits),
    (b"QUIT\r\n", b"+OK\r\n", Closes),
    (b"MULTI\r\nEXEC\r\n", b"-NOAUTH Authentication required.\r\n-EXECABORT Transaction discarded because of: NOAUTH Authentication required.\r\n", Waits),
    (b"RESET\r\n", b"+RESET\r\n", Waits),
    (b"PING a b c d e f g h i j k l\r\n", NOAUTH, Waits),
    (b"*-1\r\nGET a\r\n", NOAUTH, Waits),
    (b"AUTH secret\r\n*11\r\n", b"+OK\r\n", Waits),
    (b"AUTH secret\r\n*1\r\n$16385\r\n", b"+OK\r\n", Waits),
    (b"SUBSCRIBE a\r\n", NOAUTH, Waits),
    (b"CLIENT ID\r\n", NOAUTH, Waits),
    (b"COMMAND COUNT x\r\n", b"-ERR wrong number of arguments for 'command|count' command\r\n", Waits),
];

/// Where Redis takes a zero byte for the end of its buffer, or throws away earlier replies.
#[rustfmt::skip]
const OURS: &[Row] = &[
    (b"*1\r\n\x00\r\n", b"-ERR Protocol error: expected '$', got '\x00'\r\n", Closes),
    (b"*1\r\n\xff\r\n", b"-ERR Protocol error: expected '$', got ' '\r\n", Closes),
    (b"PING \x00\r\n", b"$0\r\n\r\n", Waits),
    (b"\x00PING\r\nPING\r\n", b"-ERR unknown command '', with args beginning with: 'PING' \r\n+PONG\r\n", Waits),
    (b"*2\r\n$2\r\nNO\r\n$3\r\na\x00b\r\n", b"-ERR unknown command 'NO', with args beginning with: 'a\x00b' \r\n", Waits),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nSET a b\r\n",
     b"-ERR wrong number of arguments for 'get' command\r\n", Closes),
];

/// Sends `input`, and checks the answer and what follows it.
fn check(server: &Server, who: &str, input: &[u8], answer: &[u8], then: Then) {
    let mut wire = server.wire();
    // A server that closes early may not take all of it.
    let _closed = wire.try_send(input);
    let shown = input[..input.len().min(100)].escape_ascii();
    let (mut said, is_closed) = match then {
        Closes => wire.read_to_end(hypercache_tests::PATIENCE),
        Waits => (wire.read_bytes(answer.len()), false),
    };
    assert_eq!(is_closed, then == Closes, "{who}: {shown}: {}", said.escape_ascii());
    if then == Waits {
        let (more, is_closed) = wire.read_to_end(Duration::from_millis(10));
        assert!(!is_closed, "{who}: {shown}: closed");
        said.extend_from_slice(&more);
    }
    let (said, answer) = (said.escape_ascii().to_string(), answer.escape_ascii().to_string());
    assert_eq!(said, answer, "{who}: {shown}");
}

#[test]
fn malformed_requests_are_answered_as_redis_answers_them() {
    let (ours, redis) = (Server::start(&[]), Server::redis(&[]));
    for &(input, answer, then) in ROWS {
        check(&redis, "redis", input, answer, then);
        check(&ours, "hypercache", input, answer, then);
    }
    for &(input, answer, then) in OURS {
        check(&ours, "hypercache", input, answer, then);
    }
}

#[test]
fn clients_that_have_not_authenticated_may_send_little() {
    let password = ["--requirepass", "secret"];
    let (ours, redis) = (Server::start(&password), Server::redis(&password));
    for &(input, answer, then) in LOCKED {
        check(&redis, "redis", input, answer, then);
        check(&ours, "hypercache", input, answer, then);
    }
    let long = [b"PING ".as_slice(), &[b'a'; 20_000], b"\r\n"].concat();
    check(&redis, "redis", &long, NOAUTH, Waits);
    check(&ours, "hypercache", &long, NOAUTH, Waits);
}

/// Inputs of more than 64 KiB, at which lines end.
#[test]
fn long_lines_are_refused_as_redis_refuses_them() {
    let (ours, redis) = (Server::start(&[]), Server::redis(&[]));
    let of = |start: &str, len: usize, fill: &str| format!("{start}{}", fill.repeat(len));
    let inline = "-ERR Protocol error: too big inline request\r\n";
    let count = "-ERR Protocol error: too big mbulk count string\r\n";
    let length = "-ERR Protocol error: too big bulk count string\r\n";
    for (input, answer) in [
        (of("", 65537, "A"), inline),
        (of("PING ", 65537, "A"), inline),
        (of("*", 65537, "1"), count),
        (of("*1\r\n$", 65537, "1"), length),
    ] {
        check(&redis, "redis", input.as_bytes(), answer.as_bytes(), Closes);
        check(&ours, "hypercache", input.as_bytes(), answer.as_bytes(), Closes);
    }
    let value = "a".repeat(60_000);
    let name = "a".repeat(300);
    let shown = &name[..128];
    for (input, answer) in [
        (format!("PING {value}\r\n"), format!("$60000\r\n{value}\r\n")),
        (
            format!("NOSUCH {name} b\r\n"),
            format!("-ERR unknown command 'NOSUCH', with args beginning with: '{shown}' \r\n"),
        ),
        (
            format!("{name} b\r\n"),
            format!("-ERR unknown command '{shown}', with args beginning with: 'b' \r\n"),
        ),
        (
            format!("CONFIG {name}\r\n"),
            format!("-ERR unknown subcommand '{shown}'. Try CONFIG HELP.\r\n"),
        ),
    ] {
        check(&redis, "redis", input.as_bytes(), answer.as_bytes(), Waits);
        check(&ours, "hypercache", input.as_bytes(), answer.as_bytes(), Waits);
    }
}

/// The rest of a request may come at any time.
#[test]
fn truncated_requests_can_be_completed() {
    let server = Server::start(&[]);
    let request = b"*2\r\n$4\r\nPING\r\n$5\r\nhello\r\n";
    for cut in 1..request.len() {
        let mut wire: Wire = server.wire();
        wire.send(&request[..cut]);
        // Another request in between, so that the first part is read by itself.
        assert_eq!(server.wire().call(&["PING"]).0, PONG);
        wire.send(&request[cut..]);
        assert_eq!(wire.read().0, b"$5\r\nhello\r\n", "cut at {cut}");
    }
}

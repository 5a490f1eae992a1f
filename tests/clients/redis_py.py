"""What applications do with redis-py. Arguments: the server's port and its Unix socket."""

import signal
import sys
import threading
import time

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection


def check(is_true, what):
    if not is_true:
        raise AssertionError(what)


def equal(got, expected):
    check(got == expected, f"got {got!r}, expected {expected!r}")


def strings(r):
    equal(r.set("k", "v", ex=100), True)
    equal(r.get("k"), b"v")
    equal(r.set("k", "w", nx=True), None)
    equal(r.set("k", "w", xx=True, get=True), b"v")
    equal(r.getex("k", persist=True), b"w")
    equal(r.append("k", "!"), 2)
    equal(r.getrange("k", 0, -1), b"w!")
    equal(r.mset({"a": 1, "b": 2.5}), True)
    equal(r.mget("a", "none", "b"), [b"1", None, b"2.5"])
    equal(r.incrby("a", 4), 5)
    equal(r.incrbyfloat("b", 0.5), 3.0)
    equal(r.setbit("bits", 7, 1), 0)
    equal(r.bitcount("bits"), 1)
    equal(r.bitfield("bits").set("u8", 0, 200).get("u8", 0).execute(), [1, 200])
    binary = bytes(range(256))
    r.set(binary, binary)
    equal(r.get(binary), binary)
    try:
        r.incr("k")
        check(False, "INCR of text must fail")
    except redis.ResponseError as error:
        equal(str(error), "value is not an integer or out of range")


def keys(r):
    r.set("one", 1)
    equal(r.exists("one", "none"), 1)
    equal(r.type("one"), b"string")
    equal(r.rename("one", "two"), True)
    equal(r.copy("two", "three"), True)
    equal(r.delete("two", "three", "none"), 2)
    equal(r.unlink("none"), 0)
    check(r.randomkey() is None, "an empty database has no random key")
    r.mset({f"key:{i}": i for i in range(2000)})
    equal(len(set(r.scan_iter(match="key:*", count=100))), 2000)
    equal(len(r.keys("key:1?")), 10)
    equal(r.dbsize(), 2000)


def expiry(r):
    r.set("k", 1)
    equal(r.ttl("k"), -1)
    equal(r.ttl("none"), -2)
    equal(r.expire("k", 100), True)
    equal(r.expire("k", 50, gt=True), False)
    check(99 <= r.ttl("k") <= 100, "TTL")
    equal(r.persist("k"), True)
    equal(r.pexpire("k", 30), True)
    deadline = time.monotonic() + 5
    while r.exists("k"):
        check(time.monotonic() < deadline, "the key must go")


def pipelines(r):
    with r.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.set(f"p{i}", i)
        pipe.get("p7")
        equal(pipe.execute()[-1], b"7")
    with r.pipeline() as pipe:
        equal(pipe.set("t", 1).incr("t").execute(), [True, 2])
    with r.pipeline() as pipe:
        pipe.watch("t")
        value = int(pipe.get("t"))
        r.set("t", 10)
        pipe.multi()
        pipe.set("t", value + 1)
        try:
            pipe.execute()
            check(False, "the watched key changed")
        except redis.WatchError:
            pass

    def increase(pipe):
        value = int(pipe.get("t"))
        pipe.multi()
        pipe.set("t", value + 1)

    equal(r.transaction(increase, "t"), [True])
    equal(r.get("t"), b"11")


def messages(r):
    with r.pubsub() as subscriber:
        subscriber.subscribe("news")
        subscriber.psubscribe("n*")
        for _ in range(2):
            check(subscriber.get_message(timeout=5), "a confirmation")
        equal(r.publish("news", "hello"), 2)
        got = [subscriber.get_message(timeout=5) for _ in range(2)]
        equal(sorted(m["type"] for m in got), ["message", "pmessage"])
        equal({m["data"] for m in got}, {b"hello"})
        equal(r.pubsub_numsub("news"), [(b"news", 1)])
        subscriber.ping()
        subscriber.unsubscribe()
    arrived = threading.Event()
    subscriber = r.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe(**{"tasks": lambda message: arrived.set()})
    thread = subscriber.run_in_thread(sleep_time=0.01)
    r.publish("tasks", "go")
    check(arrived.wait(5), "the handler was not called")
    thread.stop()
    thread.join()
    subscriber.close()


def clients(r):
    with r.client() as one:
        equal(one.client_setname("smoke"), True)
        name = one.client_getname()
        check(name in ("smoke", b"smoke"), name)
        check(any(c["name"] == "smoke" for c in r.client_list()), "CLIENT LIST")
        number = one.client_id()
        equal(int(one.client_info()["id"]), number)
        equal(r.client_kill_filter(_id=number), 1)
    equal(r.client_pause(10), True)
    check(r.client_unpause() in (True, b"OK"), "CLIENT UNPAUSE")


def server(r):
    info = r.info()
    check(info["redis_version"] and info["connected_clients"] >= 1, "INFO")
    check("db0" in r.info("keyspace") or r.dbsize() == 0, "INFO keyspace")
    equal(r.config_get("maxclients"), {"maxclients": "10000"})
    equal(r.config_set("timeout", 100), True)
    equal(r.config_get("timeout"), {"timeout": "100"})
    equal(r.config_set("timeout", 0), True)
    check(len(r.time()) == 2, "TIME")
    check(r.command_count() > 50, "COMMAND COUNT")
    check("get" in r.command(), "COMMAND")
    equal(r.slowlog_get(), [])
    check(r.memory_usage("none") is None, "MEMORY USAGE")
    equal(r.echo("x"), b"x")
    check(r.ping(), "PING")


def text(port, protocol):
    r = redis.Redis(port=port, protocol=protocol, decode_responses=True)
    r.set("name", "Zoë")
    equal(r.get("name"), "Zoë")
    equal(list(r.scan_iter("na*")), ["name"])
    equal(r.pubsub_channels(), [])
    r.close()


def caching(port):
    """A client that keeps copies sees what others write, and does not ask for what it has."""
    # The library offers this only with a server that gives itself this name.
    with redis.Redis(port=port, protocol=3) as r:
        CacheProxyConnection.DEFAULT_SERVER_NAME = r.execute_command("HELLO", 3)[b"server"].decode()
    cached = redis.Redis(port=port, protocol=3, cache_config=CacheConfig())
    with cached as r, redis.Redis(port=port) as other:
        other.set("k", 1)
        for n in (1, 2, 3):
            deadline = time.monotonic() + 20
            while r.get("k") != b"%d" % n:
                check(time.monotonic() < deadline, "the copy of a key stays as it was")
            asked = other.info("stats")["keyspace_hits"]
            equal([r.get("k") for _ in range(50)], [b"%d" % n] * 50)
            equal(other.info("stats")["keyspace_hits"], asked)
            other.set("k", n + 1)


def main():
    signal.alarm(60)
    port, socket = int(sys.argv[1]), sys.argv[2]
    for protocol in (2, 3):
        for part in (strings, keys, expiry, pipelines, messages, clients, server):
            with redis.Redis(port=port, protocol=protocol) as r:
                r.flushall()
                try:
                    part(r)
                except Exception:
                    print(f"in {part.__name__}, protocol {protocol}:", file=sys.stderr)
                    raise
        text(port, protocol)
        with redis.Redis(unix_socket_path=socket, db=2, protocol=protocol) as r:
            equal(r.set("here", 1), True)
            equal(r.get("here"), b"1")
            check(r.client_info()["db"] in (2, "2"), "SELECT")
    with redis.Redis.from_url(f"redis://127.0.0.1:{port}/1", health_check_interval=1) as r:
        equal(r.get("here"), None)
    caching(port)


main()

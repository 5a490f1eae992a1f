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
    # The pool does not know yet that this connection is gone.
    r.connection_pool.disconnect()
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
    # Whatever took long on a machine that is busy.
    r.config_set("slowlog-log-slower-than", -1)
    r.slowlog_reset()
    equal(r.slowlog_get(), [])
    r.config_set("slowlog-log-slower-than", 10000)
    check(r.memory_usage("none") is None, "MEMORY USAGE")
    equal(r.echo("x"), b"x")
    check(r.ping(), "PING")


def queue(r):
    """A work queue: tasks move to a list of their worker, and come back later if they fail."""
    r.rpush("queue", "a", "b", "c")
    equal(r.brpoplpush("queue", "worker:1", timeout=1), b"c")
    equal(r.blmove("queue", "worker:1", 1, "LEFT", "LEFT"), b"a")
    # One is done, one is to be tried again in a moment.
    with r.pipeline() as pipe:
        pipe.lrem("worker:1", 1, "c").lrem("worker:1", 1, "a")
        pipe.zadd("later", {"a": time.time() + 0.05})
        equal(pipe.execute(), [1, 1, 1])
    deadline = time.monotonic() + 5
    while not (due := r.zrangebyscore("later", 0, time.time(), start=0, num=10)):
        check(time.monotonic() < deadline, "the task becomes due")
    with r.pipeline() as pipe:
        equal(pipe.zrem("later", *due).rpush("queue", *due).execute(), [1, 2])
    equal(r.lrange("queue", 0, -1), [b"b", b"a"])
    arrived = []
    worker = threading.Thread(target=lambda: arrived.append(r.blpop("new", timeout=5)))
    worker.start()
    while r.info("clients")["blocked_clients"] == 0:
        check(time.monotonic() < deadline, "the worker waits")
    r.lpush("new", "task")
    worker.join()
    check(arrived[0] in ((b"new", b"task"), [b"new", b"task"]), arrived)


def cache(r):
    """What a web framework's cache does: keys with a prefix and a version, many at a time, with a TTL."""

    def name(key, version=1):
        return f"site:{version}:{key}"

    with r.pipeline(transaction=False) as pipe:
        for i in range(300):
            pipe.set(name(f"page{i}"), i, ex=60)
        check(all(pipe.execute()), "set_many")
    got = r.mget([name("page1"), name("none"), name("page299")])
    equal(got, [b"1", None, b"299"])
    check(59 <= r.ttl(name("page1")) <= 60, "TTL")
    equal(r.set(name("page1"), "x", nx=True), None)
    # A counter exists or is an error; its TTL stays.
    equal(r.exists(name("hits")), 0)
    r.set(name("hits"), 1, ex=100)
    equal(r.incr(name("hits"), 4), 5)
    check(99 <= r.ttl(name("hits")) <= 100, "TTL of a counter")
    equal(r.touch(name("hits")), 1)
    equal(r.rename(name("page2"), name("page2", 2)), True)
    equal(r.get(name("page2", 2)), b"2")
    found = list(r.scan_iter(match=name("page*"), count=50))
    equal(len(set(found)), 299)
    equal(r.unlink(*found), 299)
    equal(sorted(r.keys("site:*")), [b"site:1:hits", b"site:2:page2"])


def limits(r):
    """A rate limiter as a script, and the command that does the same."""
    limiter = r.register_script(
        "local n = redis.call('INCR', KEYS[1])"
        " if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end"
        " return {n <= tonumber(ARGV[1]) and 1 or 0, n}"
    )
    equal([limiter(["calls"], [2, 60000]) for _ in range(3)], [[1, 1], [1, 2], [0, 3]])
    check(59000 < r.pttl("calls") <= 60000, "the window ends")
    r.script_flush()
    equal(limiter(["calls"], [9, 60000]), [1, 4])
    step = ("INCREX", "window", "UBOUND", 2, "PX", 60000, "ENX")
    equal([r.execute_command(*step) for _ in range(3)], [[1, 1], [2, 1], [2, 0]])
    check(0 < r.pttl("window") <= 60000, "the window of INCREX ends")


def locks(r):
    """A lock with a token, that only who has it gives back."""
    lock = r.lock("lock", timeout=10)
    check(lock.acquire(blocking=False), "the lock is free")
    check(not r.lock("lock", timeout=10).acquire(blocking=False), "the lock is taken")
    check(lock.extend(10), "the lock is kept")
    lock.release()
    r.set("token", "mine", nx=True, px=10000)
    equal(r.execute_command("DELIFEQ", "token", "yours"), 0)
    equal(r.execute_command("SET", "token", "next", "IFEQ", "mine"), True)
    equal(r.execute_command("DELEX", "token", "IFDEQ", r.execute_command("DIGEST", "token")), 1)


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
        parts = (strings, keys, expiry, pipelines, messages, clients, server, queue, cache, limits, locks)
        for part in parts:
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

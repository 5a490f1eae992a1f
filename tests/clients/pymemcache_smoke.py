"""What users of pymemcache do, against the port given."""

import sys

from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheClientError, MemcacheIllegalInputError
from pymemcache.serde import pickle_serde

address = ("127.0.0.1", int(sys.argv[1]))
client = Client(address, serde=pickle_serde)

assert client.version().startswith(b"1.")
assert client.set("text", "Grüße", noreply=False)
assert client.get("text") == "Grüße", "flags tell the type"
assert client.set("number", 41) and client.get("number") == 41
assert client.set("list", [1, {"a": None}]) and client.get("list") == [1, {"a": None}]
assert client.set_many({f"k{n}": n for n in range(300)}) == []
assert client.get_many([f"k{n}" for n in range(300)] + ["none"]) == {f"k{n}": n for n in range(300)}

plain = Client(address, default_noreply=False)
assert plain.set("bytes", b"\x00\r\n\xff" * 50_000) and plain.get("bytes") == b"\x00\r\n\xff" * 50_000
assert plain.get("none", "default") == "default"
assert plain.add("new", b"1") and not plain.add("new", b"2")
assert plain.replace("new", b"2") and not plain.replace("none", b"2")
assert plain.append("new", b"3") and plain.prepend("new", b"1") and plain.get("new") == b"123"
assert plain.incr("new", 7) == 130 and plain.decr("new", 1000) == 0
assert plain.incr("none", 1) is None
assert plain.touch("new", 60) and not plain.touch("none", 60)
assert plain.get("new") == b"0  ", "a value gets no shorter by counting"
value, unique = plain.gets("new")
assert plain.cas("new", b"x", unique) and not plain.cas("new", b"y", unique)
assert plain.cas("none", b"x", unique) is None
assert plain.delete("new") and not plain.delete("new")
assert plain.set("expired", b"x", expire=-1) and plain.get("expired") is None
try:
    plain.incr("bytes", 1)
    raise SystemExit("a value that is no number was counted")
except MemcacheClientError as error:
    assert b"non-numeric" in error.args[0]
try:
    plain.get("a key with spaces")
    raise SystemExit("a key with spaces was sent")
except MemcacheIllegalInputError:
    pass
try:
    plain.set("large", b"x" * (2 << 20))
    raise SystemExit("a value above the limit was stored")
except Exception as error:
    assert "too large" in str(error), error
stats = plain.stats()
assert stats[b"curr_items"] > 300 and stats[b"get_misses"] >= 1, stats
assert plain.flush_all() and plain.get("text") is None

pool = PooledClient(address, max_pool_size=4)
pool.set("a", b"1", noreply=False)
assert pool.get("a") == b"1"
ring = HashClient([address])
ring.set("b", b"2", noreply=False)
assert ring.get("b") == b"2"
client.quit()

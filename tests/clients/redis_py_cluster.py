"""What users of redis-py's cluster client do, against the port given."""

import sys

import redis
from redis.cluster import RedisCluster

port = int(sys.argv[1])
for protocol in (2, 3):
    client = RedisCluster(host="127.0.0.1", port=port, protocol=protocol)
    client.flushall()
    assert len(client.get_nodes()) == 1 and client.get_primaries()[0].port == port
    for n in range(300):
        assert client.set(f"key:{n}", n)
    assert [client.get(f"key:{n}") for n in range(300)] == [b"%d" % n for n in range(300)]
    assert client.dbsize() == 300 and len(client.keys("key:*")) == 300
    assert len(set(client.scan_iter(count=50))) == 300

    # Keys of one slot together, and of several by what the client splits.
    assert client.mset({"{t}a": 1, "{t}b": 2}) and client.mget("{t}a", "{t}b") == [b"1", b"2"]
    assert client.mget_nonatomic([f"key:{n}" for n in range(9)]) == [b"%d" % n for n in range(9)]
    try:
        client.get_primaries()[0].redis_connection.mget("a", "b")
        raise SystemExit("keys of several slots were answered")
    except redis.ResponseError as error:
        assert "hash to the same slot" in str(error), error

    pipe = client.pipeline()
    for n in range(100):
        pipe.incr(f"count:{n}")
    assert pipe.execute() == [1] * 100
    slot = client.keyslot("{t}")
    assert client.cluster_keyslot("{t}") == slot
    assert client.cluster_countkeysinslot(slot) == 2
    node = client.get_primaries()[0]
    keys = node.redis_connection.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10)
    assert sorted(keys) == [b"{t}a", b"{t}b"], keys

    script = client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    assert script(keys=["{t}a"], args=[41]) == 42

    subscriber = client.pubsub()
    subscriber.ssubscribe("{t}channel")
    assert subscriber.get_sharded_message(timeout=5)["type"] == "ssubscribe"
    assert client.spublish("{t}channel", "hello") == 1
    message = subscriber.get_sharded_message(timeout=5)
    assert message["type"] == "smessage" and message["data"] == b"hello", message
    subscriber.close()

    shards = client.cluster_shards()
    assert len(shards) == 1, shards
    info = client.cluster_info()
    assert info["cluster_state"] == "ok", info
    assert client.cluster_myid(node).decode() in str(client.cluster_nodes())
    client.close()

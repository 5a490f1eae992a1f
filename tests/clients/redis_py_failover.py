"""redis-py's cluster client while a node is killed: writes until its input ends, then reads all back.

Arguments: the ports. A call that fails is made again, as an application would.
"""

import sys
import threading
import time

import redis
from redis.cluster import ClusterNode, RedisCluster

nodes = [ClusterNode("127.0.0.1", int(port)) for port in sys.argv[1:]]
client = RedisCluster(startup_nodes=nodes, socket_timeout=2, socket_connect_timeout=2)
failures = 0


def until_it_works(call):
    global failures
    deadline = time.monotonic() + 20
    while True:
        try:
            return call()
        except redis.RedisError as error:
            failures += 1
            if time.monotonic() > deadline:
                raise SystemExit(f"still failing after 20 s: {error!r}")
            time.sleep(0.05)


is_over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
count = 0
while not is_over.is_set():
    until_it_works(lambda: client.set(f"py:{count}", count))
    if count == 100:
        print("writing", flush=True)
    count += 1
    time.sleep(0.001)
for n in range(count):
    value = until_it_works(lambda: client.get(f"py:{n}"))
    if value != b"%d" % n:
        raise SystemExit(f"py:{n} is {value!r}")
print(f"{count} writes, {failures} failures, {len(client.get_nodes())} nodes known")
client.close()

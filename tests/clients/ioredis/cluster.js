// What users of ioredis' cluster client do, against the port given.
"use strict";

const assert = require("node:assert");
const Redis = require("ioredis");

async function main(port) {
  const cluster = new Redis.Cluster([{ host: "127.0.0.1", port }]);
  await cluster.flushall();
  for (let n = 0; n < 100; n++) await cluster.set(`key:${n}`, n);
  assert.strictEqual(await cluster.get("key:42"), "42");
  assert.strictEqual(cluster.nodes("master").length, 1);
  await cluster.mset("{t}a", 1, "{t}b", 2);
  assert.deepStrictEqual(await cluster.mget("{t}a", "{t}b"), ["1", "2"]);
  await assert.rejects(cluster.mget("a", "b"), /slot/);
  const replies = await cluster.pipeline().incr("{t}a").get("{t}b").exec();
  assert.deepStrictEqual(replies, [[null, 2], [null, "2"]]);
  cluster.defineCommand("double", { numberOfKeys: 1, lua: "return redis.call('get', KEYS[1]) * 2" });
  assert.strictEqual(await cluster.double("{t}b"), 4);
  cluster.disconnect();
}

main(Number(process.argv[2])).catch((error) => {
  console.error(error);
  process.exit(1);
});

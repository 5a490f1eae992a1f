// What applications do with ioredis, against the server on the port given as the argument.
"use strict";
const assert = require("node:assert");
const Redis = require("ioredis");

const port = Number(process.argv[2]);

async function strings(redis) {
  assert.equal(await redis.set("k", "v", "EX", 100), "OK");
  assert.equal(await redis.get("k"), "v");
  assert.ok((await redis.ttl("k")) > 90);
  assert.equal(await redis.set("k", "w", "NX"), null);
  assert.equal(await redis.incrby("n", 5), 5);
  assert.deepEqual(await redis.mget("k", "none"), ["v", null]);
  const bytes = Buffer.from([0, 255, 13, 10]);
  await redis.set("bytes", bytes);
  assert.deepEqual(await redis.getBuffer("bytes"), bytes);
  await assert.rejects(redis.incr("k"), /not an integer/);
}

async function pipelines(redis) {
  const results = await redis.pipeline().set("p", 1).incr("p").get("p").exec();
  assert.deepEqual(results.map(([error]) => error), [null, null, null]);
  assert.deepEqual(results.map(([, value]) => value), ["OK", 2, "2"]);
  const many = redis.pipeline();
  for (let i = 0; i < 5000; i++) many.set(`many:${i}`, i);
  assert.equal((await many.exec()).length, 5000);
}

async function transactions(redis) {
  const results = await redis.multi().set("t", "1").incr("t").exec();
  assert.deepEqual(results, [[null, "OK"], [null, 2]]);
  await redis.watch("t");
  await new Redis(port, { lazyConnect: true }).set("t", "other").catch(assert.fail);
  assert.equal(await redis.multi().incr("t").exec(), null);
}

async function messages(redis) {
  const subscriber = new Redis(port);
  const got = new Promise((resolve) => {
    subscriber.on("message", (channel, text) => resolve([channel, text]));
  });
  assert.equal(await subscriber.subscribe("news"), 1);
  assert.equal(await redis.publish("news", "hello"), 1);
  assert.deepEqual(await got, ["news", "hello"]);
  await subscriber.quit();
}

async function scans(redis) {
  const seen = new Set();
  for await (const keys of redis.scanStream({ match: "many:*", count: 500 })) {
    keys.forEach((key) => seen.add(key));
  }
  assert.equal(seen.size, 5000);
}

async function scripts(redis) {
  // Rate limits, as applications write them.
  redis.defineCommand("limited", {
    numberOfKeys: 1,
    lua: `local n = redis.call("INCR", KEYS[1])
          if n == 1 then redis.call("PEXPIRE", KEYS[1], ARGV[2]) end
          return { n, n > tonumber(ARGV[1]) and 1 or 0 }`,
  });
  assert.deepEqual(await redis.limited("calls", 1, 60000), [1, 0]);
  await redis.script("FLUSH");
  assert.deepEqual(await redis.limited("calls", 1, 60000), [2, 1]);
  const results = await redis.pipeline().limited("calls", 5, 1).pttl("calls").exec();
  assert.deepEqual(results[0], [null, [3, 0]]);
  assert.ok(results[1][1] > 50000);
}

async function queues(redis) {
  const worker = redis.duplicate();
  const taken = worker.blmove("jobs", "busy", "RIGHT", "LEFT", 5);
  await redis.lpush("jobs", "one");
  assert.equal(await taken, "one");
  const results = await redis.multi().lrem("busy", 1, "one").zadd("later", 1, "one").exec();
  assert.deepEqual(results, [[null, 1], [null, 1]]);
  assert.deepEqual(await redis.zpopmin("later"), ["one", "1"]);
  assert.deepEqual(await worker.blpop("jobs", "other", 0.05), null);
  worker.disconnect();
}

async function streams(redis) {
  await redis.xgroup("CREATE", "events", "group", "$", "MKSTREAM");
  const reader = redis.duplicate();
  const read = reader.xreadgroup(
    "GROUP", "group", "me", "COUNT", 10, "BLOCK", 5000, "STREAMS", "events", ">");
  const id = await redis.xadd("events", "MAXLEN", "~", 1000, "*", "kind", "login");
  assert.deepEqual(await read, [["events", [[id, ["kind", "login"]]]]]);
  assert.equal((await redis.xpending("events", "group"))[0], 1);
  assert.equal(await redis.xack("events", "group", id), 1);
  assert.deepEqual(await redis.xrange("events", "-", "+"), [[id, ["kind", "login"]]]);
  reader.disconnect();
}

async function patterns(redis) {
  const subscriber = redis.duplicate();
  const got = new Promise((resolve) => subscriber.on("pmessage", (...all) => resolve(all)));
  assert.equal(await subscriber.psubscribe("room:*"), 1);
  assert.equal(await redis.publish("room:1", "hello"), 1);
  assert.deepEqual(await got, ["room:*", "room:1", "hello"]);
  await subscriber.quit();
}

async function server(redis) {
  assert.match(await redis.info(), /redis_version:/);
  assert.deepEqual(await redis.config("GET", "maxclients"), ["maxclients", "10000"]);
  assert.equal(await redis.client("SETNAME", "smoke"), "OK");
  assert.match(await redis.client("LIST"), /name=smoke/);
  const other = new Redis(port, { db: 3, connectionName: "other" });
  assert.equal(await other.get("k"), null);
  assert.equal(await other.client("GETNAME"), "other");
  other.disconnect();
}

async function main() {
  const redis = new Redis(port);
  const parts = [strings, pipelines, transactions, messages, scans, scripts, queues, streams, patterns, server];
  for (const part of parts) {
    await part(redis).catch((error) => {
      error.message = `${part.name}: ${error.message}`;
      throw error;
    });
  }
  await redis.quit();
}

setTimeout(() => assert.fail("it takes too long"), 60_000).unref();
main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);

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
  for (const part of [strings, pipelines, transactions, messages, scans, server]) {
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

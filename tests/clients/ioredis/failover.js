// ioredis' cluster client while a node is killed: writes until its input ends, then reads all back.
// Arguments: the ports. A call that fails is made again, as an application would.
"use strict";

const Redis = require("ioredis");

const ports = process.argv.slice(2).map(Number);
const cluster = new Redis.Cluster(ports.map((port) => ({ host: "127.0.0.1", port })));
// Each connection that breaks says so; what matters is whether calls succeed.
cluster.on("error", () => {});
let failures = 0;

async function untilItWorks(call) {
  const deadline = Date.now() + 20000;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      failures += 1;
      if (Date.now() > deadline) throw error;
      await new Promise((done) => setTimeout(done, 50));
    }
  }
}

async function main() {
  let isOver = false;
  process.stdin.on("end", () => (isOver = true)).resume();
  let count = 0;
  for (; !isOver; count++) {
    await untilItWorks(() => cluster.set(`js:${count}`, count));
    if (count === 100) console.log("writing");
    await new Promise((done) => setTimeout(done, 1));
  }
  for (let n = 0; n < count; n++) {
    const value = await untilItWorks(() => cluster.get(`js:${n}`));
    if (value !== String(n)) throw new Error(`js:${n} is ${value}`);
  }
  console.log(`${count} writes, ${failures} failures, ${cluster.nodes().length} nodes known`);
  cluster.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

// The verbs of Replicate's JavaScript client, one a call: node clients.mjs URL VERB
import assert from "node:assert/strict";
import Replicate from "replicate";

const [url, verb] = process.argv.slice(2);
const replicate = new Replicate({ auth: "r8_test", baseUrl: `${url}/v1` });

const model = "bytedance/seedance-1-pro";
const community = "cuuupid/cogvideox-5b";
const input = { prompt: "x", resolution: "480p", duration: 2 };
const png = [
  `iVBORw0KGgoAAAANSUhEUgAAAUAAAAC0CAIAAABqhmJGAAABk0lEQVR42u3TAQkAAAzDsEm4xEu71OsYBKKg0MweUCoSgIEBAwMGBgMDBgYMDB`,
  `gYDAwYGDAwGBgwMGBgwMBgYMDAgIEBA4OBAQMDBgYDAwYGDAwYGAwMGBgwMGBgMDBgYMDAYGDAwICBAQODgQEDAwYGA6sABgYMDBgYDAwYGDAw`,
  `YGAwMGBgwMBgYMDAgIEBA4OBAQMDBgYMDAYGDAwYGAwMGBgwMGBgMDBgYMDAgIHBwICBAQODgQEDAwYGDAwGBgwMGBgMDBgYMDBgYDAwYGDAwI`,
  `CBwcCAgQEDg4EBAwMGBgwMBgYMDBgYMDAYGDAwYGAwMGBgwMCAgcHAgIEBAwMGBgMDBgYMDAYGDAwYGDAwGBgwMGBgMDBgYMDAgIHBwICBAQMD`,
  `BgYDAwYGDAwGBgwMGBgwMBgYMDBgYMDAYGDAwICBwcCAgQEDAwYGAwMGBgwMBlYBDAwYGDAwGBgwMGBgwMBgYMDAgIHBwICBAQMDBgYDAwYGDA`,
  `wYGAwMGBgwMBgYMDBgYMDAYGDAwICBAQNDtwc8Xx4CY22ISwAAAABJRU5ErkJggg==`,
].join("");
const image = new Blob([Buffer.from(png, "base64")], { type: "image/png" });

const isOutput = (output) => assert.ok(String(output).startsWith(`${url}/files/`), String(output));
const tooShort = { mode: "block", timeout: 1 };

const verbs = {
  "run": async () => isOutput(await replicate.run(model, { input, wait: tooShort })),
  "run-with-version": async () => {
    const { id } = (await replicate.models.get(...model.split("/"))).latest_version;
    isOutput(await replicate.run(`${model}:${id}`, { input, wait: tooShort }));
  },
  "run-community": async () => {
    const { id } = (await replicate.models.get(...community.split("/"))).latest_version;
    isOutput(await replicate.run(`${community}:${id}`, { input: { prompt: "x" } }));
  },
  "run-polling": async () => {
    const seen = [];
    isOutput(await replicate.run(model, { input, wait: { mode: "poll", interval: 100 } }, (now) => seen.push(now.status)));
    assert.deepEqual([...new Set(seen)], ["starting", "processing", "succeeded"]);
  },
  "run-failing": async () => {
    const wrong = { prompt: "x", duration: 10, resolution: "1080p" };
    const failing = replicate.run("minimax/hailuo-2.3", { input: wrong, wait: tooShort });
    await assert.rejects(failing, /1080p resolution only supports/);
  },
  "predictions": async () => {
    const created = await replicate.predictions.create({ model, input });
    assert.equal(created.status, "starting");
    const done = await replicate.wait(created, { interval: 100 });
    isOutput(done.output);
    assert.equal((await replicate.predictions.get(created.id)).output, done.output);
    for await (const page of replicate.paginate(replicate.predictions.list)) {
      if (page.some((found) => found.id === created.id)) return;
    }
    assert.fail("not in the list");
  },
  "cancel": async () => {
    const created = await replicate.predictions.create({ model, input });
    assert.equal((await replicate.predictions.cancel(created.id)).status, "canceled");
  },
  "models": async () => {
    const [owner, name] = community.split("/");
    const { id } = (await replicate.models.get(owner, name)).latest_version;
    assert.equal((await replicate.models.versions.list(owner, name)).results[0].id, id);
    assert.equal((await replicate.models.versions.get(owner, name, id)).id, id);
    assert.ok((await replicate.models.list()).results.some((found) => found.name === name));
  },
  "files": async () => {
    const made = await replicate.files.create(image, { scene: 3 });
    assert.deepEqual((await replicate.files.get(made.id)).metadata, { scene: 3 });
    assert.ok((await replicate.files.list()).results.some((found) => found.id === made.id));
    assert.ok(await replicate.files.delete(made.id));
  },
  "file-input": async () => {
    const given = { prompt: "x", image, resolution: "480p" };
    isOutput(await replicate.run("wan-video/wan-2.5-i2v", { input: given, wait: tooShort }));
  },
  "account": async () => {
    assert.equal((await replicate.accounts.current()).username, "local");
    assert.match((await replicate.webhooks.default.secret.get()).key, /^whsec_/);
  },
};

await verbs[verb]();
console.log(JSON.stringify({ verb }));

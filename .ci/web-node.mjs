// sterna.wasm in node against `sterna serve` and `sterna logits` for the same files: fingerprints,
// bits of logits, texts and probabilities of seeds; then files that are not models.
// Arguments: the folder of the page, the address of the server, the program, the models.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';

const [folder, address, program, ...models] = process.argv.slice(2);
const { Sterna, SternaError } = await import(resolve(folder, 'sterna.js'));
const module = await WebAssembly.compile(readFileSync(join(folder, 'sterna.wasm')));
const scratch = mkdtempSync(join(tmpdir(), 'sterna-'));

// Writes bytes in parts, as a stream gives them, and opens them.
async function opened(bytes, sha256 = null) {
  const sterna = await Sterna.start(module);
  const place = sterna.room(bytes.length);
  for (let at = 0; at < bytes.length; at += 60000) {
    sterna.write(place, at, bytes.subarray(at, at + 60000));
  }
  return { sterna, facts: sterna.open({ name: 'model', bytes: bytes.length, sha256 }) };
}

async function ask(path, body) {
  const options = body && {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body),
  };
  const response = await fetch(address + path, options);
  assert.ok(response.ok, `${path}: ${response.status} ${await response.clone().text()}`);
  return response;
}

function answer(sterna, request) {
  sterna.begin(request);
  const whole = { text: '', tokens: [], finish: null };
  for (;;) {
    const { event, isLast } = sterna.step();
    const [choice] = event.choices ?? [];
    whole.text += choice?.delta.content ?? '';
    whole.tokens.push(...(choice?.logprobs?.content ?? []));
    if (isLast) return { ...whole, finish: choice.finish_reason };
  }
}

// The last row of the logits that the native program computes.
function nativeLogits(model, ids) {
  const file = join(scratch, 'logits.safetensors');
  const args = ['logits', model, '--ids', ids.join(','), '--out', file];
  execFileSync(program, args, { stdio: 'pipe' });
  const bytes = readFileSync(file);
  const header = Number(bytes.readBigUInt64LE(0));
  const { shape } = JSON.parse(bytes.subarray(8, 8 + header).toString()).logits;
  rmSync(file);
  return bytes.subarray(bytes.length - 4 * shape[1]);
}

async function compare(model, card) {
  const file = await ask(`local/models/${encodeURIComponent(card.id)}.sterna`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  assert.ok(Buffer.compare(bytes, readFileSync(model)) === 0, 'the server sends another file');
  const { sterna, facts } = await opened(bytes);
  assert.equal(facts.fingerprint, card.system_fingerprint);
  const prompt = 'Once there was a little';
  const { tokens: ids } = await (await ask('tokenize', { model: card.id, prompt })).json();
  assert.deepEqual(sterna.encode(prompt, true), ids);
  const logits = new Uint8Array(sterna.logits(ids).buffer);
  assert.ok(Buffer.compare(logits, nativeLogits(model, ids)) === 0, 'logits have other bits');
  for (let seed = 1; seed <= 3; seed += 1) {
    const shared = { seed, max_tokens: 12, temperature: 0.9 };
    const body = { ...shared, model: card.id, prompt, logprobs: 4 };
    const { choices: [expected] } = await (await ask('v1/completions', body)).json();
    const found = answer(sterna, { ...shared, prompt, top_logprobs: 4 });
    assert.equal(found.text, expected.text);
    assert.equal(found.finish, expected.finish_reason);
    // Completions list the token that ends a text, too.
    const logprobs = expected.logprobs.token_logprobs.slice(0, found.tokens.length);
    assert.deepEqual(found.tokens.map(({ logprob }) => logprob), logprobs);
    assert.ok(found.tokens.length > 0 || found.text === '');
    assert.equal(answer(sterna, { ...shared, prompt }).text, expected.text);
  }
  if (facts.capabilities.includes('chat')) {
    const messages = [{ role: 'user', content: 'Hello there' }];
    const shared = { messages, seed: 5, max_tokens: 12 };
    const body = { ...shared, model: card.id, logprobs: true, top_logprobs: 3 };
    const { choices: [expected] } = await (await ask('v1/chat/completions', body)).json();
    const found = answer(sterna, { ...shared, top_logprobs: 3 });
    assert.equal(found.text, expected.message.content);
    assert.deepEqual(found.tokens, expected.logprobs.content);
  }
}

// Every file is refused with words; none stops the program.
async function hostile() {
  const whole = readFileSync(models[0]);
  const refused = async (bytes, says, sha256) => {
    const error = await opened(bytes, sha256).then(() => null, (thrown) => thrown);
    assert.ok(error instanceof SternaError, `${says}: ${error}`);
    assert.match(error.message, says);
    assert.notEqual(error.code, 'dead');
  };
  await refused(new Uint8Array(0), /shorter than 8 bytes/);
  await refused(new Uint8Array(5000), /not a Sterna packed file/);
  await refused(Buffer.from('GGUF\x03\0\0\0\0\0\0\0\0\0\0\0'), /GGUF/);
  await refused(Buffer.from('<!doctype html><title>Not found</title>'), /not a Sterna packed file/);
  await refused(whole.subarray(0, whole.length - 1), /bytes, the header describes/);
  await refused(whole, /sha256/, '0'.repeat(64));
  for (let i = 0; i < 60; i += 1) {
    await refused(whole.subarray(0, Math.floor((i * whole.length) / 60)), /./);
    const bytes = Uint8Array.from(whole);
    bytes[Math.floor((i * whole.length) / 60)] ^= 1 << (i % 8);
    await refused(bytes, /./);
  }
  const sterna = await Sterna.start(module);
  assert.throws(() => sterna.room(2 ** 31), /2 GiB/);
  assert.throws(() => sterna.begin({ prompt: 'x' }), /load one first/);
}

// Where memory ends, before the file has come and while it is opened, words say so.
async function exhausted() {
  const bytes = readFileSync(models[0]);
  const { instantiate } = WebAssembly;
  let memory;
  WebAssembly.instantiate = async (...given) => {
    const made = await instantiate(...given);
    ({ memory } = made.exports);
    return made;
  };
  const sterna = await Sterna.start(module);
  WebAssembly.instantiate = instantiate;
  sterna.write(sterna.room(bytes.length), 0, bytes);
  // The rest of the 4 GiB that addresses reach.
  memory.grow((2 ** 32 - memory.buffer.byteLength) / 2 ** 16);
  const says = { code: 'memory', message: /bytes of memory.*choose a smaller model/ };
  assert.throws(() => sterna.room(2 ** 24), says);
  assert.throws(() => sterna.open({ name: 'model', bytes: bytes.length, sha256: null }), says);
  assert.throws(() => sterna.encode('x', true), { code: 'dead' });
}

const { data } = await (await ask('v1/models')).json();
assert.equal(data.length, models.length);
for (const [i, card] of data.entries()) {
  assert.equal(card.id, basename(models[i], '.sterna'));
  await compare(models[i], card);
}
console.log(`node: ${models.length} models have the bits of the native program`);
await hostile();
console.log('node: damaged files are refused with words');
await exhausted();
console.log('node: words say where memory ends');
rmSync(scratch, { recursive: true });

// The model in a thread of its own, so that the page never waits. Messages in: `load`, `write`,
// `stop`. Messages out: `progress`, `ready`, `failed` for a load; `event`, `end`, `error` for an
// answer.
import { Sterna, SternaError } from './sterna.js';

// Where models of addresses are kept. Browsers offer it to pages of https and of loopback.
const STORE = 'sterna-models';
const PART = 1 << 20;

let sterna = null;
// The id of the answer that may be written; a later one, or a stop, takes its place.
let current = null;

onmessage = async ({ data }) => {
  if (data.type === 'load') {
    await guarded('failed', () => load(data));
  } else if (data.type === 'write') {
    await guarded('error', () => write(data), { id: data.id });
  } else {
    current = null;
  }
};

// Does some work; its error becomes a message.
async function guarded(type, work, fields = {}) {
  try {
    await work();
  } catch (error) {
    const { message, code } = error instanceof SternaError
      ? error : { message: String(error.message ?? error), code: 'failed' };
    postMessage({ ...fields, type, error: { message, code } });
  }
}

// Loading

// `source`: {address} or {file}, and what is known of the file: {name, sha256, fingerprint}.
async function load({ source, key }) {
  sterna = await Sterna.start(await program());
  const { file, name } = source;
  if (file) {
    const { facts } = await take(name, file.stream(), { total: file.size, from: 'file' });
    return ready(facts, { from: 'file' });
  }
  const stored = await find(source);
  if (stored) {
    try {
      return ready((await takeStored(name, stored)).facts, { from: 'store' });
    } catch (error) {
      if (!['wrong_sum', 'bad_file', 'cut'].includes(error.code)) throw error;
      // The copy was damaged, so the model is loaded anew.
      await forget(source.address);
      sterna = await Sterna.start(await program());
    }
  }
  const { facts, place } = await takeAddress(source, key);
  postMessage({ type: 'progress', stage: 'keep', done: 0, total: facts.bytes });
  const problem = await keep(source, facts, place);
  return ready(facts, { from: 'address', problem });
}

function ready(facts, more) {
  postMessage({ type: 'ready', facts, ...more, memory: sterna.memory });
}

async function program() {
  const address = new URL('sterna.wasm', import.meta.url);
  const response = await fetch(address).catch(() => null);
  if (!response?.ok) {
    throw new SternaError(`${address} cannot be loaded; it belongs beside worker.js, and ` +
      '`web/build` of the repository makes it', 'no_program');
  }
  return response.arrayBuffer();
}

async function takeAddress(source, key) {
  const address = new URL(source.address);
  // The key of the server that this page came from goes to no other one.
  const isKnown = key && address.origin === location.origin;
  const headers = isKnown ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch(address, { headers }).catch(() => {
    throw new SternaError(`${address} cannot be read: the server does not answer, or it does not ` +
      'allow pages of other sites to read it (its header Access-Control-Allow-Origin)',
    'unreachable');
  });
  if (response.status === 401) {
    throw new SternaError(`${address.origin} wants a key`, 'invalid_api_key');
  }
  if (!response.ok) {
    throw new SternaError(`${address} answers ${response.status}; check the address`, 'not_found');
  }
  if (/^text\/html/.test(response.headers.get('Content-Type') ?? '')) {
    throw new SternaError(`${address} is a web page, not a model: give the address of the file ` +
      'itself, which ends in .sterna', 'bad_file');
  }
  // With an encoding, the length is that of other bytes.
  const isPlain = !response.headers.get('Content-Encoding');
  const total = isPlain ? Number(response.headers.get('Content-Length')) : 0;
  return take(source.name, response.body, { total, from: 'address', sha256: source.sha256 });
}

function takeStored(name, response) {
  const total = Number(response.headers.get('Content-Length'));
  const sha256 = response.headers.get('X-Sterna-Sha256');
  return take(name, response.body, { total, from: 'store', sha256 });
}

// Reads a stream into the memory of the model and opens it. `total` is 0 where it is not known.
// Returns what the model is, and the place of the file.
async function take(name, stream, { total, from, sha256 }) {
  let size = total || PART;
  let place = sterna.room(size);
  let length = 0;
  let shownAt = 0;
  const reader = stream.getReader();
  const next = () => reader.read().catch((error) => {
    const why = `the file ended after ${length} bytes: ${error.message}; try again`;
    throw new SternaError(why, 'cut');
  });
  for (let part = await next(); !part.done; part = await next()) {
    const end = length + part.value.length;
    if (end > size) {
      size = Math.max(2 * size, end);
      place = sterna.room(size);
    }
    sterna.write(place, length, part.value);
    length = end;
    if (!isPossible(place, length, total)) {
      await reader.cancel();
      break;
    }
    if (performance.now() - shownAt > 50) {
      shownAt = performance.now();
      postMessage({ type: 'progress', stage: from, done: length, total });
    }
  }
  postMessage({ type: 'progress', stage: 'check', done: length, total: length });
  const isWhole = !total || length === total || !isPossible(place, length, total);
  if (!isWhole) {
    throw new SternaError(`${length} of ${total} bytes have come: the connection ended too early; ` +
      'try again', 'cut');
  }
  return { facts: sterna.open({ name, bytes: length, sha256: sha256 || null }), place };
}

// Whether the first bytes can be those of a packed file of this length, so that no gigabyte of
// something else is waited for. They are the length of its header.
function isPossible(place, length, total) {
  if (length < 8) return true;
  const first = new DataView(sterna.read(place, 8).buffer).getBigUint64(0, true);
  return first <= 100_000_000n && (!total || first <= BigInt(total));
}

// The store of models

async function find({ address, sha256, fingerprint }) {
  if (!globalThis.caches) return null;
  const response = await (await caches.open(STORE)).match(address).catch(() => null);
  const is = (header, wanted) => !wanted || response.headers.get(header) === wanted.toLowerCase();
  const isSame = response && is('X-Sterna-Sha256', sha256) &&
    is('X-Sterna-Fingerprint', fingerprint);
  return isSame ? response : null;
}

// Keeps a model that was checked. Returns why not, or an empty text.
async function keep({ address, name }, facts, place) {
  if (!globalThis.caches) {
    return 'The browser keeps models only for pages of https or of this machine, so this one is ' +
      'loaded again the next time.';
  }
  let at = 0;
  const body = new ReadableStream({
    pull(controller) {
      const length = Math.min(PART, facts.bytes - at);
      if (length > 0) controller.enqueue(sterna.read(place + at, length));
      at += length;
      if (at >= facts.bytes) controller.close();
    },
  });
  const headers = {
    'Content-Length': String(facts.bytes),
    'X-Sterna-Sha256': facts.sha256,
    'X-Sterna-Fingerprint': facts.fingerprint,
    'X-Sterna-Name': encodeURIComponent(name),
  };
  try {
    await (await caches.open(STORE)).put(address, new Response(body, { headers }));
    return '';
  } catch (error) {
    return `The browser did not keep the model (${error.message}), so it is loaded again the next ` +
      'time. Delete models that you no longer need.';
  }
}

async function forget(address) {
  await (await caches.open(STORE)).delete(address);
}

// Answers

// Lets messages in, such as a stop. A timer would wait four milliseconds.
const { port1, port2 } = new MessageChannel();
function pause() {
  return new Promise((resolve) => {
    port2.onmessage = resolve;
    port1.postMessage(null);
  });
}

async function write({ id, request }) {
  current = id;
  if (!sterna) throw new SternaError('no model is loaded', 'no_model');
  sterna.begin(request);
  let pausedAt = performance.now();
  while (current === id) {
    const { event, isLast } = sterna.step();
    postMessage({ type: 'event', id, event });
    if (isLast) return postMessage({ type: 'end', id });
    if (performance.now() - pausedAt > 10) {
      await pause();
      pausedAt = performance.now();
    }
  }
  return undefined;
}

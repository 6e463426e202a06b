// A model in this browser instead of a server: loads it, and answers what the page asks.

const KEY = 'sterna.key';
let key = recall('sessionStorage', KEY);

const ADVICE = {
  no_model: 'Press “Load a model”.',
  invalid_api_key: 'Press Key and type one of the keys of the server, then load the model again.',
  no_chat_template: 'Choose the mode plain text in the settings.',
  template_error: 'Some templates know no system prompt, or want user and assistant in turn.',
};
const LAST = 'sterna.local.model';
const STORE = 'sterna-models';

const local = {
  worker: null,
  // What the loaded model is.
  facts: null,
  // Where it came from: {address, name, sha256, fingerprint} or {file, name}.
  source: null,
  // Models that the place of this page offers.
  offered: [],
  // What hears of the answer that is written: {id, push, end, fail}.
  listener: null,
};

// Answers

function reply(value) {
  return { json: async () => value };
}

// What the server answers on these paths, from the model in the worker.
async function ask(path, body, signal) {
  const { facts } = local;
  if (path === 'v1/models') return reply({ data: facts ? [cardOf(facts)] : [] });
  if (path === 'props') return reply(facts ? propertiesOf(facts) : {});
  if (!facts) throw new Refusal('no model is loaded', { code: 'no_model' });
  return answer(requestOf(path, body), signal);
}

function cardOf({ name, context, capabilities }) {
  return { id: name, max_model_len: context, capabilities };
}

function propertiesOf({ name, sampling, eos_tokens: endings }) {
  const { repetition_penalty: penalty, ...params } = sampling;
  return {
    model_alias: name,
    default_generation_settings: { params: { ...params, repeat_penalty: penalty } },
    eos_tokens: endings,
  };
}

// The fields of a request that mean something to a model of one page.
function requestOf(path, { model, stream, stream_options: options, logprobs, ...body }) {
  const top = path === 'v1/completions' ? logprobs : body.top_logprobs;
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  const drawn = (high % 2 ** 21) * 2 ** 32 + low;
  return { seed: drawn, ...body, ...(top !== undefined && { top_logprobs: top }) };
}

let answers = 0;

// The events of an answer, as a stream of objects.
function answer(request, signal) {
  answers += 1;
  const id = answers;
  const events = new ReadableStream({
    start(controller) {
      local.listener = {
        id,
        push: (event) => controller.enqueue(event),
        end: () => controller.close(),
        fail: ({ message, code }) => controller.error(new Refusal(message, { code })),
      };
      signal?.addEventListener('abort', () => {
        local.worker?.postMessage({ type: 'stop' });
        local.listener = null;
        controller.error(new DOMException('stopped', 'AbortError'));
      });
    },
  });
  local.worker.postMessage({ type: 'write', id, request });
  return events;
}

async function* events(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    if (value.prompt) {
      const { computed, of } = value.prompt;
      say(`The prompt is read: ${computed} of ${of} tokens.`);
    } else {
      yield value;
    }
  }
}

function heard({ data }) {
  const { type, id } = data;
  const { listener } = local;
  if (type === 'progress') return showProgress(data);
  if (type === 'ready') return loaded(data);
  if (type === 'failed') return notLoaded(data.error);
  if (listener?.id !== id) return undefined;
  if (type === 'event') return listener.push(data.event);
  local.listener = null;
  return type === 'end' ? listener.end() : listener.fail(data.error);
}

// Loading

// A model gets a worker of its own, whose memory ends with it.
function loadModel(source) {
  stop();
  local.worker?.terminate();
  Object.assign(local, { facts: null, source, listener: null });
  const worker = new Worker('worker.js', { type: 'module' });
  worker.onmessage = (event) => worker === local.worker && heard(event);
  worker.onerror = (event) => {
    event.preventDefault();
    const message = `worker.js does not start: ${event.message ?? 'it cannot be loaded'}`;
    notLoaded({ message, code: 'failed' });
  };
  local.worker = worker;
  parts.dialog.close();
  warn('');
  showProgress({ stage: source.file ? 'file' : 'address', done: 0, total: 0 });
  worker.postMessage({ type: 'load', source, key });
  loadModels();
}

async function loaded({ facts, from, problem, memory }) {
  local.facts = facts;
  parts.loading.hidden = true;
  const { source } = local;
  if (source.address) {
    const { address, name, sha256, fingerprint } = source;
    remember('localStorage', LAST, JSON.stringify({ address, name, sha256, fingerprint }));
  }
  const whence = { file: 'from a file', store: 'from the store of this browser' }[from];
  say(`${facts.name} is loaded${whence ? ` ${whence}` : ''}: ${bytesOf10(facts.bytes)}, ` +
    `${bytesOf10(memory)} of memory.`);
  showSources();
  await loadModels();
  warn(problem ?? '');
}

async function notLoaded(error) {
  local.worker?.terminate();
  Object.assign(local, { worker: null, facts: null });
  local.listener?.fail(error);
  local.listener = null;
  parts.loading.hidden = true;
  showOpener();
  say('');
  await loadModels();
  warn(inWords(new Refusal(`the model was not loaded: ${error.message}`, error)));
  if (error.code === 'invalid_api_key') askKey();
}

function cancelLoad() {
  local.worker?.terminate();
  local.worker = null;
  parts.loading.hidden = true;
  showOpener();
  say('Stopped.');
}

const STAGES = {
  address: 'Loading', store: 'Reading the stored model', file: 'Reading the file',
  check: 'Checking the model', keep: 'Storing the model in this browser',
};

function showProgress({ stage, done, total }) {
  parts.loading.hidden = false;
  const isCounted = done > 0 && stage !== 'check';
  const amount = total > 0 ? `${bytesOf10(done)} of ${bytesOf10(total)}` : bytesOf10(done);
  parts.doing.textContent = `${STAGES[stage]}${isCounted ? `: ${amount}` : ''}`;
  parts.bar.max = total || 1;
  if (total > 0 && isCounted) {
    parts.bar.value = done;
  } else {
    parts.bar.removeAttribute('value');
  }
}

function bytesOf10(count) {
  const units = [['GB', 1e9], ['MB', 1e6], ['kB', 1e3]];
  const [unit, size] = units.find(([, least]) => count >= least) ?? ['bytes', 1];
  return `${(count / size).toFixed(size === 1 || count / size >= 100 ? 0 : 1)} ${unit}`;
}

function nameOfAddress(address) {
  const last = decodeURIComponent(new URL(address).pathname.split('/').pop());
  return last.replace(/\.sterna$/, '') || 'model';
}

function loadFile(file) {
  if (file) loadModel({ file, name: file.name.replace(/\.sterna$/, '') });
}

// The dialog of models, and the line of progress

const parts = makeParts();

function makeParts() {
  const address = el('input', {
    type: 'url', placeholder: 'https://…/model.sterna', 'aria-label': 'Address of a model',
    spellcheck: 'false', required: true,
  });
  const sum = el('input', {
    placeholder: 'SHA-256, if you know it', 'aria-label': 'SHA-256 of the file',
    pattern: '[0-9a-fA-F]{64}', title: '64 hexadecimal digits', spellcheck: 'false',
  });
  const form = el('form', { id: 'by-address' }, address, sum,
    el('button', { class: 'main' }, 'Load'));
  const chosen = el('input', { type: 'file', accept: '.sterna', hidden: true });
  const choose = button('Choose a file', () => chosen.click(), { id: 'by-file' });
  const offered = el('ul', { class: 'sources' });
  const stored = el('ul', { class: 'sources' });
  const facts = el('dl', { id: 'facts' });
  const heading = el('h2', { id: 'models-title', tabindex: '-1', autofocus: true }, 'Model');
  const close = el('button', { value: 'close' }, 'Close');
  const dialog = el('dialog', { id: 'models', 'aria-labelledby': 'models-title' },
    el('div', { class: 'column' }, heading,
      el('p', { class: 'hint' }, 'A packed model (.sterna) runs in this page. What you write ' +
        'stays on this machine.'),
      facts, offered, stored,
      el('h3', {}, 'From an address'), form,
      el('h3', {}, 'From a file'),
      el('p', { class: 'row' }, choose, chosen,
        el('span', { class: 'hint' }, 'or drop one anywhere on the page')),
      el('form', { method: 'dialog', class: 'row foot' }, close)));
  const doing = el('span', { role: 'status' });
  const bar = el('progress', { 'aria-label': 'Loading of the model' });
  const cancel = button('Stop loading', cancelLoad);
  const loading = el('p', { id: 'loading', hidden: true }, doing, bar, cancel);
  const opener = button('', openModels, { id: 'open-models' });
  document.querySelector('#open-settings').before(opener);
  document.querySelector('#notice').after(loading);
  document.body.append(dialog);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const wanted = new URL(address.value, location.href).href;
    loadModel({ address: wanted, name: nameOfAddress(wanted), sha256: sum.value.toLowerCase() });
  });
  chosen.addEventListener('change', () => {
    loadFile(chosen.files[0]);
    chosen.value = '';
  });
  return { dialog, offered, stored, facts, loading, doing, bar, opener };
}

function showOpener() {
  const { facts } = local;
  parts.opener.textContent = facts ? facts.name : 'Load a model';
  parts.opener.title = facts ? 'The model; load another one' : '';
  parts.opener.classList.toggle('main', !facts);
}

function openModels() {
  showSources();
  if (!parts.dialog.open) parts.dialog.showModal();
}

async function showSources() {
  showOpener();
  const { facts } = local;
  const rows = facts ? [
    ['Loaded', facts.name],
    ['Weights', `${facts.parameters.toLocaleString('en')} (${facts.packing})`],
    ['Context', `${facts.context.toLocaleString('en')} tokens`],
    ['Fingerprint', facts.fingerprint],
    ['SHA-256', facts.sha256],
    ...(facts.cannot_chat ? [['Chat', facts.cannot_chat]] : []),
  ] : [];
  parts.facts.replaceChildren(...rows.flatMap(([name, value]) =>
    [el('dt', {}, name), el('dd', {}, value)]));
  parts.offered.replaceChildren(...local.offered.map((source) => el('li', {},
    el('span', {}, source.name, ' ', el('small', {}, bytesOf10(source.bytes ?? 0))),
    button('Load', () => loadModel(source)))));
  const entries = await storedModels();
  parts.stored.replaceChildren(...entries.map((source) => el('li', {},
    el('span', {}, source.name, ' ', el('small', {}, `${bytesOf10(source.bytes)}, stored in this ` +
      `browser, from ${source.address}`)),
    button('Load', () => loadModel(source)),
    button('Delete', () => forgetModel(source), { class: 'danger' }))));
}

async function storedModels() {
  if (!window.caches) return [];
  const store = await caches.open(STORE);
  return Promise.all((await store.keys()).map(async (request) => {
    const { headers } = await store.match(request);
    return {
      address: request.url,
      name: decodeURIComponent(headers.get('X-Sterna-Name')),
      bytes: Number(headers.get('Content-Length')),
      sha256: headers.get('X-Sterna-Sha256'),
    };
  }));
}

async function forgetModel({ address }) {
  await (await caches.open(STORE)).delete(address);
  showSources();
}

// models.json beside the page lists models: [{name, address, bytes, sha256, fingerprint}].
async function loadOffered() {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch('models.json', { headers }).catch(() => null);
  if (response?.status === 401) return askKey();
  const list = response?.ok ? await response.json().catch(() => []) : [];
  local.offered = list.map((one) => ({
    ...one, address: new URL(one.address, new URL('models.json', location.href)).href,
  }));
  return showSources();
}

// The model that the address of the page names, or the last one if it is stored.
async function loadFirst() {
  await loadOffered();
  if (local.worker) return;
  const asked = new URLSearchParams(location.search);
  if (asked.has('model')) {
    const address = new URL(asked.get('model'), location.href).href;
    return loadModel({ address, name: nameOfAddress(address), sha256: asked.get('sha256') });
  }
  const last = JSON.parse(recall('localStorage', LAST) || 'null');
  const isStored = (await storedModels()).some(({ address }) => address === last?.address);
  const offer = local.offered.find(({ address }) => address === last?.address);
  if (last && isStored) return loadModel(offer ?? last);
  return openModels();
}

// Only a server with keys needs one.
function askKey() {
  elements.key.hidden = false;
  openKeys();
}

function listenForFiles() {
  const on = (type, act) => document.addEventListener(type, (event) => {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    act(event);
  });
  const mark = (isOver) => document.body.classList.toggle('dropping', isOver);
  on('dragover', () => mark(true));
  on('dragleave', ({ relatedTarget }) => mark(relatedTarget !== null));
  on('drop', ({ dataTransfer }) => {
    mark(false);
    loadFile(dataTransfer.files[0]);
  });
}

listenForFiles();
const keys = document.querySelector('#keys');
keys.addEventListener('close', () => keys.returnValue === 'save' && setTimeout(loadOffered));
document.querySelector('#key').hidden = key === '';
showOpener();
setTimeout(loadFirst);

// What a person does with a conversation: send, stop, edit, regenerate, continue, branch, replay.

const app = {
  conversations: new Map(),
  current: null,
  models: [],
  properties: {},
  // The answer that is being written or replayed: {conversation, node, controller, isReplay}.
  active: null,
  // What is said below messages until the page is left.
  notes: new Map(),
};

function isWriting(node) {
  return app.active?.node === node && !app.active.isReplay;
}

// Does `work` with a signal that Stop aborts. One answer is written at a time.
async function alone(conversation, node, isReplay, work) {
  if (app.active) return;
  const controller = new AbortController();
  app.active = { conversation, node, controller, isReplay };
  showAll();
  try {
    await work(controller);
  } finally {
    app.active = null;
    showAll();
    keepFocus();
  }
}

function stop() {
  app.active?.controller.abort();
}

// Writes the answer of a message that has a request.
function write(conversation, node) {
  let savedAt = Date.now();
  const onPart = (answer) => {
    take(node, answer);
    showSoon(node);
    if (Date.now() - savedAt > 2000) {
      savedAt = Date.now();
      save(conversation);
    }
  };
  app.notes.delete(node.id);
  Object.assign(node, { error: '', finish: null });
  return alone(conversation, node, false, async ({ signal }) => {
    say('The answer is being written.');
    try {
      const { scores } = conversation;
      const answer = await stream(conversation, node, { scores, signal, onPart });
      node.finish = answer.finish ?? 'stop';
      const isFixed = node.request.settings.seed !== undefined;
      say(`The answer is complete.${isFixed ? ' Its seed is fixed in the settings.' : ''}`);
    } catch (error) {
      failed(node, error);
    }
    save(conversation);
  });
}

function failed(node, error) {
  if (error.name === 'AbortError') {
    node.finish = 'stopped';
    say('Stopped.');
    return;
  }
  node.finish = 'error';
  node.error = inWords(error);
  say('');
  react(error);
}

// Opens what a person needs after an error.
function react(error) {
  if (error.code === 'invalid_api_key') openKeys();
  if (error.code === 'model_not_found') loadModels();
}

// Takes an answer over into its message.
function take(node, { text, tokens, seed, fingerprint, usage, speed, wait }) {
  node.text = node.request.prefix + text;
  Object.assign(node, { seed, fingerprint, usage, speed, wait });
  if (tokens.length > 0) {
    node.tokens = tokens;
  }
}

// Adds one more version below a message and writes it; `prefix` is how it begins.
function addAnswer(conversation, parent, prefix = '') {
  const request = newRequest(conversation, prefix);
  const { seed } = request.settings;
  const node = addMessage(conversation, parent, 'assistant', { text: prefix, request, seed });
  return write(conversation, node);
}

async function send(text) {
  const conversation = app.current;
  let last = shownPath(conversation).at(-1)?.id ?? ROOT;
  if (text !== '') {
    last = addMessage(conversation, last, 'user', { text }).id;
  }
  app.conversations.set(conversation.id, conversation);
  stickToEnd();
  if (app.models.length === 0) await loadModels();
  await addAnswer(conversation, last);
}

// An edited message of the user is answered anew; an edited answer stays as it was written.
function edit(node, text) {
  const conversation = app.current;
  const edited = addMessage(conversation, node.parent, node.role, { text });
  if (node.role === 'user') {
    return addAnswer(conversation, edited.id);
  }
  edited.finish = 'edited';
  save(conversation);
  showAll();
}

// An answer that failed before its first token gives its place to the next one.
function regenerate(node) {
  const conversation = app.current;
  if (node.text === '' && node.children.length === 0) {
    removeMessage(conversation, node);
  }
  return addAnswer(conversation, node.parent);
}

function continueAnswer(node) {
  return addAnswer(app.current, node.parent, node.text);
}

// Another token in place of one of an answer: the rest is written anew.
function branch(node, prefix, isEnd) {
  if (app.active) return say('Stop the answer that is being written first.');
  const conversation = app.current;
  if (!isEnd) {
    return addAnswer(conversation, node.parent, prefix);
  }
  addMessage(conversation, node.parent, node.role, { text: prefix, finish: 'edited' });
  save(conversation);
  showAll();
}

function remove(node) {
  if (node.children.length > 0 && !confirm('Delete this message and all that follows it?')) return;
  removeMessage(app.current, node);
  save(app.current);
  showAll();
}

// Asks again with the same seed and compares the text byte for byte. With `scores` the answer also
// gets the probabilities of its tokens. True if the text is the same.
async function replay(node, scores) {
  const conversation = app.current;
  const wanted = encoded(node.text.slice(node.request.prefix.length));
  const isCut = node.finish !== 'stop' && node.finish !== 'length';
  let answer = null;
  let isSame = false;
  await alone(conversation, node, true, async (controller) => {
    const { signal } = controller;
    const onPart = (part) => {
      answer = part;
      const count = encoded(part.text).length;
      note(node, `Replay: ${bytesInWords(count)} of ${bytesInWords(wanted.length)}.`);
      // An answer that was cut short is compared as far as it goes.
      if (isCut && count >= wanted.length) controller.abort();
    };
    try {
      await stream(conversation, node, { scores, signal, onPart });
    } catch (error) {
      const isEnough = isCut && answer && encoded(answer.text).length >= wanted.length;
      if (!isEnough) {
        note(node, `The replay did not end. ${error.name === 'AbortError' ? '' : inWords(error)}`);
        return react(error);
      }
    }
    const got = encoded(answer.text);
    const place = difference(wanted, isCut ? got.slice(0, wanted.length) : got);
    isSame = place < 0;
    note(node, verdict(node, answer, place, wanted, got));
    if (isSame && scores) {
      node.tokens = within(answer.tokens, wanted.length);
      save(conversation);
    }
  });
  return isSame;
}

function note(node, text) {
  app.notes.set(node.id, text);
  showSoon(node);
}

// The first byte that differs; -1 if there is none.
function difference(a, b) {
  const length = Math.max(a.length, b.length);
  for (let at = 0; at < length; at += 1) {
    if (a[at] !== b[at]) return at;
  }
  return -1;
}

function verdict(node, answer, place, wanted, got) {
  const { fingerprint } = answer;
  if (place < 0) {
    return `Replay: the same text, ${bytesInWords(wanted.length)}, from seed ${node.seed} and ` +
      `fingerprint ${fingerprint}.`;
  }
  const around = (bytes) =>
    JSON.stringify(new TextDecoder().decode(bytes.slice(Math.max(0, place - 20), place + 20)));
  const cause = fingerprint === node.fingerprint
    ? 'The fingerprint is the same, so this is a fault of the program: please report it.'
    : `The fingerprint was ${node.fingerprint} and is ${fingerprint}: the model or the program ` +
      'is another one.';
  return `Replay: another text from byte ${place} on: ${around(wanted)} became ${around(got)}. ` +
    cause;
}

function bytesInWords(count) {
  return `${count.toLocaleString('en')} byte${count === 1 ? '' : 's'}`;
}

// The tokens of the first bytes of an answer.
function within(tokens, bytes) {
  let count = 0;
  return tokens.filter(([piece]) => {
    const isWithin = count < bytes;
    count += bytesOf([piece]).length;
    return isWithin;
  });
}

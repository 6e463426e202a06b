// Conversations in the storage of the browser, and as files.

const STORED = 'sterna.chat.';
const FORMAT = 'sterna-conversations';

// What the browser remembers under a name. A browser can forbid that.
function recall(storage, name) {
  try {
    return window[storage].getItem(name) ?? '';
  } catch {
    return '';
  }
}

function remember(storage, name, value) {
  try {
    window[storage].setItem(name, value);
  } catch {
    // The page works without it.
  }
}

// Stores a conversation. A full storage first costs the probabilities of tokens, which can be
// computed again. The returned text says what was not stored.
function store(conversation) {
  conversation.updated = Date.now();
  const key = STORED + conversation.id;
  const withoutTokens = (name, value) => (name === 'tokens' ? undefined : value);
  let problem = '';
  for (const filter of [null, withoutTokens]) {
    try {
      localStorage.setItem(key, JSON.stringify(conversation, filter));
      return problem && 'The storage of the browser is full, so probabilities of tokens are not ' +
        'kept. Delete conversations that you no longer need.';
    } catch (error) {
      problem = error.message;
    }
  }
  return `The browser does not store this conversation: ${problem} Export it, or delete others.`;
}

// A stored conversation; null where there is none that can be read.
function stored(key) {
  try {
    return checked(JSON.parse(localStorage.getItem(key)));
  } catch (error) {
    console.warn(`${key} is not a conversation: ${error.message}`);
    return null;
  }
}

function allStored() {
  const found = new Map();
  try {
    for (const key of Object.keys(localStorage).filter((key) => key.startsWith(STORED))) {
      const conversation = stored(key);
      if (conversation) {
        found.set(conversation.id, conversation);
      }
    }
  } catch {
    // A browser that forbids storage is told of by `store`.
  }
  return found;
}

function forget(conversation) {
  try {
    localStorage.removeItem(STORED + conversation.id);
  } catch {
    // Nothing was stored.
  }
}

function exported(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
}

// The conversations of a file, with ids of their own.
function imported(text) {
  const file = JSON.parse(text);
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) {
    throw new Error(`it is not an export of this page: "format" is not "${FORMAT}"`);
  }
  if (file.version !== 1) {
    throw new Error(`its version is ${file.version}, and this page reads version 1`);
  }
  return file.conversations.map((conversation) => ({ ...checked(conversation), id: newId() }));
}

const TYPES = {
  id: 'string', title: 'string', updated: 'number', mode: 'string', model: 'string',
  system: 'string', settings: 'object', scores: 'boolean', nodes: 'object',
};

// A conversation that came from outside, or an error that says what is wrong with it.
function checked(value) {
  for (const [name, type] of Object.entries(TYPES)) {
    if (typeof value?.[name] !== type || value[name] === null) {
      throw new Error(`"${name}" of a conversation is not of type ${type}`);
    }
  }
  checkTree(value.nodes);
  return value;
}

// Every message has its parent's consent, so that the tree has no loops and no loose ends.
function checkTree(nodes) {
  const seen = new Set();
  const open = [ROOT];
  while (open.length > 0) {
    const id = open.pop();
    const node = Object.hasOwn(nodes, id) ? nodes[id] : null;
    if (!node || seen.has(id) || node.id !== id || !Array.isArray(node.children)) {
      throw new Error(`the tree of messages is broken at "${id}"`);
    }
    seen.add(id);
    if (node.current !== null && !node.children.includes(node.current)) {
      throw new Error(`the message "${id}" shows a version that is not there`);
    }
    if (id !== ROOT) {
      checkMessage(nodes, node);
    }
    open.push(...node.children);
  }
  if (seen.size !== Object.keys(nodes).length) {
    throw new Error('messages are outside of the tree');
  }
}

function checkMessage(nodes, { id, role, text, parent, request, tokens }) {
  const isList = (value) => Array.isArray(value) && value.every(Array.isArray);
  const isRequest = !request || (typeof request.prefix === 'string' && request.settings);
  const isTokens = !tokens || (isList(tokens) && tokens.every((token) => isList(token[2])));
  const isWhole = ['user', 'assistant'].includes(role) && typeof text === 'string' &&
    nodes[parent]?.children.includes(id) && isRequest && isTokens;
  if (!isWhole) {
    throw new Error(`the message "${id}" has no role, text or parent, or cannot be read`);
  }
}

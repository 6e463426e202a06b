// From a conversation to the body of a request, and from the events of a stream to an answer.

// The settings of sampling, as the server names them: name, label, least, most, and for
// whole numbers what an empty field means.
const WHOLE = 'the default';
const NUMBERS = [
  ['temperature', 'Temperature', 0, 100],
  ['top_p', 'Top p', 0, 1],
  ['top_k', 'Top k', -1, 4294967295, WHOLE],
  ['min_p', 'Min p', 0, 1],
  ['repetition_penalty', 'Repetition penalty', 0, 100],
  ['frequency_penalty', 'Frequency penalty', -2, 2],
  ['presence_penalty', 'Presence penalty', -2, 2],
  ['seed', 'Seed', Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, 'a new one'],
  ['max_tokens', 'Most tokens', 1, 4294967295, 'what fits'],
].map(([name, label, min, max, whole]) => ({ name, label, min, max, whole }));
// Tokens that are kept beside each token of an answer.
const ALTERNATIVES = 8;

// What a new answer is asked with. It is kept with the answer, so that it can be asked again.
function newRequest(conversation, prefix) {
  const { mode, model, system, settings } = conversation;
  return { mode, model, system, settings: { ...settings }, prefix };
}

// The path and the body for an answer; the seed is the one of the answer, if it has one.
function bodyOf(conversation, node, scores) {
  const { request } = node;
  const shared = {
    model: request.model,
    stream: true,
    stream_options: { include_usage: true },
    ...sampling(request.settings),
    ...(node.seed !== undefined && { seed: node.seed }),
  };
  const before = ancestors(conversation, node);
  if (request.mode === 'text') {
    const prompt = before.map((message) => message.text).join('') + request.prefix;
    return ['v1/completions', { ...shared, prompt, ...(scores && { logprobs: ALTERNATIVES }) }];
  }
  const messages = before.map(({ role, text }) => ({ role, content: text }));
  if (request.system) {
    messages.unshift({ role: 'system', content: request.system });
  }
  const body = { ...shared, messages };
  if (request.prefix) {
    messages.push({ role: 'assistant', content: request.prefix });
    body.continue_final_message = true;
  }
  if (scores) {
    Object.assign(body, { logprobs: true, top_logprobs: ALTERNATIVES });
  }
  return ['v1/chat/completions', body];
}

function sampling(settings) {
  const names = [...NUMBERS.map(({ name }) => name), 'stop'];
  const given = names.filter((name) => settings[name] !== undefined);
  return Object.fromEntries(given.map((name) => [name, settings[name]]));
}

// What an event of either route says.
function readEvent(event) {
  const choice = event.choices?.[0];
  const scores = choice?.logprobs;
  return {
    text: choice?.delta?.content ?? choice?.text ?? '',
    finish: choice?.finish_reason ?? null,
    tokens: scores?.content ? scores.content.map(chatToken) : textTokens(scores),
    seed: event.sterna?.seed,
    fingerprint: event.system_fingerprint,
    usage: event.usage ?? null,
  };
}

// A token is [piece, log-probability, [[piece, log-probability] of alternatives]]. A piece is a
// text, or a list of bytes where it is only a part of a character.
function chatToken({ token, bytes, logprob, top_logprobs: top }) {
  const piece = (entry) => (entry.bytes ? asPiece(entry.bytes) : entry.token);
  return [piece({ token, bytes }), logprob, top.map((other) => [piece(other), other.logprob])];
}

function textTokens(scores) {
  return (scores?.tokens ?? []).map((name, at) => {
    const top = Object.entries(scores.top_logprobs?.[at] ?? {});
    const others = top.map(([other, logprob]) => [named(other), logprob]);
    return [named(name), scores.token_logprobs[at], others.sort((a, b) => b[1] - a[1])];
  });
}

// Completions name a part of a character by its bytes: bytes:\xe2\x82.
function named(name) {
  const isBytes = /^bytes:(\\x[0-9a-f]{2})+$/.test(name);
  return isBytes ? name.match(/[0-9a-f]{2}(?=\\|$)/g).map((hex) => parseInt(hex, 16)) : name;
}

function asPiece(bytes) {
  return decoded(new Uint8Array(bytes)) ?? bytes;
}

// The text of bytes; if they are not UTF-8, null or, unless `fatal`, a text with U+FFFD in it.
function decoded(bytes, fatal = true) {
  try {
    return new TextDecoder('utf-8', { fatal, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

function encoded(text) {
  return new TextEncoder().encode(text);
}

function bytesOf(pieces) {
  const parts = pieces.map((piece) => (typeof piece === 'string' ? encoded(piece) : piece));
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

// The text of an answer up to a token, with another piece in its place; null if that leaves a
// character unfinished. Some tokenizers drop the space of the first token.
function prefixWith(node, at, piece) {
  const before = node.tokens.slice(0, at).map(([token]) => token);
  const text = decoded(bytesOf([...before, piece]), false);
  if (typeof piece !== 'string' && text.endsWith('\ufffd')) return null;
  const generated = node.text.slice(node.request.prefix.length);
  const first = node.tokens[0][0];
  const isDropped = typeof first === 'string' && first.startsWith(' ') &&
    !generated.startsWith(' ') && text.startsWith(' ');
  return node.request.prefix + (isDropped ? text.slice(1) : text);
}

// Streams an answer; `onPart` is called after each event with the answer so far.
async function stream(conversation, node, { scores, signal, onPart }) {
  const start = performance.now();
  const [path, body] = bodyOf(conversation, node, scores);
  const answer = { text: '', tokens: [], finish: null, pieces: 0 };
  const response = await ask(path, body, signal);
  let first = 0;
  for await (const event of events(response)) {
    const part = readEvent(event);
    if (part.text && !first) first = performance.now();
    answer.text += part.text;
    answer.tokens.push(...part.tokens);
    answer.pieces += part.text ? 1 : 0;
    answer.seed = part.seed ?? answer.seed;
    answer.fingerprint = part.fingerprint ?? answer.fingerprint;
    answer.finish = part.finish ?? answer.finish;
    answer.usage = part.usage ?? answer.usage;
    const now = performance.now();
    const counted = part.usage?.completion_tokens ?? answer.pieces;
    answer.speed = first && counted > 1 && now > first ? (counted - 1) / ((now - first) / 1000) : 0;
    answer.wait = first ? (first - start) / 1000 : 0;
    onPart(answer);
  }
  return answer;
}

// The messages on the screen. A message keeps its element while it is shown, so that focus and
// selection stay where they are.

const shown = new Map();
let dirty = new Set();

function showMessages() {
  const path = shownPath(app.current);
  const ids = new Set(path.map(({ id }) => id));
  for (const [id, view] of shown) {
    if (!ids.has(id)) {
      view.item.remove();
      shown.delete(id);
    }
  }
  path.forEach((node, at) => {
    if (!shown.has(node.id)) shown.set(node.id, messageView(node));
    const { item, show } = shown.get(node.id);
    const list = elements.messages;
    if (list.children[at] !== item) list.insertBefore(item, list.children[at] ?? null);
    show();
  });
}

// Shows a message before the next picture is drawn.
function showSoon(node) {
  if (dirty.size === 0) requestAnimationFrame(showDirty);
  dirty.add(node.id);
}

function showDirty() {
  const ids = dirty;
  dirty = new Set();
  const isAtEnd = atEnd();
  for (const id of ids) shown.get(id)?.show();
  if (isAtEnd) stickToEnd();
}

function atEnd() {
  const { scrollHeight, scrollTop, clientHeight } = elements.scroll;
  return scrollHeight - scrollTop - clientHeight < 80;
}

function stickToEnd() {
  elements.scroll.scrollTop = elements.scroll.scrollHeight;
}

function messageView(node) {
  const who = el('p', { class: 'who' });
  const text = el('div', { class: 'text' });
  const tokens = el('div', { hidden: true });
  const body = el('div', { class: 'body' }, text, tokens);
  const editor = el('div', { class: 'edit', hidden: true });
  const problem = el('p', { class: 'problem', role: 'alert', hidden: true });
  const facts = el('p', { class: 'facts' });
  const replayed = el('p', { class: 'note', role: 'status' });
  const actions = actionsOf(node, { body, text, tokens, editor });
  const parts = [who, body, editor, problem, replayed, facts, actions.bar];
  const item = el('li', { class: `message ${node.role}` }, ...parts);

  function show() {
    item.classList.toggle('writing', isWriting(node));
    who.textContent = author(node);
    showText(text, node);
    if (!tokens.hidden && tokens.tokens !== node.tokens) actions.showTokens();
    problem.textContent = problemOf(node);
    problem.hidden = problem.textContent === '';
    replayed.textContent = app.notes.get(node.id) ?? '';
    facts.textContent = factsOf(node);
    actions.show();
  }
  return { item, show, focus: actions.focus };
}

function author({ role, finish, request }) {
  if (role === 'user') return 'You';
  return finish === 'edited' ? 'Edited answer' : request?.model || 'Model';
}

function showText(element, node) {
  const isPlain = node.role === 'user' || app.current.mode === 'text';
  element.classList.toggle('plain', isPlain);
  if (!isPlain) {
    showMarkdown(element, node.text);
  } else if (element.textContent !== node.text) {
    element.textContent = node.text;
  }
}

function problemOf(node) {
  const isCut = node.request && !node.finish && app.active?.node !== node;
  return node.error || (isCut ? 'The page was left before the answer ended.' : '');
}

const ENDS = { length: 'ended by the limit of tokens or the context', stopped: 'stopped' };

function factsOf({ request, usage, speed, wait, seed, fingerprint, finish }) {
  if (!request) return '';
  const one = (value) => Number(value).toFixed(1);
  return [
    usage && `${usage.completion_tokens} tokens`,
    speed > 0 && `${one(speed)} tokens/s`,
    wait > 0 && `first after ${Number(wait).toFixed(2)} s`,
    ENDS[finish],
    seed !== undefined && `seed ${seed}`,
    fingerprint,
  ].filter(Boolean).join(' · ');
}

// The buttons of a message.
function actionsOf(node, { body, text, tokens, editor }) {
  const count = el('span', { class: 'versions' });
  const turn = (step, label, sign) =>
    button(sign, () => turnTo(node, step, label), { 'aria-label': label });
  const back = turn(-1, 'Previous version', '◀');
  const next = turn(1, 'Next version', '▶');
  const copy = button('Copy', () => copyText(copy, node.text));
  const change = button('Edit', () => openEditor(node, body, editor, change));
  const answer = button('Answer', () => addAnswer(app.current, node.id));
  const again = button('Regenerate', () => regenerate(node));
  const more = button('Continue', () => continueAnswer(node));
  const view = button('Tokens', toggleTokens, { 'aria-pressed': 'false' });
  const title = 'Ask again with the same seed and compare the text';
  const same = button('Replay', () => replay(node, false), { title });
  const drop = button('Delete', () => remove(node));
  const bar = el('div', { class: 'actions', role: 'group', 'aria-label': 'Message' },
    back, count, next, copy, change, answer, again, more, view, same, drop);

  async function toggleTokens() {
    if (!tokens.hidden) return showView(false);
    // Probabilities that were not kept come from a replay, which has the same tokens.
    if (node.tokens || (await replay(node, true))) showView(true);
  }
  function showView(isTokens) {
    tokens.hidden = !isTokens;
    text.hidden = isTokens;
    view.setAttribute('aria-pressed', String(isTokens));
    if (isTokens) showTokens();
  }
  function showTokens() {
    tokens.tokens = node.tokens;
    const go = (prefix, isEnd) => branch(node, prefix, isEnd);
    tokens.replaceChildren(tokenView(node, endings(node), go));
  }
  function show() {
    const all = versions(app.current, node);
    const place = all.indexOf(node.id);
    const isAnswer = node.role === 'assistant';
    const isAsked = isAnswer && node.request && node.seed !== undefined && node.text !== '';
    for (const part of [back, count, next]) part.hidden = all.length < 2;
    copy.hidden = change.hidden = node.text === '';
    count.textContent = `${place + 1} / ${all.length}`;
    answer.hidden = isAnswer || node.children.length > 0;
    again.hidden = !isAnswer;
    again.textContent = node.text === '' ? 'Try again' : 'Regenerate';
    more.hidden = !isAnswer || node.text === '';
    view.hidden = same.hidden = !isAsked;
    bar.hidden = isWriting(node);
    for (const part of [change, answer, again, more, same, drop]) part.disabled = !!app.active;
    view.disabled = !!app.active && !node.tokens;
    back.disabled = place === 0;
    next.disabled = place === all.length - 1;
  }
  function focus(label) {
    const wanted = label === 'Next version' ? [next, back] : [back, next];
    wanted.find((part) => !part.disabled)?.focus();
  }
  return { bar, show, showTokens, focus };
}

function turnTo(node, step, label) {
  const other = turnVersion(app.current, node, step);
  save(app.current);
  showAll();
  shown.get(other.id).focus(label);
}

// The texts of the tokens that end an answer of a model.
function endings(node) {
  const all = app.properties.models ?? [app.properties];
  const one = all.find(({ model_alias: name }) => name === node.request.model);
  return one?.eos_tokens ?? [];
}

function openEditor(node, body, editor, opener) {
  const isUser = node.role === 'user';
  const area = el('textarea', { 'aria-label': 'Text of the message' });
  area.value = node.text;
  const close = () => {
    editor.hidden = true;
    body.hidden = false;
    editor.replaceChildren();
    opener.focus();
  };
  const done = () => {
    if (app.active) return say('Stop the answer that is being written first.');
    const text = area.value;
    close();
    if (text !== node.text) edit(node, text);
  };
  area.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      event.stopPropagation();
      close();
    } else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      done();
    }
  });
  const label = isUser ? 'Send' : 'Save';
  const save = button(label, done, { class: 'main' });
  const cancel = button('Cancel', close);
  const hint = el('span', { class: 'hint' }, `Ctrl+Enter: ${label}. Esc: Cancel.`);
  editor.replaceChildren(area, el('div', { class: 'row' }, save, cancel, hint));
  editor.hidden = false;
  body.hidden = true;
  area.focus();
}

// Copies a text, also where the clipboard is only open to pages of https or loopback.
async function copyText(copier, text) {
  let isDone = false;
  try {
    await navigator.clipboard.writeText(text);
    isDone = true;
  } catch {
    const area = el('textarea', { 'aria-hidden': 'true' });
    area.value = text;
    copier.after(area);
    area.select();
    isDone = document.execCommand('copy');
    area.remove();
    copier.focus();
  }
  say(isDone ? 'Copied.' : 'The browser did not allow to copy.');
}

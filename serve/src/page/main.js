// The page around the messages: conversations, models, settings, keys, and the keyboard.

const elements = Object.fromEntries(
  [...document.querySelectorAll('[id]')].map((element) => [element.id, element]),
);
const THEME = 'sterna.theme';

function say(text) {
  elements.status.textContent = text;
}

function warn(text) {
  elements.notice.textContent = text;
  elements.notice.hidden = text === '';
}

function save(conversation) {
  if (app.conversations.has(conversation.id)) warn(store(conversation));
}

function showAll() {
  const isAtEnd = atEnd();
  showMessages();
  showList();
  showModels();
  showContext();
  const title = titleOf(app.current);
  elements.title.textContent = title;
  document.title = `${title} – Sterna`;
  const isText = app.current.mode === 'text';
  const isEmpty = shownPath(app.current).length === 0;
  const hello = isText ? 'Write the beginning of a text.' : 'Write a message.';
  elements.hello.textContent = isEmpty ? hello : '';
  elements.send.textContent = isText ? 'Continue' : 'Send';
  elements.send.hidden = !!app.active;
  elements.stop.hidden = !app.active;
  if (isAtEnd) stickToEnd();
}

// Conversations, the latest first.
function showList() {
  const all = [...app.conversations.values()].sort((a, b) => b.updated - a.updated);
  elements.list.replaceChildren(...all.map((conversation) => {
    const isCurrent = conversation.id === app.current.id;
    const fields = { type: 'button', 'aria-current': isCurrent && 'true' };
    fields.onclick = () => open(conversation);
    return el('li', {}, el('button', fields, titleOf(conversation)));
  }));
}

function open(conversation) {
  app.current = conversation;
  history.replaceState(null, '', `#${conversation.id}`);
  for (const { item } of shown.values()) item.remove();
  shown.clear();
  showSide(false);
  showAll();
  stickToEnd();
  focusInput();
}

function openNew() {
  const conversation = newConversation(elements.model.value, app.current.settings);
  fitMode(conversation);
  open(conversation);
}

// Models

// A new conversation with a model that cannot chat is a text that is continued.
function fitMode(conversation) {
  const model = app.models.find(({ id }) => id === conversation.model);
  if (model?.capabilities && !conversation.nodes[ROOT].current) {
    conversation.mode = model.capabilities.includes('chat') ? 'chat' : 'text';
  }
}

async function loadModels() {
  try {
    app.models = (await (await ask('v1/models')).json()).data;
    warn('');
  } catch (error) {
    warn(inWords(error));
    if (error.code === 'invalid_api_key') openKeys();
    if (error.code === 'loading') setTimeout(loadModels, 1000);
    return;
  }
  app.properties = await ask('props').then((reply) => reply.json()).catch(() => ({}));
  showAll();
}

// A conversation whose model is not served goes on with the first one.
function showModels() {
  const names = app.models.map(({ id }) => id);
  const wanted = names.includes(app.current.model) ? app.current.model : names[0] ?? '';
  const { model } = elements;
  if ([...model.options].map(({ value }) => value).join('\n') !== names.join('\n')) {
    model.replaceChildren(...names.map((name) => el('option', { value: name }, name)));
  }
  model.value = wanted;
  model.hidden = names.length === 0;
  if (wanted && wanted !== app.current.model) {
    app.current.model = wanted;
    fitMode(app.current);
  }
}

function showContext() {
  const model = app.models.find(({ id }) => id === app.current.model);
  const last = shownPath(app.current).findLast(({ usage }) => usage);
  const most = model?.max_model_len;
  elements.context.hidden = !last || !most;
  if (!last || !most) return;
  const [bar, label] = elements.context.children;
  const used = last.usage.total_tokens;
  bar.value = Math.min(1, used / most);
  const [now, all] = [used, most].map((count) => count.toLocaleString('en'));
  label.textContent = `${now} of ${all} tokens of context`;
}

// Settings

function fieldOf({ name, label, min, max, whole }) {
  const step = whole ? 1 : 'any';
  return el('label', {}, `${label} `, el('input', { name, type: 'number', min, max, step }));
}

function openSettings() {
  const { current } = app;
  const fields = elements.form.elements;
  const all = app.properties.models ?? [app.properties];
  const one = all.find(({ model_alias: name }) => name === current.model) ?? all[0];
  const defaults = one.default_generation_settings?.params ?? {};
  for (const { name, whole } of NUMBERS) {
    const field = fields[name];
    // llama.cpp's name, which /props has.
    const value = defaults[name.replace('repetition', 'repeat')];
    field.value = current.settings[name] ?? '';
    field.placeholder = value === undefined ? whole ?? '' : String(Number(value.toFixed(4)));
  }
  fields.stop.value = (current.settings.stop ?? []).map(escaped).join('\n');
  fields.title.value = current.title;
  fields.title.placeholder = titleOf(current);
  fields.mode.value = current.mode;
  fields.system.value = current.system;
  fields.scores.checked = current.scores;
  elements.settings.showModal();
}

function escaped(text) {
  return text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/\t/g, '\\t');
}

function unescaped(line) {
  return line.replace(/\\(.)/g, (_, sign) => ({ n: '\n', t: '\t' })[sign] ?? sign);
}

function closeSettings() {
  if (elements.settings.returnValue !== 'save') return;
  const { current } = app;
  const fields = elements.form.elements;
  const given = NUMBERS.filter(({ name }) => fields[name].value !== '');
  const settings = Object.fromEntries(given.map(({ name }) => [name, Number(fields[name].value)]));
  const stops = fields.stop.value.split('\n').filter(Boolean).map(unescaped);
  if (stops.length > 0) settings.stop = stops;
  current.settings = settings;
  current.title = fields.title.value.trim();
  current.mode = fields.mode.value;
  current.system = fields.system.value;
  current.scores = fields.scores.checked;
  save(current);
  showAll();
}

function openKeys() {
  if (elements.keys.open) return;
  elements.secret.value = key;
  elements.keys.showModal();
}

function closeKeys() {
  if (elements.keys.returnValue !== 'save') return;
  key = elements.secret.value.trim();
  remember('sessionStorage', KEY, key);
  loadModels();
}

// Files

function download(conversations, name) {
  const blob = new Blob([exported(conversations)], { type: 'application/json' });
  const address = URL.createObjectURL(blob);
  el('a', { href: address, download: `${name}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

async function importFile() {
  const [file] = elements.file.files;
  elements.file.value = '';
  if (!file) return;
  try {
    const added = imported(await file.text());
    for (const conversation of added) {
      app.conversations.set(conversation.id, conversation);
      save(conversation);
    }
    if (added.length > 0) open(added[0]);
    say(`${added.length} conversations were imported.`);
  } catch (error) {
    warn(`${file.name} was not imported: ${error.message}.`);
  }
}

function deleteCurrent() {
  if (!confirm(`Delete “${titleOf(app.current)}”?`)) return;
  elements.settings.close('cancel');
  if (app.active?.conversation === app.current) stop();
  forget(app.current);
  app.conversations.delete(app.current.id);
  openNew();
}

// Keyboard, focus and the rest of the page

function focusInput() {
  // On a phone the keyboard would cover the page.
  if (matchMedia('(pointer: fine)').matches) elements.input.focus();
}

function keepFocus() {
  if (document.activeElement === document.body || document.activeElement === null) focusInput();
}

function fitInput() {
  const { input } = elements;
  input.style.height = 'auto';
  input.style.height = `${input.scrollHeight + 2}px`;
}

function submit(event) {
  event?.preventDefault();
  if (app.active) return say('Stop the answer that is being written first.');
  const text = elements.input.value;
  const isText = app.current.mode === 'text';
  const isEmpty = isText ? text === '' && !app.current.nodes[ROOT].current : text.trim() === '';
  if (isEmpty) return;
  elements.input.value = '';
  fitInput();
  send(text);
}

function showSide(isShown) {
  document.body.classList.toggle('with-side', isShown);
  elements.menu.setAttribute('aria-expanded', String(isShown));
  if (isShown) elements.new.focus();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  elements.theme.value = theme;
}

function pressed(event) {
  if (event.key !== 'Escape' || document.querySelector('dialog[open]')) return;
  if (document.body.classList.contains('with-side')) {
    showSide(false);
    elements.menu.focus();
  } else {
    stop();
  }
}

// Another tab has changed a conversation.
function changedElsewhere({ key }) {
  if (!key?.startsWith(STORED)) return;
  const id = key.slice(STORED.length);
  if (app.active?.conversation.id === id) return;
  const conversation = localStorage.getItem(key) === null ? null : stored(key);
  if (conversation) {
    app.conversations.set(id, conversation);
  } else {
    app.conversations.delete(id);
  }
  if (app.current.id === id && conversation) open(conversation);
  showList();
}

function listen() {
  const on = (element, type, act) => element.addEventListener(type, act);
  on(elements.composer, 'submit', submit);
  on(elements.input, 'input', fitInput);
  on(elements.input, 'keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) submit(event);
  });
  on(elements.stop, 'click', stop);
  on(elements.new, 'click', openNew);
  on(elements.menu, 'click', () => showSide(!document.body.classList.contains('with-side')));
  on(elements.page, 'click', ({ target }) => target !== elements.menu && showSide(false));
  on(elements.model, 'change', () => {
    app.current.model = elements.model.value;
    fitMode(app.current);
    save(app.current);
    showAll();
  });
  on(elements['open-settings'], 'click', openSettings);
  on(elements.settings, 'close', closeSettings);
  on(elements.delete, 'click', deleteCurrent);
  on(elements.export, 'click', () => download([app.current], 'conversation'));
  const exportAll = () => download([...app.conversations.values()], 'conversations');
  on(elements['export-all'], 'click', exportAll);
  on(elements.import, 'click', () => elements.file.click());
  on(elements.file, 'change', importFile);
  on(elements.key, 'click', openKeys);
  on(elements.keys, 'close', closeKeys);
  on(elements.theme, 'change', () => {
    setTheme(elements.theme.value);
    remember('localStorage', THEME, elements.theme.value);
  });
  on(document, 'keydown', pressed);
  on(window, 'storage', changedElsewhere);
  on(window, 'pagehide', () => app.active && save(app.active.conversation));
}

function start() {
  elements.numbers.append(...NUMBERS.map(fieldOf));
  app.conversations = allStored();
  const asked = app.conversations.get(location.hash.slice(1));
  app.current = newConversation('', {});
  listen();
  open(asked ?? app.current);
  setTheme(recall('localStorage', THEME));
  loadModels();
}

start();

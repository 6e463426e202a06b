// The tokens of an answer, coloured by probability. The alternatives of a token are starts of other
// answers.

const SHADES = [[0.9, 'p4', 'over 90 %'], [0.6, 'p3', '60 to 90 %'], [0.3, 'p2', '30 to 60 %'],
  [0.1, 'p1', '10 to 30 %'], [0, 'p0', 'under 10 %']];

function shadeOf(logprob) {
  const probability = Math.exp(logprob);
  return SHADES.find(([least]) => probability >= least)[1];
}

function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  return value >= 0.01 ? `${value.toFixed(value >= 10 ? 1 : 2)} %` : 'under 0.01 %';
}

// A piece as a name: what cannot be seen gets a sign.
function nameOf(piece) {
  if (typeof piece !== 'string') {
    return piece.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');
  }
  return piece.replace(/\n/g, '↵').replace(/\t/g, '⇥').replace(/^ | $/g, '␣') || '(empty)';
}

function legend() {
  const shades = SHADES.map(([, shade, label]) => el('span', { class: shade }, label));
  return el('p', { class: 'legend' }, 'Probability of each token:', ...shades);
}

// `branch(prefix, isEnd)` continues with another token. `endings` are texts of tokens that end an
// answer.
function tokenView(node, endings, branch) {
  const others = el('div', { class: 'others', role: 'group', hidden: true });
  const buttons = node.tokens.map(tokenButton);
  const view = el('div', { class: 'tokens', role: 'group', 'aria-label': 'Tokens' });
  view.append(node.request.prefix, ...buttons.flatMap((button, at) => {
    const [piece] = node.tokens[at];
    return piece === '\n' || /\n$/.test(piece) ? [button, el('br')] : [button];
  }));
  if (buttons[0]) buttons[0].tabIndex = 0;
  view.addEventListener('keydown', (event) => walk(event, buttons));
  view.addEventListener('click', (event) => {
    const at = buttons.indexOf(event.target);
    if (at >= 0) choose(at);
  });

  // The alternatives stand below the line of the token; a second click hides them.
  function choose(chosen) {
    const isOpen = buttons[chosen].getAttribute('aria-pressed') === 'true';
    for (const [at, part] of buttons.entries()) {
      part.setAttribute('aria-pressed', String(at === chosen && !isOpen));
      part.tabIndex = at === chosen ? 0 : -1;
    }
    others.hidden = isOpen;
    others.setAttribute('aria-label', `Alternatives to ${nameOf(node.tokens[chosen][0])}`);
    others.replaceChildren(...alternatives(node, chosen, endings, branch));
    buttons[chosen].after(others);
    others.scrollIntoView({ block: 'nearest' });
  }
  return el('div', {}, legend(), view);
}

function tokenButton([piece, logprob]) {
  const shown = typeof piece === 'string' ? piece.replace(/\n/g, '↵') : nameOf(piece);
  return button(shown || '∅', () => {}, {
    class: `token ${shadeOf(logprob)}`,
    tabindex: -1,
    'aria-pressed': 'false',
    'aria-label': `${nameOf(piece)}, ${percent(logprob)}`,
    title: percent(logprob),
  });
}

// Arrows go from token to token.
function walk(event, buttons) {
  const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  const next = step && buttons[buttons.indexOf(event.target) + step];
  if (next) {
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

function alternatives(node, at, endings, branch) {
  const [piece, logprob, top] = node.tokens[at];
  const isChosen = ([other]) => nameOf(other) === nameOf(piece);
  const all = top.some(isChosen) ? top : [...top, [piece, logprob]];
  const rows = all.map((other) => alternative(node, at, other, isChosen(other), endings, branch));
  const hint = 'The model could have gone on with these tokens. Choose one to branch there.';
  return [el('p', { class: 'hint' }, hint), el('ul', {}, ...rows)];
}

function alternative(node, at, [piece, logprob], isChosen, endings, branch) {
  const isEnd = endings.includes(piece);
  const prefix = prefixWith(node, at, isEnd ? '' : piece);
  const bar = el('i');
  bar.style.setProperty('--part', `${100 * Math.exp(logprob)}%`);
  const isPart = prefix === null && 'part of a character';
  const note = [isChosen && 'this answer', isEnd && 'the end', isPart].filter(Boolean).join(', ');
  const name = el('code', {}, nameOf(piece));
  const label = el('span', {}, name, note && ` (${note})`);
  const disabled = isChosen || prefix === null;
  const choice = button(label, () => branch(prefix, isEnd), { disabled });
  choice.append(el('span', { class: 'bar' }, bar), el('span', {}, percent(logprob)));
  return el('li', {}, choice);
}

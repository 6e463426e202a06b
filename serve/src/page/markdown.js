// Markdown to elements. The text of a model becomes text nodes and never HTML; links are the only
// thing that leads out, and only when they are clicked.

const DEEPEST = 6;

function el(tag, fields, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(fields ?? {})) {
    if (name.startsWith('on')) {
      element.addEventListener(name.slice(2), value);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? '' : value);
    }
  }
  element.append(...children);
  return element;
}

function button(label, onclick, fields) {
  return el('button', { type: 'button', onclick, ...fields }, label);
}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+|$)/;
const COLUMNS = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*){1,50}\|?\s*$/;

// Cuts lines into blocks: {kind, lines}.
function blocks(lines) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (lines[at].trim() === '') {
      at += 1;
      continue;
    }
    const kind = kindOf(lines, at);
    const end = blockEnd(kind, lines, at);
    found.push({ kind, lines: lines.slice(at, end) });
    at = end;
  }
  return found;
}

function kindOf(lines, at) {
  const [line, next = ''] = lines.slice(at, at + 2);
  // The patterns below are slow on very long lines.
  if (line.length > 2000 || next.length > 2000) return 'paragraph';
  if (FENCE.test(line)) return 'fence';
  if (HEADING.test(line)) return 'heading';
  if (RULE.test(line)) return 'rule';
  if (QUOTE.test(line)) return 'quote';
  if (ITEM.test(line)) return 'list';
  if (line.includes('|') && COLUMNS.test(next)) return 'table';
  return 'paragraph';
}

function blockEnd(kind, lines, start) {
  let at = start + 1;
  if (kind === 'fence') {
    const [, fence] = FENCE.exec(lines[start]);
    while (at < lines.length && !isFenceEnd(lines[at], fence)) at += 1;
    return Math.min(at + 1, lines.length);
  }
  if (kind === 'heading' || kind === 'rule') return at;
  for (; at < lines.length; at += 1) {
    const isBlank = lines[at].trim() === '';
    if (kind === 'list') {
      const next = isBlank ? lines[at + 1] ?? '' : lines[at];
      const isLazy = !isBlank && kindOf(lines, at) === 'paragraph';
      if (!(ITEM.test(next) || /^\s+\S/.test(next) || isLazy) || RULE.test(next)) break;
    } else if (isBlank || (kind === 'quote' && !QUOTE.test(lines[at]))) {
      break;
    } else if (kind === 'table' && !lines[at].includes('|')) {
      break;
    } else if (kind === 'paragraph' && kindOf(lines, at) !== 'paragraph') {
      break;
    }
  }
  return at;
}

function isFenceEnd(line, fence) {
  const end = line.trim();
  return end.length >= fence.length && end === fence[0].repeat(end.length);
}

function renderBlock({ kind, lines }, depth) {
  switch (kind) {
    case 'fence': return codeBlock(lines);
    case 'heading': return heading(lines[0], depth);
    case 'rule': return el('hr');
    case 'quote': {
      const inner = lines.map((line) => line.replace(QUOTE, ''));
      return el('blockquote', {}, ...renderAll(inner, depth + 1));
    }
    case 'list': return list(lines, depth);
    case 'table': return table(lines);
    default: return el('p', {}, ...inline(lines.join('\n').trim(), 0));
  }
}

function renderAll(lines, depth) {
  if (depth > DEEPEST) {
    return [el('p', { class: 'plain' }, lines.join('\n'))];
  }
  return blocks(lines).map((block) => renderBlock(block, depth));
}

function heading(line) {
  const [, marks, text] = HEADING.exec(line);
  return el(marks.length < 3 ? 'h3' : 'h4', {}, ...inline(text, 0));
}

function codeBlock(lines) {
  const [, fence, language] = FENCE.exec(lines[0]);
  const isClosed = lines.length > 1 && isFenceEnd(lines.at(-1), fence);
  const code = lines.slice(1, isClosed ? -1 : undefined).join('\n');
  const copy = button('Copy code', () => copyText(copy, code));
  const head = el('div', { class: 'row' }, el('span', { class: 'hint' }, language), copy);
  const body = el('pre', { tabindex: 0, 'aria-label': 'Code' }, el('code', {}, code));
  return el('div', { class: 'code' }, head, body);
}

function list(lines, depth) {
  const [, indent, mark] = ITEM.exec(lines[0]);
  const items = [];
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= indent.length + 1) {
      items.push([line.slice(found[0].length)]);
    } else {
      items.at(-1).push(line.replace(/^ {1,4}|^\t/, ''));
    }
  }
  const isNumbered = /\d/.test(mark);
  const start = isNumbered ? parseInt(mark, 10) : null;
  const item = (inner) => el('li', {}, ...tight(inner, depth));
  return el(isNumbered ? 'ol' : 'ul', { start }, ...items.map(item));
}

// An item of one line has no paragraph of its own.
function tight(lines, depth) {
  const rendered = renderAll(lines, depth + 1);
  const [first, ...rest] = rendered;
  return first?.tagName === 'P' ? [...first.childNodes, ...rest] : rendered;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, '').split('|');
  const [head, columns, ...body] = lines;
  const count = cells(columns).length;
  const row = (line, tag) => {
    const texts = cells(line).slice(0, count);
    return el('tr', {}, ...texts.map((cell) => el(tag, {}, ...inline(cell.trim(), 0))));
  };
  const rows = body.map((line) => row(line, 'td'));
  const inner = el('table', {}, el('thead', {}, row(head, 'th')), el('tbody', {}, ...rows));
  return el('div', { class: 'table' }, inner);
}

// Spans inside a line. Lengths are bounded, so that hostile texts cost little.
const SPANS = new RegExp([
  /(?<tick>`{1,3})(?<code>[^`]{1,2000})\k<tick>(?!`)/,
  /\\(?<escaped>[!-/:-@[-`{-~])/,
  /\*\*(?=\S)(?<strong>[^]{1,2000}?\S?)\*\*/,
  /(?<mark>\*|(?<!\w)_)(?=[^\s*_])(?<em>[^*_]{1,2000})\k<mark>(?!\w)/,
  /~~(?=\S)(?<gone>[^~]{1,2000})~~/,
  /!?\[(?<label>[^\][]{0,500})\]\((?<target>[^\s()]{1,2000})\)/,
  /(?<bare>https?:[/]{2}[^\s<>()"'`]{1,2000}[^\s<>()"'`.,;:!?])/,
  /(?<line>\n)/,
].map((part) => part.source).join('|'), 'g');

function inline(text, depth) {
  const found = [];
  let end = 0;
  for (const match of text.matchAll(SPANS)) {
    found.push(text.slice(end, match.index), span(match, depth));
    end = match.index + match[0].length;
  }
  found.push(text.slice(end));
  return found;
}

function span(match, depth) {
  const { code, escaped, strong, em, gone, label, target, bare } = match.groups;
  const inner = (text) => (depth < DEEPEST ? inline(text, depth + 1) : [text]);
  if (code !== undefined) return el('code', {}, code);
  if (escaped) return escaped;
  if (strong) return el('strong', {}, ...inner(strong));
  if (em) return el('em', {}, ...inner(em));
  if (gone) return el('del', {}, ...inner(gone));
  if (target) return link(target, label || target, match[0]);
  if (bare) return link(bare, bare, bare);
  return el('br');
}

function link(target, label, source) {
  if (!/^(https?:|mailto:)/i.test(target)) {
    return source;
  }
  const fields = { href: target, title: target, target: '_blank', rel: 'noopener noreferrer' };
  return el('a', fields, label);
}

// Shows a text in an element and keeps the elements of blocks that have not changed, so that a
// growing text costs only its last block.
function showMarkdown(element, text) {
  const wanted = blocks(text.split('\n'));
  const sources = wanted.map((block) => `${block.kind}\n${block.lines.join('\n')}`);
  const shown = element.sources ?? [];
  let same = 0;
  while (same < sources.length && sources[same] === shown[same]) same += 1;
  while (element.childNodes.length > same) element.lastChild.remove();
  element.append(...wanted.slice(same).map((block) => renderBlock(block, 0)));
  element.sources = sources;
}

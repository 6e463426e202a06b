// Uses the page of a server as a person would, in Chromium. Arguments: its address, the browser.
// Every wait is for a condition. Faults of a server are answers that the browser gets instead of
// the server's.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';
import puppeteer from 'puppeteer-core';
import { actsOf } from './acts.mjs';

const [address, executablePath] = process.argv.slice(2);
const files = resolve('downloads');
rmSync(files, { recursive: true, force: true });

const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox'] });
const page = await browser.newPage();
const problems = [];
const isHere = (url) => [address, 'data:', 'blob:'].some((start) => url.startsWith(start));
page.on('console', (said) => said.type() === 'error' && problems.push(said.text()));
page.on('pageerror', (error) => problems.push(String(error)));
page.on('dialog', (dialog) => dialog.accept());
// The body of the last request.
let sent = null;
page.on('request', (request) => {
  sent = request.hasPostData() ? JSON.parse(request.postData()) : sent;
  if (!isHere(request.url())) problems.push(`a request to ${request.url()}`);
});

// What the page shows, and acts of a person.
const { see, idle, step, setting, narrow } = actsOf(page, 'page');
const last = (selector) => page.evaluate((wanted) => {
  const found = [...document.querySelectorAll(wanted)].at(-1);
  return found ? found.textContent : null;
}, selector);
const press = async (selector, label) => {
  const [button] = (await page.$$(selector)).reverse();
  assert.ok(button, `no element ${selector} to press for ${label}`);
  await button.evaluate((element) => element.scrollIntoView({ block: 'center' }));
  await button.click();
};
const act = async (role, label) => {
  const selector = `.message.${role}:nth-last-child(${role === 'assistant' ? 1 : 2}) .actions`;
  const handle = await page.evaluateHandle((bar, text) => {
    const buttons = [...document.querySelectorAll(`${bar} button`)];
    return buttons.find((one) => [one.textContent, one.ariaLabel].includes(text) && !one.hidden);
  }, selector, label);
  const button = handle.asElement();
  assert.ok(button, `${role} has no button ${label}`);
  await button.evaluate((element) => element.scrollIntoView({ block: 'center' }));
  await button.click();
};
const send = async (text) => {
  const before = (await page.$$('.message')).length;
  await page.type('#input', text);
  await page.keyboard.press('Enter');
  await see((count) => document.querySelectorAll('.message').length > count, before + 1);
  await idle();
};
const answer = () => last('.message.assistant .text');
const note = () => last('.message.assistant .note');
const versions = (role) => last(`.message.${role} .versions`);
const picture = (name) => page.screenshot({ path: `${name}.png` });

async function opens() {
  await page.setViewport({ width: 1280, height: 800 });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'light' }]);
  const response = await page.goto(address);
  const policy = response.headers()['content-security-policy'];
  assert.match(policy, /default-src 'none'.*script-src 'sha256-/);
  assert.doesNotMatch(policy, /unsafe/);
  assert.ok((await response.buffer()).length <= 60_000, 'the page is larger than 60 kB');
  await see(() => document.querySelector('#model').value !== '');
}

// A seed with which the model says something: one of few steps often ends at once.
async function seedOfAnswer(content) {
  const body = { messages: [{ role: 'user', content }], max_tokens: 24 };
  for (let seed = 1; seed <= 100; seed++) {
    const reply = await fetch(`${address}v1/chat/completions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ ...body, seed }),
    });
    const { choices } = await reply.json();
    if (choices[0].message.content.trim().length > 3) return String(seed);
  }
  throw new Error('the model says nothing');
}

async function answers() {
  await setting('max_tokens', '24');
  await setting('seed', await seedOfAnswer('2+3='));
  await send('2+3=');
  assert.notEqual(await answer(), '', 'the answer is empty');
  assert.match(await last('.facts'), /tokens.*seed \d+.*st-[0-9a-f]{12}/);
  assert.match(await last('#context'), /\d+ of [\d,]+ tokens of context/);
  await act('assistant', 'Replay');
  await idle();
  assert.match(await note(), /^Replay: the same text/);
}

async function branches() {
  const first = await answer();
  await act('assistant', 'Tokens');
  await page.waitForSelector('.tokens .token');
  assert.match(await note(), /^Replay: the same text/, 'probabilities come from a replay');
  await press('.tokens .token:first-of-type', 'the first token');
  await picture('tokens');
  await page.waitForSelector('.others button:not(:disabled)');
  // Another token than the one that ends an answer.
  const token = await page.evaluate(() => {
    const others = [...document.querySelectorAll('.others button:not(:disabled)')];
    const other = others.find((button) => !button.textContent.includes('(the end)'));
    other.click();
    return other.querySelector('code').textContent;
  });
  await see(() => document.querySelectorAll('.tokens .token').length === 0);
  await idle();
  const start = { role: 'assistant', content: token.replaceAll('␣', ' ').replaceAll('↵', '\n') };
  assert.deepEqual(sent.messages.at(-1), start, 'the branch does not begin with the token');
  assert.equal(sent.continue_final_message, true);
  assert.equal(await versions('assistant'), '2 / 2');
  assert.notEqual(await answer(), first, 'the branch has the text of the first answer');
  await act('assistant', 'Previous version');
  assert.equal(await answer(), first);
  await act('assistant', 'Regenerate');
  await idle();
  assert.equal(await versions('assistant'), '3 / 3');
}

async function edits() {
  await act('assistant', 'Edit');
  await page.keyboard.type(' and more');
  await page.click('.edit .main');
  assert.equal(await last('.message.assistant .who'), 'Edited answer');
  await act('assistant', 'Continue');
  await idle();
  assert.match(await answer(), /and more/);
  assert.equal(await versions('assistant'), '5 / 5');
  await act('user', 'Edit');
  await page.keyboard.type('4');
  await page.click('.edit .main');
  await idle();
  assert.equal(await versions('user'), '2 / 2');
  assert.equal(await last('.message.user .text'), '2+3=4');
  await act('user', 'Previous version');
  assert.match(await answer(), /and more/, 'the answers of the other version are kept');
}

async function keeps() {
  const before = await answer();
  await page.reload();
  await see((text) => [...document.querySelectorAll('.text')].at(-1)?.textContent === text, before);
  const session = await page.createCDPSession();
  await session.send('Browser.setDownloadBehavior', {
    behavior: 'allow', downloadPath: files, eventsEnabled: true,
  });
  const done = new Promise((resolve) => {
    session.on('Browser.downloadProgress', ({ state }) => state === 'completed' && resolve());
  });
  await page.click('#export-all');
  await done;
  const [name] = readdirSync(files);
  const file = JSON.parse(readFileSync(`${files}/${name}`, 'utf8'));
  assert.equal(file.conversations.length, 1);
  const upload = await page.$('#file');
  await upload.uploadFile(`${files}/${name}`);
  await see(() => document.querySelectorAll('#list li').length === 2);
  assert.equal(await answer(), before, 'the imported conversation has the same answer');
}

async function fits() {
  await page.setViewport({ width: 390, height: 844, isMobile: true, hasTouch: true });
  await narrow('messages');
  await picture('phone');
  const light = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.notEqual(light, dark, 'the page has no dark colours');
  await act('assistant', 'Tokens');
  await page.waitForSelector('.tokens .token');
  await press('.tokens .token', 'a token');
  await narrow('tokens');
  await picture('phone-tokens');
  await page.click('#menu');
  await narrow('conversations');
  await picture('phone-conversations');
  await page.keyboard.press('Escape');
  await page.click('#open-settings');
  await narrow('settings');
  await picture('phone-settings');
  await page.keyboard.press('Escape');
  await page.setViewport({ width: 1280, height: 800 });
}

// The next request for an answer gets this reply; without one it waits for ever.
async function instead(reply) {
  await page.setRequestInterception(true);
  page.once('request', async (request) => {
    if (reply) await request.respond(reply);
  });
}

async function faults() {
  const part = (content) => `data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`;
  const stream = { status: 200, contentType: 'text/event-stream' };
  await page.click('#new');
  await instead({ ...stream, body: part('Half an answer <img src=x onerror=alert(1)>') });
  await send('cut');
  assert.match(await answer(), /^Half an answer <img/, 'the text was not kept, or became HTML');
  assert.equal((await page.$$('#messages img')).length, 0);
  assert.match(await last('.problem'), /connection ended before the answer/);

  const busy = { error: { message: 'the queue is full', code: 'queue_full' } };
  await instead({ status: 429, headers: { 'Retry-After': '7' }, body: JSON.stringify(busy) });
  await send('busy');
  assert.match(await last('.problem'), /queue is full.*Try again in 7 s/);

  const locked = { error: { message: 'no valid key', code: 'invalid_api_key' } };
  await instead({ status: 401, body: JSON.stringify(locked) });
  await send('locked');
  await see(() => document.querySelector('#keys').open);
  await page.keyboard.press('Escape');

  await instead(null);
  await page.type('#input', 'wait');
  await page.keyboard.press('Enter');
  await see(() => !document.querySelector('#stop').hidden);
  await page.keyboard.press('Escape');
  await idle();
  assert.match(await last('.message.assistant .facts'), /stopped/);
  await page.setRequestInterception(false);
}

try {
  for (const part of [opens, answers, branches, edits, keeps, fits]) {
    await part();
    step(part.name);
    assert.deepEqual(problems, [], 'errors in the console, or requests to other hosts');
  }
  await faults();
  step('faults');
} catch (error) {
  await picture('failed');
  console.error(error);
  console.error(problems.join('\n'));
  process.exitCode = 1;
} finally {
  await browser.close();
}

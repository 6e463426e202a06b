// Uses the page that runs a model in a browser as a person would, in Chromium: from a static
// server, and from `sterna serve --local`. Arguments: both addresses, the browser, the name of the
// served model. Every wait is for a condition.
import assert from 'node:assert/strict';
import puppeteer from 'puppeteer-core';
import { actsOf } from './acts.mjs';

const [site, server, executablePath, served] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox'] });
const page = await browser.newPage();
let problems = [];
let requests = [];
page.on('console', (said) => said.type() === 'error' && problems.push(said.text()));
page.on('pageerror', (error) => problems.push(String(error)));
page.on('dialog', (dialog) => dialog.accept());
page.on('request', (request) => requests.push(request.url()));
// A worker's requests are not the page's.
browser.on('targetcreated', async (target) => {
  const session = await target.createCDPSession().catch(() => null);
  await session?.send('Network.enable').catch(() => null);
  session?.on('Network.requestWillBeSent', ({ request }) => requests.push(request.url));
});

const { see, idle, step, setting, narrow } = actsOf(page, 'web');
const text = (selector) => page.$$eval(selector, (found) => found.at(-1)?.textContent ?? '');
const picture = (name) => page.screenshot({ path: `web-${name}.png` });
const quiet = () => assert.deepEqual(problems, [], 'errors in the console');

async function send(message) {
  const before = (await page.$$('.message')).length;
  await page.type('#input', message);
  await page.keyboard.press('Enter');
  await see((count) => document.querySelectorAll('.message').length > count, before);
  await idle();
}

async function loadAddress(address, sum = '') {
  if (!(await page.$('#models[open]'))) await page.click('#open-models');
  const fields = await page.$$('#by-address input');
  for (const [i, value] of [address, sum].entries()) {
    await fields[i].evaluate((field, wanted) => (field.value = wanted), value);
  }
  await page.click('#by-address button');
  await see(() => !document.querySelector('#models').open);
  await loadEnds();
}

const loadEnds = () => see(() => document.querySelector('#loading').hidden);
const isLoaded = () => see(() => document.querySelector('#model').value !== '');

async function opens() {
  await page.setViewport({ width: 1280, height: 800 });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'light' }]);
  await page.goto(site);
  await page.waitForSelector('#models[open]');
  await narrow('dialog');
  await picture('empty');
  await loadAddress(`${site}model.sterna`);
  await isLoaded();
  assert.match(await text('#status'), /is loaded/);
  assert.equal(await text('#notice'), '');
}

// The model writes. Tasks of the page that took longer than 50 ms meanwhile are printed: a busy
// machine has some.
async function writes() {
  await setting('temperature', '0.8');
  await setting('max_tokens', '32');
  await page.evaluate(() => {
    window.long = [];
    const watch = (list) => window.long.push(...list.getEntries().map(({ duration }) => duration));
    new PerformanceObserver(watch).observe({ type: 'longtask' });
  });
  for (let seed = 1; ; seed += 1) {
    assert.ok(seed < 100, 'the model does not write 32 tokens');
    await setting('seed', String(seed));
    await page.click('#new');
    await setting('mode', 'text');
    await send('Once there was');
    if (/^32 tokens/.test(await text('.facts'))) break;
  }
  assert.match(await text('.facts'), /^32 tokens · [\d.]+ tokens\/s .*seed \d+ · st-[0-9a-f]{12}/);
  const long = await page.evaluate(() => window.long);
  if (long.length > 0) console.log(`tasks of the page took ${long} ms`);
  await picture('answer');
  const buttons = await page.$$('.message.assistant .actions button');
  const labels = await Promise.all(buttons.map((one) => one.evaluate((e) => e.textContent)));
  const press = async (label) => {
    await buttons[labels.indexOf(label)].click();
    await idle();
  };
  const answer = await text('.message.assistant .text');
  await press('Replay');
  assert.match(await text('.message.assistant .note'), /^Replay: the same text/);
  await press('Tokens');
  await page.waitForSelector('.tokens .token');
  await page.click('.tokens .token:nth-of-type(3)');
  await page.waitForSelector('.others li');
  await picture('tokens');
  await press('Tokens');
  return answer;
}

async function comesBack(answer) {
  requests = [];
  await page.reload();
  await isLoaded();
  assert.match(await text('#status'), /from the store of this browser/);
  assert.deepEqual(requests.filter((url) => url.endsWith('.sterna')), [], 'it was loaded again');
  assert.equal(await text('.message.assistant .text'), answer);
}

// The answer is stopped when its first words are there, unless it has ended by itself.
async function stops() {
  await setting('max_tokens', '');
  await setting('temperature', '2');
  for (let seed = 1; ; seed += 1) {
    assert.ok(seed < 20, 'no answer was stopped');
    await setting('seed', String(seed));
    await page.click('#new');
    await setting('mode', 'text');
    await page.evaluate(() => {
      const look = () => {
        const answer = document.querySelector('.message.assistant .text');
        if (!answer?.textContent) return requestAnimationFrame(look);
        return document.querySelector('#stop').click();
      };
      look();
    });
    await send('Once');
    if (/stopped/.test(await text('.facts'))) break;
  }
}

async function files(path) {
  const chooser = await page.$('#models input[type=file]');
  await chooser.uploadFile(path);
  await loadEnds();
  await isLoaded();
  assert.match(await text('#status'), /from a file/);
}

async function dropped() {
  await page.evaluate(async () => {
    const bytes = await (await fetch('model.sterna')).arrayBuffer();
    const data = new DataTransfer();
    data.items.add(new File([bytes], 'dropped.sterna'));
    const fire = (type) => document.body.dispatchEvent(new DragEvent(type, {
      dataTransfer: data, bubbles: true, cancelable: true,
    }));
    fire('dragover');
    fire('drop');
  });
  await see(() => document.querySelector('#model').value === 'dropped');
}

async function faults() {
  const wrong = [
    [`${site}cut.sterna`, '', /not a Sterna packed file|bytes/],
    [`${site}index.html`, '', /is a web page/],
    [`${site}sterna.wasm`, '', /not a Sterna packed file/],
    [`${site}nothing.sterna`, '', /answers 404/],
    [`${site}model.sterna`, '0'.repeat(64), /sha256/],
    ['http://127.0.0.1:9/model.sterna', '', /cannot be read/],
  ];
  for (const [address, sum, says] of wrong) {
    await loadAddress(address, sum);
    await see(() => !document.querySelector('#notice').hidden);
    assert.match(await text('#notice'), says);
  }
  await picture('fault');
  await send('Once');
  assert.match(await text('.problem'), /no model is loaded.*Load a model/i);
  await loadAddress(`${site}model.sterna`);
  await isLoaded();
  assert.equal(await text('#notice'), '');
  // The browser reports loads that failed.
  problems = problems.filter((problem) => !/Failed to load resource|net::ERR/.test(problem));
}

async function fits() {
  // The browser reloads the page for another kind of device.
  await page.setViewport({ width: 390, height: 844, isMobile: true, hasTouch: true });
  await isLoaded();
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
  await narrow('messages');
  await picture('phone-dark');
  await page.click('#open-models');
  await narrow('models');
  await picture('phone-models');
  await page.keyboard.press('Escape');
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'light' }]);
  await picture('phone');
  await page.setViewport({ width: 1280, height: 800 });
  await isLoaded();
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
  await page.click('#open-models');
  await picture('dark-models');
  await page.keyboard.press('Escape');
}

// The model moves from the server into the page, which then writes what the server writes.
async function moves() {
  await page.goto(`${server}local`);
  await page.waitForSelector('#models[open] .sources li');
  await page.evaluate((name) => {
    const rows = [...document.querySelectorAll('.sources li')];
    rows.find((row) => row.textContent.startsWith(`${name} `)).querySelector('button').click();
  }, served);
  await see((name) => document.querySelector('#model').value === name, served);
  await page.click('#new');
  await setting('max_tokens', '24');
  await setting('seed', '7');
  await send('2+3=');
  const body = { model: served, messages: [{ role: 'user', content: '2+3=' }], seed: 7,
    max_tokens: 24 };
  const reply = await fetch(`${server}v1/chat/completions`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body),
  });
  const { choices: [{ message }], system_fingerprint: fingerprint } = await reply.json();
  const written = await page.evaluate(() => {
    const stored = Object.keys(localStorage).filter((name) => name.startsWith('sterna.chat.'));
    const all = stored.map((name) => JSON.parse(localStorage.getItem(name)));
    const nodes = all.flatMap(({ nodes }) => Object.values(nodes));
    return nodes.find(({ role }) => role === 'assistant');
  });
  assert.equal(written.text, message.content);
  assert.equal(written.fingerprint, fingerprint);
}

try {
  await opens();
  step('opens');
  quiet();
  const answer = await writes();
  step('writes 32 tokens');
  quiet();
  await comesBack(answer);
  step('comes back from the store');
  quiet();
  await stops();
  step('stops');
  await files(process.argv[6]);
  await dropped();
  step('files');
  quiet();
  await faults();
  step('faults');
  await fits();
  step('fits');
  quiet();
  await moves();
  step('moves');
  quiet();
} catch (error) {
  await picture('failed');
  console.error(error);
  console.error(problems.join('\n'));
  process.exitCode = 1;
} finally {
  await browser.close();
}

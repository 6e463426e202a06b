// What the tests of both pages do with a page, as a person would.
import assert from 'node:assert/strict';

// `name` begins the lines that are printed.
export function actsOf(page, name) {
  const see = (test, ...args) => page.waitForFunction(test, {}, ...args);
  return {
    see,
    idle: () => see(() => document.querySelector('#stop').hidden),
    step: (what) => console.log(`${name}: ${what}`),

    async setting(field, value) {
      await page.click('#open-settings');
      await page.$eval(`#settings [name="${field}"]`, (one, text) => (one.value = text), value);
      await page.click('#settings button[value="save"]');
      await see(() => !document.querySelector('#settings').open);
    },

    // No part of the page is wider than the window.
    async narrow(what) {
      const wide = await page.evaluate(() => {
        const parts = [document.documentElement, document.querySelector('#scroll'),
          ...document.querySelectorAll('dialog[open]')];
        return parts.filter((part) => part.scrollWidth > part.clientWidth)
          .map((part) => part.tagName);
      });
      assert.deepEqual(wide, [], `${what}: parts are wider than the window`);
    },
  };
}

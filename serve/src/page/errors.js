// Errors in words: what happened, and what to do. `ADVICE` is that of what answers.

class Refusal extends Error {
  constructor(message, { status = 0, code, param, wait = 0 }) {
    super(message);
    Object.assign(this, { status, code, param, wait });
  }
}

// What happened and what to do.
function inWords(error) {
  const parts = [sentence(error.message || (ADVICE[error.code] ? '' : 'the answer failed'))];
  if (error instanceof Refusal) {
    const isSetting = NUMBERS.some(({ name }) => name === error.param) || error.param === 'stop';
    parts.push(ADVICE[error.code]);
    parts.push(isSetting ? `Change ${error.param} in the settings.` : '');
    parts.push(error.wait > 0 ? `Try again in ${error.wait} s.` : '');
    parts.push(error.status >= 500 && !ADVICE[error.code] ? 'Read the output of the server.' : '');
  }
  return parts.filter(Boolean).join(' ');
}

function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return start && !/[.!?]$/.test(start) ? `${start}.` : start;
}

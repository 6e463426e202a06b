// Requests to the server that this page came from, and what to do about its errors.

const KEY = 'sterna.key';
let key = recall('sessionStorage', KEY);

function headers() {
  return { 'Content-Type': 'application/json', ...(key && { Authorization: `Bearer ${key}` }) };
}

// Sends a request; throws a Refusal for every reply that is not an answer.
async function ask(path, body, signal) {
  const method = body ? 'POST' : 'GET';
  let response;
  try {
    const options = { method, headers: headers(), body: body && JSON.stringify(body), signal };
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refusal('', { code: 'unreachable' });
  }
  if (!response.ok) {
    throw await refusal(response);
  }
  return response;
}

async function refusal(response) {
  const text = await response.text().catch(() => '');
  let said = {};
  try {
    said = JSON.parse(text).error ?? {};
  } catch {
    // A proxy answered, and not the server.
  }
  const wait = Number(response.headers.get('Retry-After')) || 0;
  const message = said.message ?? `The reply has status ${response.status}: ${text.slice(0, 200)}`;
  return new Refusal(message, { ...said, status: response.status, wait });
}

// The data of the events of a stream. A stream that ends before `[DONE]` is an error.
async function* events(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === 'AbortError') throw error;
      return { done: true };
    });
    if (done) throw new Refusal('', { code: 'cut' });
    rest += decoder.decode(value, { stream: true });
    const lines = rest.split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines.filter((line) => line.startsWith('data:'))) {
      const data = line.slice(5).trim();
      if (data === '[DONE]') return;
      const event = JSON.parse(data);
      if (event.error) {
        throw new Refusal(event.error.message, event.error);
      }
      yield event;
    }
  }
}

const ADVICE = {
  unreachable: 'The server does not answer. See if `sterna serve` still runs, then try again.',
  cut: 'The connection ended before the answer did. The text so far is kept. Press Continue when ' +
    'the server runs again.',
  invalid_api_key: 'Press Key and type one of the keys of the server.',
  model_not_found: 'Choose another model at the top.',
  context_length_exceeded: 'Shorten a message with Edit, or start a new conversation.',
  queue_full: 'The server is busy.',
  draining: 'Start the server again, then try again.',
  no_chat_template: 'Choose the mode plain text in the settings.',
  template_error: 'Some templates know no system prompt, or want user and assistant in turn.',
};

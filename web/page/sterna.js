// sterna.wasm for JavaScript: memory, calls, and the nine functions of WASI that it imports.
//
// The WASI functions are written here: browsers have none, and libraries that offer them bring a
// file system, which a model in memory does not need. Node's own work as well.

const ENOSYS = 52;
const EBADF = 8;
// The longest tail of standard error that is kept: the message of a panic.
const TAIL = 4000;

export class SternaError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

// A module that is one function with a vector. Where it is not valid, sterna.wasm is not either.
const VECTORS = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0,
  10, 8, 1, 6, 0, 65, 0, 253, 15, 11]);

export function checkVectors() {
  if (typeof WebAssembly === 'undefined' || !WebAssembly.validate(VECTORS)) {
    throw new SternaError('this browser has no vectors of 128 bits in WebAssembly (simd128): ' +
      'use Chrome 91, Firefox 89, Safari 16.4 or a later one', 'no_simd');
  }
}

export class Sterna {
  #exports;
  #said = '';
  #isDead = false;

  // `source`: the bytes of sterna.wasm, or a module of them.
  static async start(source) {
    checkVectors();
    const module = source instanceof WebAssembly.Module
      ? source : await WebAssembly.compile(source);
    const sterna = new Sterna();
    const imports = { wasi_snapshot_preview1: sterna.#wasi(module) };
    const { exports } = await WebAssembly.instantiate(module, imports);
    sterna.#exports = exports;
    exports._initialize();
    return sterna;
  }

  // Makes room for a file of `length` bytes. What was written already stays.
  room(length) {
    const place = length < 2 ** 31 - 2 ** 16 ? this.#run('sterna_room', length) >>> 0 : 0;
    if (place !== 0) return place;
    const said = length < 2 ** 31 - 2 ** 16 ? this.#output() : '{}';
    const { message, code } = JSON.parse(said);
    throw new SternaError(message ?? `the model has ${length} bytes: WebAssembly has room for ` +
      'less than 2 GiB in one piece; use `sterna chat` or `sterna serve`', code ?? 'memory');
  }

  // Writes a part of the file to `at`, which has room, and adds it to the sum.
  write(place, at, bytes) {
    new Uint8Array(this.#exports.memory.buffer).set(bytes, place + at);
    this.#run('sterna_arrived', at + bytes.length);
  }

  // A copy of a part of the memory.
  read(place, length) {
    return new Uint8Array(this.#exports.memory.buffer, place, length).slice();
  }

  open(fields) {
    return this.#call('sterna_open', fields);
  }

  encode(text, addSpecialTokens) {
    return this.#call('sterna_encode', { text, add_special_tokens: addSpecialTokens }).ids;
  }

  decode(ids) {
    return this.#call('sterna_decode', { ids }).text;
  }

  render(messages, isContinued = false) {
    return this.#call('sterna_render', { messages, continue_final_message: isContinued }).text;
  }

  // The logits of the token after `ids`.
  logits(ids) {
    this.#ask('sterna_logits', { ids });
    return new Float32Array(this.#bytes().buffer);
  }

  // Begins an answer. Its fields are those of the server's requests that change an answer.
  begin(request) {
    this.#ask('sterna_begin', request);
  }

  // The next part of the answer.
  step() {
    const isLast = this.#run('sterna_step') === 2;
    return { event: this.#answer(), isLast };
  }

  // The bytes of memory that the instance has taken.
  get memory() {
    return this.#exports.memory.buffer.byteLength;
  }

  #call(name, fields) {
    this.#ask(name, fields);
    return this.#answer();
  }

  #ask(name, fields) {
    const text = new TextEncoder().encode(JSON.stringify(fields));
    const place = this.#run('sterna_input', text.length) >>> 0;
    new Uint8Array(this.#exports.memory.buffer).set(text, place);
    const state = this.#run(name);
    if (state === 1) this.#answer();
  }

  #bytes() {
    const place = this.#run('sterna_output') >>> 0;
    return this.read(place, this.#run('sterna_output_len'));
  }

  #output() {
    return new TextDecoder().decode(this.#bytes());
  }

  // The output as a value; throws what was refused.
  #answer() {
    const said = JSON.parse(this.#output());
    if (said.code) throw new SternaError(said.message, said.code);
    return said;
  }

  // Runs an export. After a trap the instance can do nothing more.
  #run(name, ...args) {
    if (this.#isDead) {
      throw new SternaError('the program has stopped; load the model again', 'dead');
    }
    try {
      return this.#exports[name](...args);
    } catch (trap) {
      this.#isDead = true;
      throw this.#death(trap);
    }
  }

  #death(trap) {
    const memory = /memory allocation of (\d+) bytes failed/.exec(this.#said);
    if (memory) {
      return new SternaError(`${memory[1]} more bytes of memory: the browser has no more for this ` +
        'page; close other tabs, or choose a smaller model', 'memory');
    }
    const panic = this.#said.split('\n').filter((line) => line && !/RUST_BACKTRACE/.test(line));
    const why = panic.length > 0 ? panic.join(' ') : String(trap);
    return new SternaError(`the program has stopped: ${why}; load the model again, and report ` +
      'this if the file is not damaged', 'dead');
  }

  #wasi(module) {
    const view = () => new DataView(this.#exports.memory.buffer);
    // No arguments, no environment: two counts of nothing.
    const none = (count, size) => {
      view().setUint32(count, 0, true);
      view().setUint32(size, 0, true);
      return 0;
    };
    const own = {
      args_get: () => 0,
      args_sizes_get: none,
      environ_get: () => 0,
      environ_sizes_get: none,
      clock_time_get: (clock, _precision, time) => {
        const now = clock === 0 ? Date.now() : performance.now();
        view().setBigUint64(time, BigInt(Math.round(now * 1e6)), true);
        return 0;
      },
      random_get: (place, length) => {
        // Browsers give at most 65,536 bytes at a time.
        for (let at = 0; at < length; at += 65536) {
          const part = Math.min(65536, length - at);
          const target = new Uint8Array(this.#exports.memory.buffer, place + at, part);
          crypto.getRandomValues(target);
        }
        return 0;
      },
      fd_write: (file, list, count, written) => {
        let total = 0;
        for (let i = 0; i < count; i += 1) {
          const place = view().getUint32(list + 8 * i, true);
          const length = view().getUint32(list + 8 * i + 4, true);
          const text = new TextDecoder().decode(this.read(place, length));
          this.#said = file === 2 ? (this.#said + text).slice(-TAIL) : this.#said;
          total += length;
        }
        view().setUint32(written, total, true);
        return 0;
      },
      fd_prestat_get: () => EBADF,
      proc_exit: (status) => {
        throw new Error(`exit with status ${status}`);
      },
    };
    const names = WebAssembly.Module.imports(module).map(({ name }) => name);
    // What has to do with files answers that it does not exist.
    return Object.fromEntries(names.map((name) => [name, own[name] ?? (() => ENOSYS)]));
  }
}

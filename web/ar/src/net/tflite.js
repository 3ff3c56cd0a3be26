/**
 * Cuts a .tflite file at custom operators.
 *
 * LiteRT.js takes a file with operators that its CPU code does not have, and then answers noise.
 * What lies between them are ordinary graphs, so a file becomes a list of stages: graphs that
 * LiteRT runs, and operators that `custom.js` computes. A stage's graph is the file itself behind a new header: a model table that names other
 * operators, inputs and outputs, and shares all else. FlatBuffers' offsets lead forward, so a
 * header in front can refer to everything.
 *
 * The format is TensorFlow Lite's schema, version 3.
 */

const MODEL = { version: 0, codes: 1, subgraphs: 2, buffers: 4 };
const SUBGRAPH = { tensors: 0, inputs: 1, outputs: 2, operators: 3 };
const OPERATOR = { code: 0, inputs: 1, outputs: 2, options: 5 };
const CODE = { builtin8: 0, custom: 1, builtin: 3 };
const TENSOR = { shape: 0, name: 3 };
const DEQUANTIZE = 6;
const ALIGN = 64;

/**
 * @typedef {{ index: number, code: number, custom: string, ours: boolean, inputs: number[], outputs: number[],
 *   options: Uint8Array, at: number }} Operator `ours` are those that LiteRT is not given; `at` is
 *   where its table is.
 * @typedef {{ kind: "graph", bytes: Uint8Array, inputs: number[], outputs: number[] } |
 *   { kind: "custom", operator: Operator }} Stage
 * @typedef {{ name: string, shape: number[] }} Tensor
 * @typedef {{ stages: Stage[], tensors: Tensor[], inputs: number[], outputs: number[] }} Plan
 */

/** Reads FlatBuffers' tables. */
class Reader {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** @param {number} at @returns {number} Where an offset leads. */
  follow(at) {
    return at + this.view.getUint32(at, true);
  }

  /** @param {number} table @param {number} field @returns {number} Its place, 0 without one. */
  field(table, field) {
    const vtable = table - this.view.getInt32(table, true);
    if (4 + 2 * field >= this.view.getUint16(vtable, true)) return 0;
    const offset = this.view.getUint16(vtable + 4 + 2 * field, true);
    return offset ? table + offset : 0;
  }

  /** @param {number} table @param {number} field @returns {number} Where a vector or table is. */
  child(table, field) {
    const at = this.field(table, field);
    return at ? this.follow(at) : 0;
  }

  /** @param {number} vector @returns {number[]} Where its tables are. */
  tables(vector) {
    if (!vector) return [];
    const count = this.view.getUint32(vector, true);
    return Array.from({ length: count }, (_, i) => this.follow(vector + 4 + 4 * i));
  }

  /** @param {number} vector @returns {number[]} */
  ints(vector) {
    if (!vector) return [];
    const count = this.view.getUint32(vector, true);
    return Array.from({ length: count }, (_, i) => this.view.getInt32(vector + 4 + 4 * i, true));
  }

  /** @param {number} vector @returns {Uint8Array} */
  blob(vector) {
    if (!vector) return new Uint8Array();
    return this.bytes.subarray(vector + 4, vector + 4 + this.view.getUint32(vector, true));
  }

  /** @param {number} vector @returns {string} */
  text(vector) {
    return new TextDecoder().decode(this.blob(vector));
  }
}

/** Writes a header: tables and vectors of 32-bit numbers and offsets. */
class Writer {
  constructor() {
    /** @type {number[]} */
    this.words = [0, 0];
    /** @type {{ at: number, to: number, old: boolean }[]} */
    this.offsets = [];
  }

  get here() {
    return 4 * this.words.length;
  }

  /** @param {number} to @param {boolean} old Whether it leads into the file behind the header. */
  offset(to, old) {
    this.offsets.push({ at: this.here, to, old });
    this.words.push(0);
  }

  /** @param {number[]} values @returns {number} */
  ints(values) {
    const at = this.here;
    this.words.push(values.length, ...values);
    return at;
  }

  /**
   * @param {({ old: number } | { value: number } | { later: number } | null)[]} fields In order.
   * @returns {{ at: number, holes: Map<number, number> }} The table, and by `later` the place of
   *   an offset that is to be filled.
   */
  table(fields) {
    // The vtable: its size, the table's size, and each field's place in the table, as 16 bits.
    const places = [];
    let size = 4;
    for (const field of fields) {
      places.push(field ? size : 0);
      if (field) size += 4;
    }
    const shorts = [4 + 2 * fields.length, size, ...places];
    if (shorts.length % 2) shorts.push(0);
    const vtable = this.here;
    for (let i = 0; i < shorts.length; i += 2) {
      this.words.push(shorts[i] | (shorts[i + 1] << 16));
    }
    const at = this.here;
    this.words.push(at - vtable);
    const holes = new Map();
    for (const field of fields) {
      if (!field) continue;
      if ("value" in field) this.words.push(field.value);
      else if ("old" in field) this.offset(field.old, true);
      else {
        holes.set(field.later, this.here);
        this.words.push(0);
      }
    }
    return { at, holes };
  }

  /** @param {number} at Of a hole. @param {number} to */
  fill(at, to) {
    this.offsets.push({ at, to, old: false });
  }

  /** @param {Uint8Array} file @returns {Uint8Array} The header and the file. */
  finish(file) {
    const size = Math.ceil(this.here / ALIGN) * ALIGN;
    for (const { at, to, old } of this.offsets) this.words[at / 4] = (old ? size + to : to) - at;
    const bytes = new Uint8Array(size + file.length);
    const view = new DataView(bytes.buffer);
    this.words.forEach((word, i) => view.setInt32(4 * i, word, true));
    bytes.set(new TextEncoder().encode("TFL3"), 4);
    bytes.set(file, size);
    return bytes;
  }
}

/** @param {Reader} reader @param {number} model @returns {{ code: number, custom: string }[]} */
function readCodes(reader, model) {
  return reader.tables(reader.child(model, MODEL.codes)).map((table) => {
    const low = reader.field(table, CODE.builtin8);
    const high = reader.field(table, CODE.builtin);
    const code = Math.max(
      low ? reader.view.getInt8(low) : 0,
      high ? reader.view.getInt32(high, true) : 0,
    );
    return { code, custom: reader.text(reader.child(table, CODE.custom)) };
  });
}

/**
 * @param {Reader} reader
 * @param {number} model
 * @param {number} graph
 * @param {readonly string[]} names Of the custom operators at which the file is cut.
 * @returns {Operator[]}
 */
function readOperators(reader, model, graph, names) {
  const codes = readCodes(reader, model);
  return reader.tables(reader.child(graph, SUBGRAPH.operators)).map((at, index) => {
    const place = reader.field(at, OPERATOR.code);
    const code = codes[place ? reader.view.getUint32(place, true) : 0];
    return {
      ...code,
      ours: names.includes(code.custom),
      index,
      at,
      inputs: reader.ints(reader.child(at, OPERATOR.inputs)),
      outputs: reader.ints(reader.child(at, OPERATOR.outputs)),
      options: reader.blob(reader.child(at, OPERATOR.options)),
    };
  });
}

/**
 * @param {Reader} reader
 * @param {number} graph
 * @param {number} model
 * @param {Operator[]} operators
 * @param {number[]} inputs
 * @param {number[]} outputs
 */
function graphOf(reader, model, graph, operators, inputs, outputs) {
  const writer = new Writer();
  const whole = writer.table([
    { value: 3 },
    { old: reader.child(model, MODEL.codes) },
    { later: 0 },
    null,
    { old: reader.child(model, MODEL.buffers) },
  ]);
  writer.fill(0, whole.at);
  const list = writer.here;
  writer.words.push(1);
  const first = writer.here;
  writer.words.push(0);
  writer.fill(/** @type {number} */ (whole.holes.get(0)), list);
  const table = writer.table([
    { old: reader.child(graph, SUBGRAPH.tensors) },
    { later: 0 },
    { later: 1 },
    { later: 2 },
  ]);
  writer.fill(first, table.at);
  const hole = (/** @type {number} */ i) => /** @type {number} */ (table.holes.get(i));
  writer.fill(hole(0), writer.ints(inputs));
  writer.fill(hole(1), writer.ints(outputs));
  writer.fill(hole(2), writer.here);
  writer.words.push(operators.length);
  for (const operator of operators) writer.offset(operator.at, true);
  return writer.finish(reader.bytes);
}

/**
 * @param {Operator[]} operators
 * @returns {{ runs: Operator[][], constant: Map<number, Operator> }} Operators in runs, each of
 *   which is one of ours or has none of them; and by tensor those that unpack constants, which
 *   every run that needs them has for itself.
 */
function runsOf(operators) {
  /** @type {Set<number>} */
  const made = new Set(operators.flatMap((operator) => operator.outputs));
  /** @type {Map<number, Operator>} */
  const constant = new Map();
  /** @type {Operator[][]} */
  const runs = [];
  for (const operator of operators) {
    if (operator.code === DEQUANTIZE && operator.inputs.every((input) => !made.has(input))) {
      constant.set(operator.outputs[0], operator);
      continue;
    }
    const last = runs.at(-1);
    if (!operator.ours && last && !last[0].ours) last.push(operator);
    else runs.push([operator]);
  }
  return { runs, constant };
}

/**
 * @param {Uint8Array} file
 * @param {readonly string[]} names Of the custom operators at which it is cut.
 * @returns {Plan}
 * @throws {Error} It is no .tflite file.
 */
export function cut(file, names) {
  const reader = new Reader(file);
  if (file.length < 16 || new TextDecoder().decode(file.subarray(4, 8)) !== "TFL3") {
    throw new Error("this is no .tflite file");
  }
  const model = reader.follow(0);
  const graph = reader.tables(reader.child(model, MODEL.subgraphs))[0];
  const inputs = reader.ints(reader.child(graph, SUBGRAPH.inputs));
  const outputs = reader.ints(reader.child(graph, SUBGRAPH.outputs));
  const tensors = reader.tables(reader.child(graph, SUBGRAPH.tensors)).map((table) => ({
    name: reader.text(reader.child(table, TENSOR.name)),
    shape: reader.ints(reader.child(table, TENSOR.shape)),
  }));
  const operators = readOperators(reader, model, graph, names);
  if (operators.every((operator) => !operator.ours)) {
    const stages = [{ kind: /** @type {const} */ ("graph"), bytes: file, inputs, outputs }];
    return { stages, tensors, inputs, outputs };
  }
  const { runs, constant } = runsOf(operators);
  const known = new Set(inputs);
  /** @type {Stage[]} */
  const stages = [];
  runs.forEach((run, place) => {
    const later = new Set([...outputs, ...runs.slice(place + 1).flat().flatMap((o) => o.inputs)]);
    const made = run.flatMap((operator) => operator.outputs);
    const used = [...new Set(run.flatMap((operator) => operator.inputs))];
    const unpacked = used.flatMap((tensor) => constant.get(tensor) ?? []);
    if (run[0].ours) {
      stages.push({ kind: "custom", operator: run[0] });
    } else {
      const given = used.filter((tensor) => known.has(tensor));
      const wanted = made.filter((tensor) => later.has(tensor));
      const bytes = graphOf(reader, model, graph, [...unpacked, ...run], given, wanted);
      stages.push({ kind: "graph", bytes, inputs: given, outputs: wanted });
    }
    made.forEach((tensor) => known.add(tensor));
  });
  return { stages, tensors, inputs, outputs };
}

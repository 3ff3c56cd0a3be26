/**
 * Checks a value against the part of JSON Schema that the program's own schema of `filter.toml`
 * uses, and fills in what is left out.
 *
 * @typedef {{ [key: string]: any }} Schema
 */

/** What is wrong in a file, and where: "parts[1].opacity". */
export class Invalid extends Error {
  /** @param {string} place @param {string} message */
  constructor(place, message) {
    super(place ? `${place}: ${message}` : message);
    this.name = "Invalid";
  }
}

/**
 * @param {unknown} value
 * @param {Schema} schema
 * @param {Schema} root Where `$ref` leads.
 * @param {string} place For messages.
 * @returns {any} The value with its defaults.
 * @throws {Invalid}
 */
export function checked(value, schema, root = schema, place = "") {
  if (schema.$ref) return checked(value, root.$defs[schema.$ref.split("/").at(-1)], root, place);
  if (schema.discriminator) return checked(value, chosen(value, schema, place), root, place);
  if (schema.anyOf) return anyOf(value, schema, root, place);
  if ("const" in schema && value !== schema.const) {
    throw new Invalid(place, `it must be ${JSON.stringify(schema.const)}`);
  }
  if (schema.enum && !schema.enum.includes(value)) {
    throw new Invalid(place, `${show(value)} is not one of ${schema.enum.join(", ")}`);
  }
  const check = CHECKS[schema.type];
  return check ? check(value, schema, root, place) : value;
}

/** @param {unknown} value @returns {string} */
function show(value) {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 40 ? `${text.slice(0, 40)}...` : text;
}

/** @param {any} value @param {Schema} schema @param {string} place @returns {Schema} */
function chosen(value, { discriminator }, place) {
  const { propertyName: name, mapping } = discriminator;
  const reference = Object.hasOwn(mapping, value?.[name]) ? mapping[value[name]] : null;
  if (reference) return { $ref: reference };
  const known = Object.keys(mapping).join(", ");
  throw new Invalid(place, `${name} = ${show(value?.[name])}; there are: ${known}`);
}

/** @param {unknown} value @param {Schema} schema @param {Schema} root @param {string} place */
function anyOf(value, schema, root, place) {
  const problems = [];
  for (const one of schema.anyOf) {
    if (one.type === "null") continue;
    try {
      return checked(value, one, root, place);
    } catch (error) {
      if (!(error instanceof Invalid)) throw error;
      problems.push(error);
    }
  }
  throw problems[0];
}

/** @type {Record<string, (value: any, schema: Schema, root: Schema, place: string) => any>} */
const CHECKS = {
  object(value, schema, root, place) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new Invalid(place, "it must be a table");
    }
    const known = schema.properties ?? {};
    if (schema.maxProperties && Object.keys(value).length > schema.maxProperties) {
      throw new Invalid(place, `it has more than ${schema.maxProperties} entries`);
    }
    /** @type {Record<string, unknown>} */
    const out = {};
    const at = (/** @type {string} */ name) => (place ? `${place}.${name}` : name);
    for (const [name, each] of Object.entries(value)) {
      const schemaOf = Object.hasOwn(known, name) ? known[name] : schema.additionalProperties;
      if (!schemaOf) {
        throw new Invalid(at(name), `unknown; there are: ${Object.keys(known).join(", ")}`);
      }
      out[name] = checked(each, schemaOf, root, at(name));
    }
    for (const [name, each] of Object.entries(known)) {
      if (name in out) continue;
      if (schema.required?.includes(name)) throw new Invalid(at(name), "it is missing");
      out[name] = structuredClone(/** @type {Schema} */ (each).default) ?? null;
    }
    return out;
  },
  array(value, schema, root, place) {
    // One landmark may stand for a list of one.
    if (Number.isInteger(value) && schema.items?.type === "integer") value = [value];
    if (!Array.isArray(value)) throw new Invalid(place, "it must be a list");
    if (value.length < (schema.minItems ?? 0) || value.length > (schema.maxItems ?? Infinity)) {
      throw new Invalid(place, `it has ${value.length} entries, which is too few or too many`);
    }
    return value.map((each, i) =>
      checked(each, schema.prefixItems?.[i] ?? schema.items ?? {}, root, `${place}[${i}]`),
    );
  },
  string(value, schema, _, place) {
    if (typeof value !== "string") throw new Invalid(place, "it must be text in quotes");
    if (value.length < (schema.minLength ?? 0) || value.length > (schema.maxLength ?? Infinity)) {
      throw new Invalid(place, `${show(value)} is too short or too long`);
    }
    if (schema.pattern && !new RegExp(schema.pattern, "u").test(value)) {
      throw new Invalid(place, `${show(value)} does not look like ${schema.pattern}`);
    }
    return value;
  },
  number: numeric,
  integer(value, schema, root, place) {
    if (!Number.isInteger(value)) throw new Invalid(place, `${show(value)} is no whole number`);
    return numeric(value, schema, root, place);
  },
  boolean(value, _schema, _root, place) {
    if (typeof value !== "boolean") throw new Invalid(place, "it must be true or false");
    return value;
  },
};

/** @param {any} value @param {Schema} schema @param {Schema} _ @param {string} place */
function numeric(value, schema, _, place) {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new Invalid(place, `${show(value)} is no number`);
  }
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  const low = value < (minimum ?? -Infinity) || value <= (exclusiveMinimum ?? -Infinity);
  const high = value > (maximum ?? Infinity) || value >= (exclusiveMaximum ?? Infinity);
  if (low) throw new Invalid(place, `${value} is too small`);
  if (high) throw new Invalid(place, `${value} is too large`);
  return value;
}

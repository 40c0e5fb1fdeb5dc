/**
 * The service's endpoints, with what a visitor should not have to do by hand: give the key again, wait, retry.
 *
 * 401, and 403 for a key of the wrong role: the key is dropped and asked for. 429, 503, 504 and no answer at all: the
 * reason is shown in words and the request goes out again after what Retry-After says. Anything else is an ApiError.
 */

import { NoKey, askFor, forget, keyOf } from "./keys.js";

/** @typedef {import("./keys.js").Role} Role */
/**
 * @typedef {object} Options
 * @property {AbortSignal} [signal] ends the request, its retries and its waiting
 * @property {Role} [role] whose key is sent; "forecast" unless told
 * @property {boolean} [retries] false for what must not happen twice; then every failure is an ApiError
 */
/**
 * @typedef {object} Api
 * @property {(path: string, options?: Options) => Promise<any>} get the JSON answer
 * @property {(path: string, body: object | null, options?: Options) => Promise<any>} post
 */

/** An answer that trying again will not change. */
export class ApiError extends Error {
  /**
   * @param {number} status 0: no answer
   * @param {string} message the service's own words
   * @param {{field: string, message: string}[]} fields what is wrong where, of a 422
   */
  constructor(status, message, fields = []) {
    super(message);
    this.status = status;
    this.fields = fields;
  }
}

const TRANSIENT = { 429: "The service is busy", 503: "The service is not ready", 504: "The service was too slow" };
const FIRST_WAIT = 1;
const LONGEST_WAIT = 4;

/**
 * @param {string} base path before /v1, without a slash at its end
 * @param {(message: string | null) => void} tell what keeps a request waiting, and null once nothing does
 * @returns {Api}
 */
export function createApi(base, tell) {
  /** @type {Set<symbol>} requests that wait; the notice goes away with the last of them */
  const waiting = new Set();

  /** @type {(id: symbol, message: string | null) => void} */
  const report = (id, message) => {
    if (message === null) {
      if (!waiting.delete(id) || waiting.size > 0) return;
    } else waiting.add(id);
    tell(message);
  };

  /**
   * @param {string} path
   * @param {RequestInit} request
   * @param {Options} options
   */
  async function send(path, request, { signal, role = "forecast", retries = true }) {
    const id = Symbol(path);
    try {
      for (let attempt = 0; ; attempt += 1) {
        const outcome = await once(base + path, request, role, signal);
        if (outcome.status === 401 || outcome.status === 403) {
          report(id, null);
          await renew(role, outcome);
        } else if (outcome.ok) {
          return outcome.json;
        } else if (outcome.transient && retries) {
          const seconds = outcome.retryAfter ?? Math.min(FIRST_WAIT * 2 ** attempt, LONGEST_WAIT);
          report(id, `${outcome.message} Trying again in ${seconds} s.`);
          await pause(seconds, signal);
        } else {
          throw new ApiError(outcome.status, outcome.message, outcome.fields);
        }
      }
    } finally {
      report(id, null);
    }
  }

  return {
    get: (path, options = {}) => send(path, { method: "GET" }, options),
    post: (path, body, options = {}) =>
      send(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }, options),
  };
}

/**
 * Ask for a key in place of the one that was sent, unless another request has got one meanwhile.
 *
 * @param {Role} role
 * @param {Outcome} outcome
 */
async function renew(role, outcome) {
  const key = keyOf(role);
  if (key !== null && key !== outcome.key) return;
  forget(role);
  // said without a key, the service's "expected a key, got none" is about headers: not for the visitor
  const why = outcome.key === null ? "This service answers those who have a key." : sentence(outcome.message);
  try {
    await askFor(role, why);
  } catch (error) {
    if (error instanceof NoKey) throw new ApiError(outcome.status, "No key was given. Reload the page to enter one.");
    throw error;
  }
}

/**
 * @typedef {object} Outcome
 * @property {boolean} ok
 * @property {number} status 0: no answer
 * @property {any} [json]
 * @property {string} message
 * @property {{field: string, message: string}[]} [fields]
 * @property {boolean} [transient]
 * @property {number | null} [retryAfter] seconds
 * @property {string | null} key that was sent
 */

/**
 * @param {string} address
 * @param {RequestInit} request
 * @param {Role} role
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<Outcome>} rejects with AbortError only
 */
async function once(address, request, role, signal) {
  const key = keyOf(role);
  const headers = { ...request.headers, ...(key === null ? {} : { Authorization: `Bearer ${key}` }) };
  /** @type {Response} */
  let response;
  /** @type {any} */
  let json;
  try {
    response = await fetch(address, { ...request, headers, signal, cache: "no-store", credentials: "omit" });
    json = await response.json().catch((error) => {
      if (error.name === "AbortError") throw error;
      return null;
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    return { ok: false, status: 0, message: "The service does not answer.", transient: true, key };
  }
  if (response.ok && json !== null) return { ok: true, status: response.status, json, message: "", key };
  const fault = json?.error;
  const said = sentence(fault?.message ?? `It answered ${response.status}.`);
  const what = TRANSIENT[/** @type {keyof typeof TRANSIENT} */ (response.status)];
  const after = Number(response.headers.get("Retry-After") ?? NaN);
  return {
    ok: false,
    status: response.status,
    message: what === undefined ? said : `${what}: ${said}`,
    fields: fault?.fields ?? [],
    transient: what !== undefined,
    retryAfter: Number.isFinite(after) ? after : null,
    key,
  };
}

/** @param {string} text */
function sentence(text) {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/**
 * @param {number} seconds
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<void>}
 */
function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

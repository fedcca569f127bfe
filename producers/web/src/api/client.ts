// Requests to the API: errors with the API's own words, the CSRF token of the session, and what the frame shows when
// the service does not answer.
import { signal } from "@preact/signals";
import { queryOf, type Query } from "../app/router";
import type { ErrorShape } from "./types";

export const API = "/api/v1alpha";
const CSRF = "X-Csrf-Token";

/** An error of the API, or of the way to it (status 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint = "",
    readonly details: unknown = null,
    readonly retryAfter = 0,
  ) {
    super(message);
  }
}

export type Connection =
  | { state: "ok" }
  | { state: "maintenance" | "away" | "unreachable"; message: string; hint: string; retryAt: number };

/** Whether the service answers; the bar below the header shows it. */
export const connection = signal<Connection>({ state: "ok" });
/** Counts the times that the service came back: what shows data reads it again. */
export const cameBack = signal(0);
/** Set by a 401: the session has ended. */
export const loggedOut = signal(false);

let csrf = "";
let probe = 0;

export type Options = { query?: Query; signal?: AbortSignal; body?: unknown; headers?: Record<string, string> };

/** Sends a request; raises ApiError for every answer but a good one. */
export async function request(method: string, path: string, options: Options = {}): Promise<Response> {
  const headers: Record<string, string> = { Accept: "application/json", ...options.headers };
  const init: RequestInit = { method, headers, credentials: "same-origin", cache: "no-store" };
  if (method !== "GET") headers[CSRF] = csrf;
  if (options.body !== undefined) {
    if (options.body instanceof Blob) init.body = options.body;
    else {
      headers["Content-Type"] = "application/json";
      init.body = JSON.stringify(options.body);
    }
  }
  if (options.signal) init.signal = options.signal;
  const text = queryOf(options.query ?? {}).toString();
  let response: Response;
  try {
    response = await fetch(`${API}${path}${text && `?${text}`}`, init);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    const lost = new ApiError(0, "unreachable", "The service does not answer", "is it running? `runstream status` shows it", null, 2);
    note(lost);
    throw lost;
  }
  csrf = response.headers.get(CSRF) ?? csrf;
  if (response.ok) {
    answered();
    return response;
  }
  const error = await errorOf(response);
  note(error);
  throw error;
}

export async function get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  const response = await request("GET", path, { query, ...(signal && { signal }) });
  return (await response.json()) as T;
}

export async function send<T = void>(method: "POST" | "PUT" | "PATCH" | "DELETE", path: string, body?: unknown, query: Query = {}): Promise<T> {
  const response = await request(method, path, { query, ...(body !== undefined && { body }) });
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

/** One segment of a path; raises ApiError for one that a browser would take for the place above. */
export function segment(text: string): string {
  if (/^\.{0,2}$/.test(text)) throw new ApiError(0, "", `“${text}” is no name`);
  return encodeURIComponent(text);
}

async function errorOf(response: Response): Promise<ApiError> {
  const retry = Number(response.headers.get("Retry-After") ?? "0") || 0;
  try {
    const [entry] = (await response.json()) as ErrorShape[];
    if (entry?.message) {
      return new ApiError(response.status, entry.code ?? "", entry.message, entry.hint ?? "", entry.details, retry);
    }
  } catch {
    // Something between the page and the gateway answered.
  }
  return new ApiError(response.status, "", `The service answered ${response.status} ${response.statusText}`.trim(), "", null, retry);
}

function note(error: ApiError): void {
  if (error.status === 401) loggedOut.value = true;
  const away = error.status === 0 || error.status === 502 || error.status === 503 || error.status === 504;
  if (!away) return;
  const state = error.code === "maintenance" ? "maintenance" : error.status === 0 ? "unreachable" : "away";
  const wait = Math.min(Math.max(error.retryAfter, 1), 5) * 1000;
  connection.value = { state, message: error.message, hint: error.hint, retryAt: Date.now() + wait };
  clearTimeout(probe);
  probe = window.setTimeout(() => void tryAgain(), wait);
}

function answered(): void {
  if (connection.peek().state === "ok") return;
  clearTimeout(probe);
  connection.value = { state: "ok" };
  cameBack.value += 1;
}

/** Asks whether the service is back. */
export async function tryAgain(): Promise<void> {
  clearTimeout(probe);
  if (document.hidden) {
    document.addEventListener("visibilitychange", () => void tryAgain(), { once: true });
    return;
  }
  try {
    await request("GET", "/version");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    // Noted above, with the time of the next attempt; an answer of any other kind means that the service is there.
    if (error.status !== 0 && error.status < 502) answered();
  }
}

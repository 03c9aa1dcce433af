/** What the page asks of the relay over plain HTTP. */
import { ConnectionLostError, ProtocolError } from "../src/index.js";

export interface RelayConfig {
  /** A relay for development: it makes tokens for anybody. */
  development: boolean;
  version: string;
  /** `required` or `optional`. */
  sealed: string;
}

const DEVELOPMENT_GRANTS = { publish: ["audio", "camera", "screen"], subscribe: true };

export async function fetchConfig(): Promise<RelayConfig> {
  const body = await fetchJson("/v1/config", {});
  return {
    development: body["development"] === true,
    version: typeof body["version"] === "string" ? body["version"] : "",
    sealed: typeof body["sealed"] === "string" ? body["sealed"] : "required",
  };
}

/** A token from a relay for development. */
export async function fetchDevelopmentToken(room: string): Promise<string> {
  const body = await fetchJson("/dev/token", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ room, grants: DEVELOPMENT_GRANTS }),
  });
  if (typeof body["token"] !== "string") throw new ProtocolError("the relay made no token");
  return body["token"];
}

async function fetchJson(path: string, init: RequestInit): Promise<Record<string, unknown>> {
  let response: Response;
  try {
    response = await fetch(path, { cache: "no-store", ...init });
  } catch (cause) {
    throw new ConnectionLostError(`${path} could not be fetched`, { cause });
  }
  if (!response.ok) throw new ProtocolError(`${path} answered ${response.status}`);
  try {
    const body: unknown = await response.json();
    if (typeof body === "object" && body !== null) return body as Record<string, unknown>;
  } catch (cause) {
    throw new ProtocolError(`${path} answered something other than JSON`, { cause });
  }
  throw new ProtocolError(`${path} answered something other than an object`);
}

/** What the page asks of the relay over plain HTTP. */
import { ConnectionLostError, type Issuer, ProtocolError, type Vouched, issuerFrom } from "../src/index.js";

export interface RelayConfig {
  /** A relay for development: it makes tokens for anybody. */
  development: boolean;
  version: string;
  /** `required` or `optional`. */
  sealed: string;
  /** Whether rooms have group keys; without, keys are those of join links. */
  groupKeys: boolean;
  /** On a relay for development: its issuer of identities, for new links. */
  issuer: Issuer | undefined;
}

const DEVELOPMENT_GRANTS = { publish: ["audio", "camera", "screen"], subscribe: true };

export async function fetchConfig(): Promise<RelayConfig> {
  const body = await fetchJson("/v1/config", {});
  return {
    development: body["development"] === true,
    version: typeof body["version"] === "string" ? body["version"] : "",
    sealed: typeof body["sealed"] === "string" ? body["sealed"] : "required",
    groupKeys: body["keys"] === "group",
    issuer: issuerFrom(body["issuer"]),
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

/** An identity from a relay for development, which vouches for anybody. */
export async function fetchDevelopmentIdentity(room: string, jwk: JsonWebKey, name: string): Promise<Vouched> {
  const body = await fetchJson("/dev/assertion", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(name ? { room, jwk, name } : { room, jwk }),
  });
  const { assertion, named } = body;
  if (typeof assertion !== "string") throw new ProtocolError("the relay made no assertion");
  return typeof named === "string" ? { assertion, named } : { assertion };
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

/**
 * Where the join token and the identity come from: the link's fragment, the window that opened or
 * frames this page (`postMessage`, see README.md), or the relay itself where it is one for
 * development.
 */
import type { Link, Vouched } from "../src/index.js";
import { type RelayConfig, fetchDevelopmentIdentity, fetchDevelopmentToken } from "./relay.js";

/** An opener that wants to hand a token over does so at once. */
const HANDOVER_TIMEOUT_MS = 3_000;

/** @returns `undefined` where there is no token to be had */
export async function obtainToken(link: Link, config: RelayConfig): Promise<string | undefined> {
  if (link.token !== undefined) return link.token;
  if (config.development) return fetchDevelopmentToken(link.room);
  return tokenFromOpener();
}

/**
 * What the application's issuer says of this person.
 *
 * @param jwk the public key of this device's member
 * @returns `undefined` where nobody vouches
 */
export async function obtainIdentity(
  link: Link,
  config: RelayConfig,
  jwk: JsonWebKey,
  name: string,
): Promise<Vouched | undefined> {
  if (!link.issuer) return undefined;
  const development = config.issuer !== undefined && link.issuer.issuer === config.issuer.issuer;
  if (development) return fetchDevelopmentIdentity(link.room, jwk, name);
  return askOpener({ type: "sealcast-identify", room: link.room, jwk }, (data) => {
    const { type, assertion, named } = data;
    if (type !== "sealcast-identity" || typeof assertion !== "string") return undefined;
    return typeof named === "string" ? { assertion, named } : { assertion };
  });
}

function tokenFromOpener(): Promise<string | undefined> {
  return askOpener({ type: "sealcast-ready" }, ({ type, token }) =>
    type === "sealcast-token" && typeof token === "string" ? token : undefined,
  );
}

/** Posts `question` to the window that opened this one, and waits for what `read` takes as an answer. */
function askOpener<T>(
  question: object,
  read: (data: Record<string, unknown>) => T | undefined,
): Promise<T | undefined> {
  const opener: Window | null = window.opener ?? (window.parent === window ? null : window.parent);
  if (!opener) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const settle = (answer: T | undefined): void => {
      clearTimeout(timer);
      removeEventListener("message", onMessage);
      resolve(answer);
    };
    // Whoever opened this page chose its link, too; an answer adds nothing to that power.
    const onMessage = ({ source, data }: MessageEvent<unknown>): void => {
      if (source !== opener || typeof data !== "object" || data === null) return;
      const answer = read(data as Record<string, unknown>);
      if (answer !== undefined) settle(answer);
    };
    const timer = setTimeout(() => settle(undefined), HANDOVER_TIMEOUT_MS);
    addEventListener("message", onMessage);
    opener.postMessage(question, "*");
  });
}

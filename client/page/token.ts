/**
 * Where the join token comes from: the link's fragment, the window that opened or frames this page
 * (`postMessage`, see README.md), or the relay itself where it is one for development.
 */
import type { Link } from "../src/index.js";
import { type RelayConfig, fetchDevelopmentToken } from "./relay.js";

/** An opener that wants to hand a token over does so at once. */
const HANDOVER_TIMEOUT_MS = 3_000;

/** @returns `undefined` where there is no token to be had */
export async function obtainToken(link: Link, config: RelayConfig): Promise<string | undefined> {
  if (link.token !== undefined) return link.token;
  if (config.development) return fetchDevelopmentToken(link.room);
  return tokenFromOpener();
}

function tokenFromOpener(): Promise<string | undefined> {
  const opener: Window | null = window.opener ?? (window.parent === window ? null : window.parent);
  if (!opener) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const settle = (token: string | undefined): void => {
      clearTimeout(timer);
      removeEventListener("message", onMessage);
      resolve(token);
    };
    // Whoever opened this page chose its link, too; a token adds nothing to that power.
    const onMessage = ({ source, data }: MessageEvent<unknown>): void => {
      if (source !== opener || typeof data !== "object" || data === null) return;
      const { type, token } = data as { type?: unknown; token?: unknown };
      if (type === "sealcast-token" && typeof token === "string") settle(token);
    };
    const timer = setTimeout(() => settle(undefined), HANDOVER_TIMEOUT_MS);
    addEventListener("message", onMessage);
    opener.postMessage({ type: "sealcast-ready" }, "*");
  });
}

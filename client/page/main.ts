/** The consult page: from link to call and out again. */
import { type Link, RelayError, type Room, VERSION, assertSupported, connect, parseLink } from "../src/index.js";
import { CallPage } from "./call.js";
import { preferredCodec, slotCounts } from "./devices.js";
import { el } from "./dom.js";
import { errorPage, leftPage } from "./message-page.js";
import { type Choice, prejoinPage } from "./prejoin.js";
import { type RelayConfig, fetchConfig } from "./relay.js";
import { bootPage, startPage } from "./start.js";
import { applyTheme } from "./theme.js";
import { obtainIdentity, obtainToken } from "./token.js";

/** Paths of the hashed assets, which the build puts in. */
declare const WORKER_PATH: string;
declare const WASM_PATH: string;

declare global {
  interface Window {
    /** For support staff at the console, and for tests. */
    sealcast: { version: string; room: Room | undefined };
  }
}

class ConsultPage {
  readonly #root: HTMLElement;
  readonly #config: RelayConfig;
  #dispose: () => void = () => undefined;

  constructor(root: HTMLElement, config: RelayConfig) {
    this.#root = root;
    this.#config = config;
    addEventListener("hashchange", () => this.route());
    addEventListener("pagehide", () => void window.sealcast.room?.leave());
  }

  /** Goes where the address says. */
  route(): void {
    if (window.sealcast.room) return;
    try {
      assertSupported();
      const link = parseLink(location.hash);
      if (link) this.#prejoin(link);
      else this.#start();
    } catch (error) {
      this.#fail(error, () => location.reload());
    }
  }

  #start(): void {
    this.#show(startPage(this.#config, (link) => this.#prejoin(link)));
  }

  #prejoin(link: Link): void {
    // The key has been read; the address bar and the history need not keep it.
    history.replaceState(null, "", location.pathname + location.search);
    const page = prejoinPage(link, this.#config, (choice) => void this.#join(link, choice));
    this.#show(page.element, () => page.dispose());
  }

  async #join(link: Link, choice: Choice): Promise<void> {
    this.#show(bootPage());
    const codec = preferredCodec();
    const slots = slotCounts();
    try {
      const room = await connect(location.origin, {
        token: () => this.#token(link),
        room: link.room,
        ...(link.key ? { linkKey: link.key } : {}),
        identity: {
          ...(link.issuer ? { issuer: link.issuer } : {}),
          vouch: (jwk) => obtainIdentity(link, this.#config, jwk, choice.name),
          name: choice.name,
        },
        acceptUnsealed: true,
        ...(codec ? { videoCodec: codec } : {}),
        ...(slots ? { slots } : {}),
        worker: () => new Worker(WORKER_PATH, { type: "module" }),
        wasm: new URL(WASM_PATH, location.origin),
      });
      this.#call(room, link, choice);
    } catch (error) {
      stopDevices(choice);
      this.#fail(error, () => this.#prejoin(link));
    }
  }

  async #token(link: Link): Promise<string> {
    const token = await obtainToken(link, this.#config);
    if (token === undefined) throw new RelayError("unauthorized", "the link carries no token", false);
    return token;
  }

  #call(room: Room, link: Link, choice: Choice): void {
    window.sealcast.room = room;
    let leaving = false;
    const page = new CallPage({
      room,
      link,
      ...choice,
      leave: () => {
        leaving = true;
        void room.leave();
      },
    });
    room.on("closed", (error) => {
      window.sealcast.room = undefined;
      const again = (): void => this.#prejoin(link);
      if (error && !leaving) this.#fail(error, again);
      else this.#show(leftPage({ rejoin: again, home: () => this.#start() }));
    });
    this.#show(page.element, () => page.dispose());
  }

  #fail(error: unknown, retry: () => void): void {
    console.error("sealcast:", error);
    this.#show(errorPage(error, { retry, home: () => this.#start() }));
  }

  #show(element: HTMLElement, dispose: () => void = () => undefined): void {
    this.#dispose();
    this.#dispose = dispose;
    this.#root.replaceChildren(element);
  }
}

function stopDevices({ camera, microphone }: Choice): void {
  camera?.stop();
  microphone?.stop();
}

async function main(): Promise<void> {
  applyTheme();
  window.sealcast = { version: VERSION, room: undefined };
  const root = document.getElementById("app") ?? document.body.appendChild(el("div", { id: "app" }));
  root.replaceChildren(bootPage());
  try {
    const config = await fetchConfig();
    new ConsultPage(root, config).route();
  } catch (error) {
    const reload = (): void => location.reload();
    root.replaceChildren(errorPage(error, { retry: reload, home: reload }));
  }
}

void main();

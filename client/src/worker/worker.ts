/**
 * The worker's entry: starts the crypto module, keeps the keys, reports counts once a second.
 *
 * Keys live here and nowhere else. They are not written to any storage and no message returns them.
 */
import init from "sealcast-wasm";
import type { FromWorker, ToWorker } from "../e2ee/messages.js";
import { GroupKeys } from "./group.js";
import { RoomTransforms } from "./transforms.js";

declare const self: DedicatedWorkerGlobalScope;

const REPORT_INTERVAL_MS = 1_000;

let group: GroupKeys | undefined;

let started: (room: RoomTransforms) => void;
const room = new Promise<RoomTransforms>((resolve) => {
  started = resolve;
});

self.onrtctransform = ({ transformer }) => {
  // Frames queue in the transformer until the module is up. The pipe ends with an error when its
  // sender or receiver goes away, which is how every transform ends.
  void room.then((transforms) => transforms.run(transformer)).catch(() => undefined);
};

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === "init") void start(data.wasm, data.suite);
  else void room.then((transforms) => handle(transforms, data));
};

async function start(wasm: string, suite: number): Promise<void> {
  try {
    await init({ module_or_path: wasm });
    const transforms = new RoomTransforms(suite);
    started(transforms);
    post({ type: "ready" });
    setInterval(() => {
      group?.tick();
      post({ type: "counters", ...transforms.counters(), group: group?.counters() ?? null });
    }, REPORT_INTERVAL_MS);
  } catch (error) {
    post({ type: "failed", message: String(error) });
  }
}

function handle(transforms: RoomTransforms, message: Exclude<ToWorker, { type: "init" }>): void {
  switch (message.type) {
    case "link-key":
      transforms.setLinkKey(message.key);
      break;
    case "seal":
      void seal(transforms, message.request, message.line, message.encodings);
      break;
    case "unseal":
      transforms.unseal(message.line);
      break;
    case "show":
      transforms.show(message.slot, { track: message.track, sealed: message.sealed, owner: message.owner });
      break;
    case "group":
      group = new GroupKeys(message.suite, {
        send: (bytes) => post({ type: "group-send", message: exact(bytes) }),
        sealed: (bytes, request) => post({ type: "sealed-send", message: exact(bytes), request }),
        changed: (snapshot) => post({ type: "group-changed", group: snapshot }),
        notice: (notice) => post({ type: "group-notice", notice }),
        message: (participant, body) => post({ type: "said", participant, body }),
      });
      transforms.setGroup(group);
      post({ type: "group-key", jwk: group.publicJwk() });
      break;
    default:
      if (group) handleGroup(group, message);
  }
}

type GroupInput = Extract<
  ToWorker,
  { type: "group-join" | "group-connected" | "group-message" | "group-refused" | "group-rotate" | "sealed-message" | "say" }
>;

function handleGroup(keys: GroupKeys, message: GroupInput): void {
  switch (message.type) {
    case "group-join": {
      const { config, claim, participant, name, named } = message;
      try {
        keys.join(config, claim, {
          participant,
          ...(name === undefined ? {} : { name }),
          ...(named === undefined ? {} : { assertion: named }),
        });
      } catch (error) {
        post({ type: "failed", message: String(error) });
      }
      break;
    }
    case "group-connected":
      keys.onConnected(message.participant);
      break;
    case "group-message":
      keys.onMessage(message.message);
      break;
    case "group-refused":
      keys.onRefused();
      break;
    case "group-rotate":
      keys.rotate();
      break;
    case "sealed-message":
      keys.onSealed(message.message, message.from);
      break;
    case "say":
      try {
        keys.say(message.request, message.body);
      } catch (error) {
        post({ type: "say-refused", request: message.request, message: String(error) });
      }
      break;
  }
}

async function seal(
  transforms: RoomTransforms,
  request: number,
  line: string,
  encodings: number,
): Promise<void> {
  try {
    post({ type: "sealing", request, contexts: await transforms.seal(line, encodings) });
  } catch (error) {
    post({ type: "seal-refused", request, message: String(error) });
  }
}

/** A copy in a buffer of its own: what is posted must not be the module's memory. */
function exact(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.slice() as Uint8Array<ArrayBuffer>;
}

function post(message: FromWorker): void {
  self.postMessage(message);
}

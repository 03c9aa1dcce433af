/**
 * The worker's entry: starts the crypto module, keeps the keys, reports counts once a second.
 *
 * Keys live here and nowhere else. They are not written to any storage and no message returns them.
 */
import init from "sealcast-wasm";
import type { FromWorker, ToWorker } from "../e2ee/messages.js";
import { RoomTransforms } from "./transforms.js";

declare const self: DedicatedWorkerGlobalScope;

const REPORT_INTERVAL_MS = 1_000;

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
    setInterval(() => post({ type: "counters", ...transforms.counters() }), REPORT_INTERVAL_MS);
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
      try {
        post({ type: "sealing", request: message.request, contexts: transforms.seal(message.line) });
      } catch (error) {
        post({ type: "seal-refused", request: message.request, message: String(error) });
      }
      break;
    case "unseal":
      transforms.unseal(message.line);
      break;
    case "show":
      transforms.show(message.slot, { track: message.track, sealed: message.sealed });
      break;
  }
}

function post(message: FromWorker): void {
  self.postMessage(message);
}

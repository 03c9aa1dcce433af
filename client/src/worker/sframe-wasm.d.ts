/**
 * The Rust crate `sealcast-wasm`, as far as the worker uses it. The bundler resolves the name to
 * what `cargo run -p xtask -- wasm` generated.
 */
declare module "sealcast-wasm" {
  /** Compiles and starts the module; must be awaited before anything else is used. */
  export default function init(options: { module_or_path: string | URL }): Promise<unknown>;

  export class FrameSealer {
    constructor(suite: number, kid: bigint, baseKey: Uint8Array);
    seal(codec: string, frame: Uint8Array): Uint8Array<ArrayBuffer>;
    readonly kid: bigint;
    readonly counter: bigint;
    free(): void;
  }

  export class FrameOpener {
    constructor(suite: number);
    addKey(kid: bigint, baseKey: Uint8Array): void;
    setLinkKey(baseKey: Uint8Array): void;
    /** @throws Error whose message starts with its reason; see `failureOf` in counters.ts */
    open(codec: string, frame: Uint8Array): Uint8Array<ArrayBuffer>;
    lastKid(): bigint;
    removeKey(kid: bigint): void;
    free(): void;
  }

  /** The part of a key id that the relay is told (`KID >> 24`). */
  export function frameContext(kid: bigint): number;
}

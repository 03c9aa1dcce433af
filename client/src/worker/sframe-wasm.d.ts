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

  export class MemberKey {
    constructor(suite: number);
    /** A JWK, in JSON. */
    publicJwk(): string;
    free(): void;
  }

  /** Times are in ms since the Unix epoch. Errors' messages start with their reason. */
  export class GroupMember {
    /** Consumes `key`. */
    constructor(now: number, config: string, key: MemberKey, claim: string);
    handleMessage(now: number, message: Uint8Array): void;
    handleConnected(now: number): void;
    handleTimeout(now: number): void;
    pollTimeout(): number | undefined;
    pollOutgoing(): Uint8Array<ArrayBuffer> | undefined;
    /** JSON. */
    pollEvent(): string | undefined;
    requestRotation(): void;
    epoch(): bigint | undefined;
    sendingEpoch(): bigint | undefined;
    leaf(): number | undefined;
    /** JSON. */
    members(): string;
    code(): string | undefined;
    verifyAssertion(leaf: number, token: string, now: number): string | undefined;
    kid(context: number): bigint | undefined;
    seal(context: number, codec: string, frame: Uint8Array): Uint8Array<ArrayBuffer>;
    open(codec: string, frame: Uint8Array): Uint8Array<ArrayBuffer>;
    lastKid(): bigint;
    sealMetadata(content: Uint8Array): Uint8Array<ArrayBuffer>;
    openMetadata(message: Uint8Array): OpenedMetadata;
    /** JSON. */
    stats(): string;
    free(): void;
  }

  export class OpenedMetadata {
    readonly leaf: number;
    readonly epoch: bigint;
    readonly content: Uint8Array<ArrayBuffer>;
    free(): void;
  }

  /** The part of a key id that the relay is told (`KID >> 24`). */
  export function frameContext(kid: bigint): number;
}

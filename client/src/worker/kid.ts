/**
 * Key identifiers in link-key rooms: a random 56-bit number for each outgoing encoding
 * (docs/PROTOCOL.md §7.2). All senders of a room derive their keys from one base key and the key
 * id, so two equal ids would mean one key and one counter for two encoders, which breaks AES-GCM.
 * Fifty-six random bits keep strangers apart: with 10,000 encodings in a room's life the chance of
 * a collision is 7·10⁻¹⁰. Within one client it is ruled out here.
 */
const KID_BITS = 56n;
/** `KID >> 24`, the part that the relay is told and checks. */
const CONTEXT_SHIFT = 24n;

export class KidSource {
  readonly #randomBytes: (into: Uint8Array<ArrayBuffer>) => void;
  readonly #contexts = new Set<bigint>();

  constructor(
    randomBytes: (into: Uint8Array<ArrayBuffer>) => void = (into) => void crypto.getRandomValues(into),
  ) {
    this.#randomBytes = randomBytes;
  }

  /** A key id that this source has not given out before, with a context of its own. */
  next(): bigint {
    for (;;) {
      const bytes = new Uint8Array(Number(KID_BITS / 8n));
      this.#randomBytes(bytes);
      const kid = bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
      const context = kid >> CONTEXT_SHIFT;
      if (this.#contexts.has(context)) continue;
      this.#contexts.add(context);
      return kid;
    }
  }
}

/**
 * Redundant audio (RED, RFC 2198) around sealed frames: each block is a frame that was sealed by
 * itself, and a repeated block is the very bytes that were sent before. So every frame is sealed
 * once, and the relay can take the blocks apart for receivers without RED (docs/PROTOCOL.md §7.1).
 */

/** RFC 2198, section 3: "block length: 10 bits". A longer frame is not repeated. */
const MAX_REPEATED = 0x3ff;

/** Blocks that one packet may repeat; browsers send one or two. */
const MAX_BLOCKS = 32;

/** Frames that are remembered: as many as a packet may repeat, and over half a second of reordering. */
const REMEMBERED = 32;

/** One frame of a packet. */
export interface Block {
  /** Its RTP timestamp, modulo 2^32. */
  timestamp: number;
  data: Uint8Array;
}

/** A packet taken apart. */
export interface Red {
  payloadType: number;
  /** What it repeats, oldest first. */
  repeated: Block[];
  /** What is new in it. */
  primary: Block;
}

/** @returns undefined for what is no RED with blocks of one payload type */
export function parseRed(payload: Uint8Array, timestamp: number): Red | undefined {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const sizes: { timestamp: number; length: number }[] = [];
  let at = 0;
  for (; at < payload.length && view.getUint8(at) & 0x80; at += 4) {
    if (at + 4 >= payload.length || sizes.length === MAX_BLOCKS) return undefined;
    const word = view.getUint32(at);
    sizes.push({ timestamp: (timestamp - ((word >>> 10) & 0x3fff)) >>> 0, length: word & MAX_REPEATED });
  }
  if (at >= payload.length) return undefined;
  const payloadType = view.getUint8(at);
  for (let header = 0; header < at; header += 4) {
    if ((view.getUint8(header) & 0x7f) !== payloadType) return undefined;
  }
  at += 1;
  const repeated = sizes.map(({ timestamp, length }) => {
    at += length;
    return { timestamp, data: payload.subarray(at - length, at) };
  });
  if (at >= payload.length) return undefined;
  return { payloadType, repeated, primary: { timestamp, data: payload.subarray(at) } };
}

/** The packet of these blocks. Those that RED cannot express are left out. */
export function writeRed({ payloadType, repeated, primary }: Red): Uint8Array<ArrayBuffer> {
  const blocks = repeated
    .map(({ timestamp, data }) => ({ offset: (primary.timestamp - timestamp) >>> 0, data }))
    .filter(({ offset, data }) => offset <= 0x3fff && data.length <= MAX_REPEATED);
  const headers = 4 * blocks.length + 1;
  const length = blocks.reduce((sum, { data }) => sum + data.length, headers + primary.data.length);
  const out = new Uint8Array(length);
  const view = new DataView(out.buffer);
  let at = headers;
  for (const [index, { offset, data }] of blocks.entries()) {
    view.setUint32(4 * index, ((0x80 | payloadType) * 0x1000000 + offset * 0x400 + data.length) >>> 0);
    out.set(data, at);
    at += data.length;
  }
  out[headers - 1] = payloadType;
  out.set(primary.data, at);
  return out;
}

/** Seals the packets of one encoder. */
export class RedSealer {
  /** Sealed frames by timestamp, oldest first. */
  readonly #sealed = new Map<number, Uint8Array>();

  /**
   * @param seal seals one frame; called once for each
   * @throws what `seal` throws, and Error for what is no RED
   */
  seal(payload: Uint8Array, timestamp: number, seal: (frame: Uint8Array) => Uint8Array): Uint8Array<ArrayBuffer> {
    const red = parseRed(payload, timestamp);
    if (!red) throw new Error("malformed: not RED");
    const data = seal(red.primary.data).slice();
    remember(this.#sealed, timestamp, data);
    // What was not sealed when it was new is not repeated: it would be another frame to its receivers.
    const repeated = red.repeated.flatMap(({ timestamp }) => {
      const data = this.#sealed.get(timestamp);
      return data ? [{ timestamp, data }] : [];
    });
    return writeRed({ payloadType: red.payloadType, repeated, primary: { timestamp, data } });
  }
}

/** Opens the packets of one slot. */
export class RedOpener {
  /** Frames that were opened, by timestamp, oldest first. */
  readonly #opened = new Map<number, Uint8Array>();

  /**
   * @param open opens one frame, or throws; not called for repetitions of what was opened
   * @returns what opened: the new frame, and those repeated that were not opened before
   * @throws what `open` throws for the new frame, and Error for what is no RED
   */
  open(payload: Uint8Array, timestamp: number, open: (frame: Uint8Array) => Uint8Array): Red {
    const red = parseRed(payload, timestamp);
    if (!red) throw new Error("malformed: not RED");
    const repeated = red.repeated.flatMap(({ timestamp, data }) => {
      if (this.#opened.has(timestamp)) return [];
      try {
        return [{ timestamp, data: open(data).slice() }];
      } catch {
        // Its own packet tells what is wrong with it, if that comes.
        return [];
      }
    });
    for (const { timestamp, data } of repeated) remember(this.#opened, timestamp, data);
    const primary = { timestamp, data: this.#primary(red.primary, repeated.length > 0, open) };
    remember(this.#opened, timestamp, primary.data);
    return { ...red, repeated, primary };
  }

  /** A packet that was overtaken by its repetition may still be the only one to repeat another. */
  #primary({ timestamp, data }: Block, needed: boolean, open: (frame: Uint8Array) => Uint8Array): Uint8Array {
    try {
      return open(data).slice();
    } catch (error) {
      const before = this.#opened.get(timestamp);
      if (needed && before) return before;
      throw error;
    }
  }

  /** A frame that came without redundancy was opened. */
  onPlain(timestamp: number, frame: Uint8Array): void {
    remember(this.#opened, timestamp, frame.slice());
  }
}

function remember<T>(map: Map<number, T>, timestamp: number, value: T): void {
  map.delete(timestamp);
  map.set(timestamp, value);
  const oldest = map.keys().next();
  if (map.size > REMEMBERED && !oldest.done) map.delete(oldest.value);
}

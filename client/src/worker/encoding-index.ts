/**
 * Tells the encodings of a sending line apart by their SSRC, which is what a frame's metadata has of
 * them: each gets one of the line's sealers, and keeps it.
 *
 * A browser gives an encoding another SSRC only in rare cases (a conflict, RFC 3550 §8.2). The new
 * one then takes over the sealer of the one that has been silent the longest. Sealers go on
 * counting, so that even a wrong guess uses no counter twice.
 */
export class EncodingIndex {
  /** Indices by SSRC, least recently seen first. */
  readonly #indices = new Map<number, number>();

  /** @param count how many encodings the line has; from 0 to `count` − 1 is returned, or 0 */
  of(ssrc: number, count: number): number {
    let index = this.#indices.get(ssrc);
    if (index === undefined || index >= count) {
      const taken = new Set(this.#indices.values());
      const free = Array.from({ length: count }, (_, candidate) => candidate).find((c) => !taken.has(c));
      index = free ?? this.#oldest(count);
    }
    this.#indices.delete(ssrc);
    this.#indices.set(ssrc, index);
    return index;
  }

  #oldest(count: number): number {
    const oldest = this.#indices.entries().next().value;
    if (!oldest || count === 0) return 0;
    this.#indices.delete(oldest[0]);
    return oldest[1] < count ? oldest[1] : 0;
  }
}

/** A picture that is hard to compress, for the browser's fake camera: bit rates go where they may. */
import { closeSync, openSync, writeSync } from "node:fs";

const FRAMES = 30;
/** Pixels of one square. Finer noise leaves an encoder nothing to predict. */
const SQUARE = 8;
/** Share of the squares that change with each frame: as much as the smallest encodings can follow. */
const CHANGING = 0.15;

/** Writes a YUV4MPEG2 file of 4:2:0 squares in random greys. */
export function writeNoise(path, { width, height, fps, seed = 1 }) {
  let state = seed;
  // A linear congruential generator (Numerical Recipes' constants): the same file for a seed.
  const random = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
  const columns = Math.ceil(width / SQUARE);
  const squares = Array.from({ length: columns * Math.ceil(height / SQUARE) }, () => 16 + Math.floor(random() * 220));
  const colour = Buffer.alloc((width / 2) * (height / 2) * 2, 128);
  const file = openSync(path, "w");
  try {
    writeSync(file, `YUV4MPEG2 W${width} H${height} F${fps}:1 Ip A1:1 C420jpeg\n`);
    for (let frame = 0; frame < FRAMES; frame++) {
      for (const index of squares.keys()) if (random() < CHANGING) squares[index] = 16 + Math.floor(random() * 220);
      const grey = Buffer.alloc(width * height);
      for (let y = 0; y < height; y++) {
        const row = Math.floor(y / SQUARE) * columns;
        for (let column = 0; column < columns; column++) {
          const from = y * width + column * SQUARE;
          grey.fill(squares[row + column], from, Math.min(from + SQUARE, (y + 1) * width));
        }
      }
      writeSync(file, "FRAME\n");
      writeSync(file, grey);
      writeSync(file, colour);
    }
  } finally {
    closeSync(file);
  }
}

/** How large tiles may be so that all of them fit. */

export interface GridFit {
  columns: number;
  rows: number;
  /** CSS pixels. */
  width: number;
  height: number;
}

/** A tile is as wide as a camera's picture, or narrower: on upright stages down to a square. */
const WIDEST = 16 / 9;
const NARROWEST = 4 / 3;
const NARROWEST_UPRIGHT = 1;

/** Below this width a tile cannot show a name and its mark; the grid then scrolls instead. */
export const MIN_TILE_WIDTH = 148;

/** The grid in which `count` tiles are largest within `width` × `height`. */
export function fitGrid(count: number, width: number, height: number, gap: number): GridFit {
  const narrowest = height > width ? NARROWEST_UPRIGHT : NARROWEST;
  let best: GridFit | undefined;
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const cellWidth = (width - gap * (columns - 1)) / columns;
    const cellHeight = (height - gap * (rows - 1)) / rows;
    const tileWidth = Math.min(cellWidth, cellHeight * WIDEST);
    const tileHeight = Math.min(cellHeight, tileWidth / narrowest);
    if (tileWidth < MIN_TILE_WIDTH) continue;
    if (best && tileWidth * tileHeight <= best.width * best.height) continue;
    best = { columns, rows, width: Math.floor(tileWidth), height: Math.floor(tileHeight) };
  }
  return best ?? scrollingGrid(count, width, gap);
}

function scrollingGrid(count: number, width: number, gap: number): GridFit {
  const columns = Math.max(1, Math.floor((width + gap) / (MIN_TILE_WIDTH + gap)));
  const tileWidth = Math.floor((width - gap * (columns - 1)) / columns);
  return {
    columns,
    rows: Math.ceil(count / columns),
    width: tileWidth,
    height: Math.floor(tileWidth / WIDEST),
  };
}

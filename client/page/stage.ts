/** Where tiles go: screens and whoever is pinned large, people in a grid that makes the most of the room. */
import { el } from "./dom.js";
import { fitGrid } from "./layout.js";

const GAP = 10;

export class Stage {
  readonly element: HTMLElement;
  readonly #spotlight = el("div", { class: "stage-spotlight", hidden: true });
  readonly #grid = el("div", { class: "stage-grid" });
  readonly #observer = new ResizeObserver(() => this.layOut());

  constructor() {
    this.element = el("section", { class: "stage", "aria-label": "People" }, this.#spotlight, this.#grid);
    this.#observer.observe(this.#grid);
    this.#observer.observe(this.#spotlight);
  }

  /** Puts a tile where it belongs, from wherever it was. */
  place(tile: HTMLElement, large: boolean): void {
    (large ? this.#spotlight : this.#grid).append(tile);
    this.layOut();
  }

  layOut(): void {
    const screens = this.#spotlight.childElementCount;
    this.#spotlight.hidden = screens === 0;
    this.element.classList.toggle("has-spotlight", screens > 0);
    fit(this.#spotlight, screens);
    fit(this.#grid, this.#grid.childElementCount);
  }

  dispose(): void {
    this.#observer.disconnect();
  }
}

function fit(container: HTMLElement, count: number): void {
  if (count === 0) return;
  const { clientWidth, clientHeight } = container;
  const { width, height } = fitGrid(count, clientWidth, clientHeight, GAP);
  container.style.setProperty("--tile-width", `${width}px`);
  container.style.setProperty("--tile-height", `${height}px`);
}

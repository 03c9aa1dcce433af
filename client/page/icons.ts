/** The page's icons: stroked 24-unit drawings that take the colour of the text around them. */

const PATHS = {
  mic: ["M12 3.5a2.8 2.8 0 0 1 2.8 2.8v5.2a2.8 2.8 0 0 1-5.6 0V6.3A2.8 2.8 0 0 1 12 3.5z", "M5.8 11.2a6.2 6.2 0 0 0 12.4 0", "M12 17.4v3.1"],
  micOff: ["M9.2 9.2v2.3a2.8 2.8 0 0 0 4.6 2.1M14.8 10.6V6.3a2.8 2.8 0 0 0-5.4-1", "M5.8 11.2a6.2 6.2 0 0 0 9.8 5M18.2 11.2c0 .9-.2 1.8-.5 2.5", "M12 17.4v3.1", "M4 4l16 16"],
  camera: ["M4.8 6.5h8.4a2 2 0 0 1 2 2v7a2 2 0 0 1-2 2H4.8a2 2 0 0 1-2-2v-7a2 2 0 0 1 2-2z", "M15.2 10.8l5.1-3.1c.4-.2.9 0 .9.5v7.6c0 .5-.5.7-.9.5l-5.1-3.1"],
  cameraOff: ["M9.5 6.5h3.7a2 2 0 0 1 2 2v3.2M15.2 15.5a2 2 0 0 1-2 2H4.8a2 2 0 0 1-2-2v-7a2 2 0 0 1 2-2h.7", "M17 9.7l3.3-2c.4-.2.9 0 .9.5v7.6c0 .3-.2.5-.4.5", "M3.5 3.5l17 17"],
  screen: ["M4.5 4.5h15a1.7 1.7 0 0 1 1.7 1.7v9a1.7 1.7 0 0 1-1.7 1.7h-15a1.7 1.7 0 0 1-1.7-1.7v-9a1.7 1.7 0 0 1 1.7-1.7z", "M8.5 20.2h7", "M12 14V8M9.3 10.5L12 7.8l2.7 2.7"],
  leave: ["M3.4 14.6c-.5-1.7.2-3.2 1.9-4.2 4-2.3 9.4-2.3 13.4 0 1.7 1 2.4 2.5 1.9 4.2-.2.7-.9 1-1.6.8l-2.5-.8c-.6-.2-1-.8-1-1.4v-1.4a12 12 0 0 0-7 0v1.4c0 .6-.4 1.2-1 1.4l-2.5.8c-.7.2-1.4-.1-1.6-.8z"],
  link: ["M10 14a4 4 0 0 0 5.7 0l3.1-3.1a4 4 0 0 0-5.7-5.7l-1.3 1.3", "M14 10a4 4 0 0 0-5.7 0l-3.1 3.1a4 4 0 0 0 5.7 5.7l1.3-1.3"],
  check: ["M4.5 12.5l5 5 10-11"],
  lock: ["M6.5 10.5h11a1.7 1.7 0 0 1 1.7 1.7v6.6a1.7 1.7 0 0 1-1.7 1.7h-11a1.7 1.7 0 0 1-1.7-1.7v-6.6a1.7 1.7 0 0 1 1.7-1.7z", "M8 10.5V7.7a4 4 0 0 1 8 0v2.8", "M12 14.5v2.2"],
  unlock: ["M6.5 10.5h11a1.7 1.7 0 0 1 1.7 1.7v6.6a1.7 1.7 0 0 1-1.7 1.7h-11a1.7 1.7 0 0 1-1.7-1.7v-6.6a1.7 1.7 0 0 1 1.7-1.7z", "M8 10.5V7.2a4 4 0 0 1 7.7-1.5"],
  alert: ["M12 4.2l8.6 15a.8.8 0 0 1-.7 1.2H4.1a.8.8 0 0 1-.7-1.2z", "M12 10v4.2", "M12 17.3v.1"],
  wait: ["M12 3.8a8.2 8.2 0 1 1 0 16.4 8.2 8.2 0 0 1 0-16.4z", "M12 7.8V12l2.8 1.8"],
  chart: ["M4 19.8h16", "M7 16.5v-4M12 16.5v-9M17 16.5v-6.5"],
  help: ["M12 3.8a8.2 8.2 0 1 1 0 16.4 8.2 8.2 0 0 1 0-16.4z", "M9.7 9.6a2.4 2.4 0 0 1 4.7.6c0 1.6-2.4 2-2.4 3.5", "M12 16.6v.1"],
  sun: ["M12 8.2a3.8 3.8 0 1 1 0 7.6 3.8 3.8 0 0 1 0-7.6z", "M12 2.8v2M12 19.2v2M2.8 12h2M19.2 12h2M5.5 5.5l1.4 1.4M17.1 17.1l1.4 1.4M18.5 5.5l-1.4 1.4M6.9 17.1l-1.4 1.4"],
  moon: ["M19.8 14.3A8 8 0 0 1 9.7 4.2a8 8 0 1 0 10.1 10.1z"],
  close: ["M6 6l12 12M18 6L6 18"],
  person: ["M12 4.5a3.7 3.7 0 1 1 0 7.4 3.7 3.7 0 0 1 0-7.4z", "M4.8 19.8c.8-3.4 3.7-5.3 7.2-5.3s6.4 1.9 7.2 5.3"],
  people: ["M9 5a3.3 3.3 0 1 1 0 6.6A3.3 3.3 0 0 1 9 5z", "M2.6 19c.7-3.1 3.2-4.8 6.4-4.8s5.7 1.7 6.4 4.8", "M15.5 5.4a3.1 3.1 0 0 1 0 5.9M17.6 14.6c2 .6 3.4 2.1 3.9 4.4"],
  chat: ["M5.4 4.6h13.2a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-6.4l-4.4 3.3v-3.3H5.4a2 2 0 0 1-2-2v-8a2 2 0 0 1 2-2z", "M7.8 9h8.4M7.8 12.2h5.4"],
  verified: ["M12 3.5l7 2.8v5.4c0 4.2-2.8 7.2-7 8.8-4.2-1.6-7-4.6-7-8.8V6.3z", "M8.8 12l2.3 2.3 4.2-4.6"],
  pin: ["M9 3.5h6l-.8 6 3.3 3.3v1.7h-11v-1.7L9.8 9.5z", "M12 14.5v6"],
  pause: ["M8.5 5.5v13M15.5 5.5v13"],
  arrow: ["M5 12h13.5M13 6.5l5.5 5.5-5.5 5.5"],
} as const;

export type IconName = keyof typeof PATHS;

const SVG = "http://www.w3.org/2000/svg";

/** An icon without a meaning of its own: whatever it stands in carries the label. */
export function icon(name: IconName): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("focusable", "false");
  for (const d of PATHS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

/** The product's mark. */
export function brandMark(): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 32 32");
  svg.setAttribute("class", "brand-mark");
  svg.setAttribute("aria-hidden", "true");
  const shield = document.createElementNS(SVG, "path");
  shield.setAttribute("d", "M16 3.5 26.5 7.5v8c0 6.2-4.2 10.6-10.5 13-6.3-2.4-10.5-6.8-10.5-13v-8z");
  shield.setAttribute("class", "brand-shield");
  const pulse = document.createElementNS(SVG, "path");
  pulse.setAttribute("d", "M10.3 16.4h2.9l2-4.6 2.9 8 1.9-3.4h1.9");
  pulse.setAttribute("class", "brand-pulse");
  svg.append(shield, pulse);
  return svg;
}

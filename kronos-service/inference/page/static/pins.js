/**
 * Where the forecast starts, and what is scheduled: drawn over the chart's pane.
 *
 * Releases ahead have a line and, where there is room, a name; high-impact ones that are past have a mark at the foot.
 * The list beside the chart names every one with its time, so a name that finds no room here is not lost.
 */

/**
 * @typedef {object} Pin
 * @property {string} date
 * @property {string} text names of what is released; empty for a mark only
 * @property {boolean} isAhead
 * @property {boolean} isHigh
 */

const ROWS = 3;
const ROW_HEIGHT = 15;
const TOP = 6;
const GAP = 8;
/** The first that there is room for. */
const STARTS = ["forecast starts here", "forecast"];

/** A primitive that is attached to the series of candles. */
export class Pins {
  constructor() {
    /** @type {Pin[]} */
    this.pins = [];
    /** @type {[string, string] | null} last bar and first forecast bar */
    this.border = null;
    this.colours = { event: "black", muted: "black", surface: "white", line: "black" };
    this.font = "sans-serif";
    /** @type {any} */
    this.given = null;
  }

  /** @type {(given: any) => void} */
  attached(given) {
    this.given = given;
  }

  detached() {
    this.given = null;
  }

  /**
   * @param {Pin[]} pins
   * @param {[string, string] | null} border
   */
  show(pins, border) {
    this.pins = pins;
    this.border = border;
    this.given?.requestUpdate();
  }

  /** @returns {import("./vendor/lightweight-charts.js").IPrimitivePaneView[]} */
  paneViews() {
    return [
      { zOrder: () => "bottom", renderer: () => ({ draw: (/** @type {any} */ target) => this.draw(target, false) }) },
      { zOrder: () => "top", renderer: () => ({ draw: (/** @type {any} */ target) => this.draw(target, true) }) },
    ];
  }

  /**
   * @param {any} target
   * @param {boolean} isOnTop lines lie below the candles, names above them
   */
  draw(target, isOnTop) {
    if (this.given === null || this.border === null) return;
    const scale = this.given.chart.timeScale();
    target.useMediaCoordinateSpace((/** @type {any} */ { context, mediaSize }) => {
      context.save();
      if (isOnTop) this.drawNames(context, mediaSize, scale);
      else this.drawLines(context, mediaSize, scale);
      context.restore();
    });
  }

  /** @type {(context: CanvasRenderingContext2D, size: {width: number, height: number}, scale: any) => void} */
  drawLines(context, { width, height }, scale) {
    const start = this.startAt(scale);
    if (start !== null) {
      context.fillStyle = this.colours.line;
      context.globalAlpha = 0.22;
      context.fillRect(start, 0, width - start, height);
      context.globalAlpha = 1;
      context.strokeStyle = this.colours.muted;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(start, 0);
      context.lineTo(start, height);
      context.stroke();
    }
    context.strokeStyle = this.colours.event;
    context.setLineDash([3, 4]);
    for (const pin of this.pins.filter((one) => one.isAhead)) {
      const x = scale.timeToCoordinate(pin.date);
      if (x === null) continue;
      context.globalAlpha = pin.isHigh ? 0.75 : 0.3;
      context.beginPath();
      context.moveTo(x, TOP);
      context.lineTo(x, height);
      context.stroke();
    }
  }

  /** @type {(context: CanvasRenderingContext2D, size: {width: number, height: number}, scale: any) => void} */
  drawNames(context, { width, height }, scale) {
    context.font = `12px ${this.font}`;
    context.textBaseline = "middle";
    /** @type {number[]} where each row's last name ends */
    const ends = Array(ROWS).fill(-Infinity);
    for (const pin of this.pins) {
      const x = scale.timeToCoordinate(pin.date);
      if (x === null) continue;
      context.fillStyle = this.colours.event;
      if (pin.isAhead) this.drawName(context, pin, x, width, ends);
      else if (pin.isHigh) diamond(context, x, height - 7, 3.5);
    }
    const start = this.startAt(scale);
    if (start === null) return;
    const text = STARTS.find((words) => room(context.measureText(words).width, start, width) !== null);
    if (text === undefined) return;
    const textWidth = context.measureText(text).width;
    const left = room(textWidth, start, width) ?? 0;
    this.plate(context, left, height - 10, textWidth);
    context.fillStyle = this.colours.muted;
    context.fillText(text, left, height - 9.5);
  }

  /** @type {(context: CanvasRenderingContext2D, pin: Pin, x: number, width: number, ends: number[]) => void} */
  drawName(context, pin, x, width, ends) {
    if (pin.text === "") return;
    const textWidth = context.measureText(pin.text).width;
    const left = room(textWidth, x, width);
    if (left === null) return diamond(context, x, TOP + ROW_HEIGHT / 2, 4);
    const row = ends.findIndex((end) => end + GAP < Math.min(left, x - 4));
    if (row === -1) return;
    const y = TOP + row * ROW_HEIGHT + ROW_HEIGHT / 2;
    diamond(context, x, y, 4);
    this.plate(context, left, y, textWidth);
    context.fillText(pin.text, left, y + 0.5);
    ends[row] = Math.max(left + textWidth, x + 4);
  }

  /** @type {(context: CanvasRenderingContext2D, left: number, middle: number, width: number) => void} under a text, so that lines do not strike it out */
  plate(context, left, middle, width) {
    context.save();
    context.globalAlpha = 0.85;
    context.fillStyle = this.colours.surface;
    context.fillRect(left - 2, middle - ROW_HEIGHT / 2, width + 4, ROW_HEIGHT);
    context.restore();
  }

  /** @type {(scale: any) => number | null} */
  startAt(scale) {
    if (this.border === null) return null;
    const [last, first] = this.border.map((date) => scale.timeToCoordinate(date));
    return last === null || first === null ? null : Math.round((last + first) / 2) + 0.5;
  }
}

/**
 * Where a text begins: to the right of its line, or to the left where the chart ends.
 *
 * @param {number} textWidth
 * @param {number} x of the line
 * @param {number} width of the chart
 * @returns {number | null} null: it fits on neither side
 */
function room(textWidth, x, width) {
  if (x + GAP + textWidth < width) return x + GAP;
  return x - GAP - textWidth >= 0 ? x - GAP - textWidth : null;
}

/** @type {(context: CanvasRenderingContext2D, x: number, y: number, radius: number) => void} */
function diamond(context, x, y, radius) {
  context.beginPath();
  context.moveTo(x, y - radius);
  context.lineTo(x + radius, y);
  context.lineTo(x, y + radius);
  context.lineTo(x - radius, y);
  context.fill();
}

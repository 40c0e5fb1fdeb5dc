/**
 * A fan of forecast bands as a series of the chart: 90, 80 and 50 % around the median.
 *
 * The library asks a custom series for a renderer and calls `draw` in device pixels. Bands lie on each other, so the
 * middle is darkest; each fan's median and outline have dashes of their own, so that colour is not all that tells them
 * apart.
 */

/** @typedef {{time: string, ends: number[]}} FanBar ends: quantiles 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95 */
/**
 * @typedef {object} FanLook
 * @property {string} color rgb(...)
 * @property {number[]} dash of the median, CSS pixels; empty: a full line
 * @property {boolean} isGhost only outlines: what is compared with
 */

/** Pairs of ends, from the widest band in, and how much each adds to the colour. */
const BANDS = [
  { low: 0, high: 6, opacity: 0.14 },
  { low: 1, high: 5, opacity: 0.12 },
  { low: 2, high: 4, opacity: 0.2 },
];
const MEDIAN = 3;

/** The view that `chart.addCustomSeries` takes. */
export class FanView {
  constructor() {
    /** @type {any} */
    this.data = null;
    /** @type {FanLook | null} */
    this.look = null;
  }

  renderer() {
    return { draw: (/** @type {any} */ target, /** @type {(price: number) => number | null} */ toY) => this.draw(target, toY) };
  }

  /** @type {(data: any, options: any) => void} */
  update(data, options) {
    this.data = data;
    this.look = options;
  }

  /** @type {(bar: FanBar) => number[]} lowest, highest and current value, for the price scale */
  priceValueBuilder(bar) {
    return [bar.ends[0], bar.ends[6], bar.ends[MEDIAN]];
  }

  /** @type {(bar: any) => bar is import("./vendor/lightweight-charts.js").CustomSeriesWhitespaceData<string>} */
  isWhitespace(bar) {
    return bar.ends === undefined;
  }

  defaultOptions() {
    return { color: "black", dash: [], isGhost: false, priceLineVisible: false, lastValueVisible: false };
  }

  /**
   * @param {any} target
   * @param {(price: number) => number | null} toY
   */
  draw(target, toY) {
    const { data, look } = this;
    if (data === null || look === null || data.visibleRange === null) return;
    target.useBitmapCoordinateSpace((/** @type {any} */ scope) => {
      const context = /** @type {CanvasRenderingContext2D} */ (scope.context);
      const across = scope.horizontalPixelRatio;
      const down = scope.verticalPixelRatio;
      const points = data.bars.map((/** @type {any} */ bar) => ({
        x: bar.x * across,
        y: bar.originalData.ends.map((/** @type {number} */ price) => (toY(price) ?? 0) * down),
      }));
      if (points.length === 0) return;
      context.save();
      context.lineJoin = "round";
      context.fillStyle = look.color;
      context.strokeStyle = look.color;
      for (const { low, high, opacity } of BANDS) {
        context.globalAlpha = look.isGhost ? opacity / 5 : opacity;
        fill(context, points, low, high);
      }
      context.globalAlpha = look.isGhost ? 0.85 : 0.55;
      context.lineWidth = Math.max(1, Math.round(across));
      context.setLineDash(look.dash.map((length) => length * across));
      stroke(context, points, 0);
      stroke(context, points, 6);
      context.globalAlpha = 1;
      context.lineWidth = (look.isGhost ? 1.5 : 2) * across;
      stroke(context, points, MEDIAN);
      context.restore();
    });
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{x: number, y: number[]}[]} points
 * @param {number} low
 * @param {number} high
 */
function fill(context, points, low, high) {
  context.beginPath();
  for (const { x, y } of points) context.lineTo(x, y[high]);
  for (const { x, y } of [...points].reverse()) context.lineTo(x, y[low]);
  context.closePath();
  context.fill();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{x: number, y: number[]}[]} points
 * @param {number} end
 */
function stroke(context, points, end) {
  context.beginPath();
  for (const { x, y } of points) context.lineTo(x, y[end]);
  context.stroke();
}

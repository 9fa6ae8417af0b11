"use strict";
// One view of the patient: the CT of a plane, the outlines over it, the cross-hair, and how one moves through it.

const WHEEL_STEP = 100; // pixels of a wheel's or touch pad's movement for one slice: one notch of most wheels
const LINE_PIXELS = 34; // what a wheel's movement counts where the browser gives it in lines, three a notch
const CROSS_GAP = 14; // pixels around the cursor that stay free of its lines

class Pane {
  // `figure` holds a canvas, an output and a range input; `reader` is the `Reader` whose cursor all panes share.
  constructor(figure, reader) {
    this.view = VIEWS[figure.dataset.view];
    this.reader = reader;
    this.canvas = figure.querySelector("canvas");
    this.words = figure.querySelector("output");
    this.slider = figure.querySelector("input");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.plane = document.createElement("canvas");
    this.painted = "";
    this.turned = 0;
    const { grid } = reader.volume;
    this.plane.width = grid.size[this.view.column];
    this.plane.height = grid.size[this.view.row];
    this.slider.max = grid.size[this.view.across] - 1;
    this.slider.addEventListener("input", () => this.goTo(Number(this.slider.value)));
    this.canvas.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.canvas.addEventListener("click", (event) => reader.moveTo(this.pointAt(event)));
    this.canvas.addEventListener("pointermove", (event) => reader.describe(this.pointAt(event)));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  get index() {
    return this.reader.volume.grid.nearest(this.view.across, this.reader.cursor[this.view.across]);
  }

  // Show the slice with this index, or the nearest there is.
  goTo(index) {
    const { grid } = this.reader.volume;
    const axis = this.view.across;
    const point = [...this.reader.cursor];
    point[axis] = grid.mm(axis, Math.min(Math.max(index, 0), grid.size[axis] - 1));
    this.reader.moveTo(point);
  }

  onWheel(event) {
    event.preventDefault();
    if (event.ctrlKey) {
      this.reader.zoomBy(event.deltaY < 0 ? 1.25 : 0.8);
      return;
    }
    this.turned += event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : LINE_PIXELS);
    const slices = Math.trunc(this.turned / WHEEL_STEP);
    if (slices === 0) return;
    this.turned = 0;
    this.goTo(this.index - slices);
  }

  onKey(event) {
    const last = Number(this.slider.max);
    const target = {
      ArrowUp: this.index + 1,
      ArrowRight: this.index + 1,
      ArrowDown: this.index - 1,
      ArrowLeft: this.index - 1,
      PageUp: this.index + 10,
      PageDown: this.index - 10,
      Home: last,
      End: 0,
    }[event.key];
    if (target === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.goTo(target);
  }

  // From mm to pixels of the canvas: the reader's home region at zoom 1, and around the reader's centre when closer.
  transform() {
    const { zoom, centre, home } = this.reader;
    const { width, height } = this.canvas;
    const axes = [this.view.column, this.view.row];
    const [across, down] = axes.map((axis) => home[axis][1] - home[axis][0]);
    const scale = zoom * Math.min(width / across, height / down);
    const middle = axes.map((axis) => (zoom > 1 ? centre[axis] : (home[axis][0] + home[axis][1]) / 2));
    return {
      scale,
      x: (mm) => width / 2 + (mm - middle[0]) * scale,
      y: (mm) => height / 2 + (mm - middle[1]) * scale * this.view.rowSign,
      column: (x) => middle[0] + (x - width / 2) / scale,
      row: (y) => middle[1] + ((y - height / 2) / scale) * this.view.rowSign,
    };
  }

  // The place in the patient under the pointer.
  pointAt(event) {
    const to = this.transform();
    const pixel = this.canvas.width / this.canvas.clientWidth;
    const point = [...this.reader.cursor];
    point[this.view.column] = to.column(event.offsetX * pixel);
    point[this.view.row] = to.row(event.offsetY * pixel);
    return point;
  }

  // Whether a place is in sight at the present zoom.
  sees(point) {
    const to = this.transform();
    const [x, y] = [to.x(point[this.view.column]), to.y(point[this.view.row])];
    return x > 0 && y > 0 && x < this.canvas.width && y < this.canvas.height;
  }

  draw() {
    const { canvas, context } = this;
    const pixel = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * pixel);
    const height = Math.round(canvas.clientHeight * pixel);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    const to = this.transform();
    this.drawImage(to);
    for (const organ of this.reader.organs) this.drawOutline(organ, to, pixel);
    if (this.reader.crossed) this.drawCross(to, pixel);
    this.drawMarks(to, pixel);
    this.say();
  }

  drawImage(to) {
    const { volume, window: preset, loaded } = this.reader;
    const state = `${this.index} ${preset} ${loaded}`;
    const context = this.plane.getContext("2d");
    if (state !== this.painted) {
      const image = context.createImageData(this.plane.width, this.plane.height);
      volume.paint(this.view, this.index, volume.shades(preset), new Uint32Array(image.data.buffer));
      context.putImageData(image, 0, 0);
      this.painted = state;
    }
    const [left, right] = volume.grid.edges(this.view.column);
    const [low, high] = volume.grid.edges(this.view.row);
    const top = this.view.rowSign > 0 ? low : high;
    this.context.drawImage(this.plane, to.x(left), to.y(top), (right - left) * to.scale, (high - low) * to.scale);
  }

  drawOutline(organ, to, pixel) {
    if (!organ.shown || !this.reader.outlined) return;
    const { context } = this;
    const mm = this.reader.cursor[this.view.across];
    context.beginPath();
    organ.outline(this.view, mm, (x0, y0, x1, y1) => {
      context.moveTo(to.x(x0), to.y(y0));
      context.lineTo(to.x(x1), to.y(y1));
    });
    context.lineCap = "round";
    context.lineWidth = this.reader.thickness * pixel * (organ === this.reader.chosen ? 2 : 1);
    context.strokeStyle = organ.colour;
    context.stroke();
  }

  drawCross(to, pixel) {
    const { context, canvas } = this;
    const x = to.x(this.reader.cursor[this.view.column]);
    const y = to.y(this.reader.cursor[this.view.row]);
    const gap = CROSS_GAP * pixel;
    context.beginPath();
    for (const [x0, y0, x1, y1] of [
      [0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height],
    ]) {
      context.moveTo(x0, y0);
      context.lineTo(x1, y1);
    }
    context.lineWidth = pixel;
    context.strokeStyle = "rgb(120 220 255 / 45%)";
    context.stroke();
  }

  // The letters of the sides, and a bar of one or five centimetres.
  drawMarks(to, pixel) {
    const { context, canvas } = this;
    const { width, height } = canvas;
    const size = 13 * pixel;
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const write = (text, x, y) => {
      context.lineWidth = 3 * pixel;
      context.strokeStyle = "#000";
      context.strokeText(text, x, y);
      context.fillStyle = "#fff";
      context.fillText(text, x, y);
    };
    const [left, right, upper, lower] = this.view.sides;
    write(left, size, height / 2);
    write(right, width - size, height / 2);
    write(upper, width / 2, size);
    write(lower, width / 2, height - size);
    const length = 50 * to.scale < width / 3 ? 50 : 10;
    const [x, y] = [width - size - length * to.scale, height - size];
    context.fillStyle = "#000";
    context.fillRect(x - pixel, y - 2 * pixel, length * to.scale + 2 * pixel, 4 * pixel);
    context.fillStyle = "#fff";
    context.fillRect(x, y - pixel, length * to.scale, 2 * pixel);
    write(`${length / 10} cm`, x + (length * to.scale) / 2, y - size);
  }

  // The slice in words, under the picture, on the slider and for those who cannot see the canvas.
  say() {
    const axis = this.view.across;
    const mm = this.reader.volume.grid.mm(axis, this.index);
    const place = `${onAxis(axis, mm, 1)} mm`;
    const words = axis === 2 ? `${this.reader.sliceWords(mm)} · ${place}` : place;
    this.words.textContent = words;
    this.slider.value = this.index;
    this.slider.setAttribute("aria-valuetext", words);
    this.canvas.setAttribute("aria-label", `${this.view.name} CT with outlines, ${words}`);
  }
}

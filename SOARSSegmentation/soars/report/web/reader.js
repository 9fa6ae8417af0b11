"use strict";
// The viewer: one cursor in the patient, three panes through it, and the list of organs beside them.

const PRESETS = { soft: [400, 40], bone: [2000, 400], brain: [80, 40] }; // width and level in HU
const SLICES_AT_ONCE = 16; // unpacked between two redraws while the page opens
const [LEAST_ZOOM, MOST_ZOOM] = [0.5, 12];
const HOME_MM = 260; // what is seen at first, unless the organs need more: shoulders would make the head small

class Reader {
  constructor(root, scene) {
    this.root = root;
    this.numbering = scene.numbering;
    this.volume = new Volume(new Grid(scene.image), scene.levels);
    this.masks = new Grid(scene.masks);
    this.organs = [];
    this.window = PRESETS.soft;
    this.thickness = 1.5;
    this.outlined = true;
    this.crossed = true;
    this.zoom = 1;
    this.loaded = 0;
    this.chosen = null;
    this.cursor = [0, 1, 2].map((axis) => this.volume.grid.mm(axis, Math.floor(this.volume.grid.size[axis] / 2)));
    this.centre = this.cursor;
    this.home = [0, 1, 2].map((axis) => this.volume.grid.edges(axis));
    this.panes = [...root.querySelectorAll("figure[data-view]")].map((figure) => new Pane(figure, this));
    this.pointed = root.querySelector("#pointed");
    this.waiting = false;
  }

  async loadOrgans(entries) {
    this.organs = await Promise.all(
      entries.map(async (entry) => new Organ(entry, this.masks, await inflate(entry.bits))),
    );
  }

  // Begin in the first organ, with all of them in sight.
  begin() {
    this.cursor = this.organs[0].centre;
    for (const axis of [0, 1]) {
      const low = Math.min(...this.organs.map((organ) => this.masks.mm(axis, organ.start[axis])));
      const high = Math.max(...this.organs.map((organ) => this.masks.mm(axis, organ.start[axis] + organ.size[axis])));
      const [first, last] = this.volume.grid.edges(axis);
      const half = Math.min(Math.max((high - low) / 2 + 20, HOME_MM / 2), (last - first) / 2);
      const middle = Math.min(Math.max((low + high) / 2, first + half), last - half);
      this.home[axis] = [middle - half, middle + half];
    }
    this.draw();
  }

  // Unpack the CT, the slice at the cursor first, and redraw as it comes.
  async loadSlices(lines) {
    const first = this.volume.grid.nearest(2, this.cursor[2]);
    const order = lines.map((_, z) => z).sort((a, b) => Math.abs(a - first) - Math.abs(b - first));
    for (let done = 0; done < order.length; done += SLICES_AT_ONCE) {
      const some = order.slice(done, done + SLICES_AT_ONCE);
      await Promise.all(some.map((z) => this.volume.load(z, lines[z])));
      this.loaded = done + some.length;
      this.draw();
    }
    this.root.dataset.loaded = this.loaded;
  }

  // Redraw all panes before the browser shows the next frame, once however often it is asked for.
  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      for (const pane of this.panes) pane.draw();
    });
  }

  sliceWords(mm) {
    const { first, step, count } = this.numbering;
    const number = Math.min(Math.max(Math.round((mm - first) / step) + 1, 1), count);
    return `Slice ${number} of ${count}`;
  }

  moveTo(point) {
    const { grid } = this.volume;
    this.cursor = point.map((mm, axis) => {
      const [low, high] = grid.edges(axis);
      return Math.min(Math.max(mm, low), high);
    });
    if (this.panes.some((pane) => !pane.sees(this.cursor))) this.centre = this.cursor;
    this.describe(this.cursor);
    this.draw();
  }

  zoomBy(factor) {
    if (this.zoom <= 1) this.centre = this.cursor;
    this.zoom = Math.min(Math.max(this.zoom * factor, LEAST_ZOOM), MOST_ZOOM);
    this.draw();
  }

  // Go to a place, closer than the whole body, with the organ shown and emphasised.
  visit(point, organ) {
    if (organ) this.show(organ, true);
    this.chosen = organ;
    this.zoom = Math.max(this.zoom, 2);
    this.centre = point;
    this.moveTo(point);
    this.mark();
    this.root.querySelector(".reading").scrollIntoView({ block: "nearest" });
  }

  show(organ, shown) {
    organ.shown = shown;
    for (const box of this.root.querySelectorAll("input[data-organ]")) {
      if (box.dataset.organ === organ.name) box.checked = shown;
    }
    this.draw();
  }

  // Which organ of the list is the chosen one.
  mark() {
    for (const item of this.root.querySelectorAll("li[data-organ]")) {
      if (this.chosen && item.dataset.organ === this.chosen.name) item.setAttribute("aria-current", "true");
      else item.removeAttribute("aria-current");
    }
  }

  // What is at a place, in words: organs, HU, coordinates.
  describe(point) {
    const { grid } = this.volume;
    const index = point.map((mm, axis) => grid.index(axis, mm));
    if (index.some((value, axis) => value < 0 || value >= grid.size[axis])) return;
    const voxel = point.map((mm, axis) => this.masks.index(axis, mm));
    const labels = this.organs.filter((organ) => organ.shown && organ.has(...voxel)).map((organ) => organ.label);
    const parts = [placeWords(point), `about ${this.volume.hu(index)} HU`, labels.join(", ")];
    this.pointed.textContent = parts.filter((part) => part).join(" · ");
  }
}

// What the list and the tool bar do. The list is in the page for people without scripts, too: its texts become buttons.
function connect(reader) {
  const byName = new Map(reader.organs.map((organ) => [organ.name, organ]));
  const { root } = reader;
  for (const text of root.querySelectorAll("[data-visit]")) {
    const organ = byName.get(text.dataset.visit);
    if (!organ) continue;
    const point = text.dataset.point ? text.dataset.point.split(" ").map(Number) : organ.centre;
    const button = document.createElement("button");
    button.type = "button";
    button.className = text.className;
    button.dataset.visit = organ.name;
    button.append(...text.childNodes);
    button.addEventListener("click", () => reader.visit(point, organ));
    text.replaceWith(button);
  }
  for (const box of root.querySelectorAll("input[data-organ]")) {
    box.addEventListener("change", () => reader.show(byName.get(box.dataset.organ), box.checked));
  }
  const all = root.querySelector("#all-organs");
  all.addEventListener("change", () => reader.organs.forEach((organ) => reader.show(organ, all.checked)));
  for (const radio of root.querySelectorAll("input[name=window]")) {
    radio.addEventListener("change", () => {
      reader.window = PRESETS[radio.value];
      reader.draw();
    });
  }
  const thickness = root.querySelector("#thickness");
  thickness.addEventListener("input", () => {
    reader.thickness = Number(thickness.value);
    reader.draw();
  });
  for (const [id, property] of [["outlines", "outlined"], ["cross-hair", "crossed"]]) {
    const box = root.querySelector(`#${id}`);
    box.addEventListener("change", () => {
      reader[property] = box.checked;
      reader.draw();
    });
  }
  root.querySelector("#closer").addEventListener("click", () => reader.zoomBy(1.5));
  root.querySelector("#farther").addEventListener("click", () => reader.zoomBy(1 / 1.5));
  document.addEventListener("keydown", (event) => onShortcut(event, root));
}

// Keys that work wherever the focus is: they press the control that they stand for.
function onShortcut(event, root) {
  const id = {
    1: "window-soft", 2: "window-bone", 3: "window-brain", h: "outlines", x: "cross-hair",
    "+": "closer", "=": "closer", "-": "farther",
  }[event.key];
  if (!id || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  root.querySelector(`#${id}`).click();
}

async function start() {
  const root = document.getElementById("reader");
  if (!root || typeof DecompressionStream === "undefined") return;
  const scene = JSON.parse(document.getElementById("scene").textContent);
  const reader = new Reader(root, scene);
  await reader.loadOrgans(scene.organs);
  connect(reader);
  document.documentElement.classList.add("live");
  const stills = document.getElementById("stills");
  stills.open = false;
  window.addEventListener("beforeprint", () => { stills.open = true; });
  reader.begin();
  await reader.loadSlices(document.getElementById("slices").textContent.trim().split("\n"));
}

start();

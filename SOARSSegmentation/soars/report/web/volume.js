"use strict";
// The CT and the organs as the page holds them, and the planes and outlines that are read from them.
// Axes are numbered 0 x (to the patient's left), 1 y (to the back), 2 z (to the head); places are mm.

// Of each view: the axis across it, and the axis and sign of its columns (to the right) and rows (downwards).
const VIEWS = {
  axial: { name: "Axial", across: 2, column: 0, row: 1, rowSign: 1, sides: ["R", "L", "A", "P"] },
  sagittal: { name: "Sagittal", across: 0, column: 1, row: 2, rowSign: -1, sides: ["A", "P", "H", "F"] },
  coronal: { name: "Coronal", across: 1, column: 0, row: 2, rowSign: -1, sides: ["R", "L", "H", "F"] },
};

const AXIS_LETTERS = ["LR", "PA", "SI"];

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflate(base64) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A regular grid of voxels along the patient's axes.
class Grid {
  constructor({ size, spacing, origin }) {
    this.size = size;
    this.spacing = spacing;
    this.origin = origin;
  }

  index(axis, mm) {
    return Math.round((mm - this.origin[axis]) / this.spacing[axis]);
  }

  nearest(axis, mm) {
    return Math.min(Math.max(this.index(axis, mm), 0), this.size[axis] - 1);
  }

  mm(axis, index) {
    return this.origin[axis] + index * this.spacing[axis];
  }

  // Where the outer faces of the first and last voxel lie.
  edges(axis) {
    return [this.mm(axis, -0.5), this.mm(axis, this.size[axis] - 0.5)];
  }
}

// The CT: a level of 0 to 255 for each voxel, and the HU of each level.
class Volume {
  constructor(grid, levels) {
    this.grid = grid;
    this.levels = levels;
    this.voxels = new Uint8Array(grid.size[0] * grid.size[1] * grid.size[2]);
  }

  // Unpack one axial slice: undo the prediction from the left and the upper neighbour.
  async load(z, base64) {
    const differences = await inflate(base64);
    const [width, height] = this.grid.size;
    const slice = this.voxels.subarray(z * width * height, (z + 1) * width * height);
    for (let y = 0, i = 0; y < height; y++) {
      let left = 0;
      for (let x = 0; x < width; x++, i++) {
        const above = y > 0 ? slice[i - width] : 0;
        left = slice[i] = (differences[i] + ((left + above) >> 1)) & 255;
      }
    }
  }

  hu(index) {
    const [width, height] = this.grid.size;
    return this.levels[this.voxels[(index[2] * height + index[1]) * width + index[0]]];
  }

  // Fill the pixels (RGBA) of one plane with the greys of `shades`, one for each level.
  paint(view, index, shades, pixels) {
    const steps = [1, this.grid.size[0], this.grid.size[0] * this.grid.size[1]];
    const columns = this.grid.size[view.column];
    const rows = this.grid.size[view.row];
    const step = steps[view.column];
    for (let row = 0, p = 0; row < rows; row++) {
      let at = index * steps[view.across] + (view.rowSign > 0 ? row : rows - 1 - row) * steps[view.row];
      for (let column = 0; column < columns; column++, at += step, p++) pixels[p] = shades[this.voxels[at]];
    }
  }

  // The grey of each level in a window, as a pixel of ImageData (little-endian RGBA, which all browsers run on).
  shades([width, level]) {
    return Uint32Array.from(this.levels, (hu) => {
      const grey = Math.min(Math.max(Math.round(((hu - level) / width + 0.5) * 255), 0), 255);
      return (255 << 24) | (grey << 16) | (grey << 8) | grey;
    });
  }
}

// One organ: a bit for each voxel of its bounding box on the grid of all masks.
class Organ {
  constructor(entry, grid, bits) {
    this.name = entry.name;
    this.label = entry.label;
    this.colour = entry.colour;
    this.start = entry.start;
    this.size = entry.size;
    this.grid = grid;
    this.bits = bits;
    this.shown = true;
    this.centre = entry.centre;
  }

  // Whether the voxel with these indices of the common grid belongs to the organ.
  has(x, y, z) {
    const [width, height, depth] = this.size;
    const [column, row, slice] = [x - this.start[0], y - this.start[1], z - this.start[2]];
    if (column < 0 || row < 0 || slice < 0 || column >= width || row >= height || slice >= depth) return false;
    const bit = (slice * height + row) * width + column;
    return ((this.bits[bit >> 3] >> (7 - (bit & 7))) & 1) === 1;
  }

  // Trace the organ's outline in a plane: line segments between the middles of voxel edges (marching squares),
  // each handed to `line` as two places (column, row) in mm.
  outline(view, mm, line) {
    const across = this.grid.index(view.across, mm);
    if (across < this.start[view.across] || across >= this.start[view.across] + this.size[view.across]) return;
    const index = [0, 0, 0];
    index[view.across] = across;
    const columns = this.size[view.column] + 2;
    const rows = this.size[view.row] + 2;
    const inside = new Uint8Array(columns * rows);
    for (let row = 1; row < rows - 1; row++) {
      index[view.row] = this.start[view.row] + row - 1;
      for (let column = 1; column < columns - 1; column++) {
        index[view.column] = this.start[view.column] + column - 1;
        inside[row * columns + column] = this.has(...index) ? 1 : 0;
      }
    }
    const columnMm = (column) => this.grid.mm(view.column, this.start[view.column] + column - 1);
    const rowMm = (row) => this.grid.mm(view.row, this.start[view.row] + row - 1);
    for (let row = 0; row < rows - 1; row++) {
      for (let column = 0; column < columns - 1; column++) {
        const at = row * columns + column;
        const corners = inside[at] | (inside[at + 1] << 1) | (inside[at + columns] << 2) | (inside[at + columns + 1] << 3);
        for (const [from, to] of CROSSINGS[corners]) {
          line(
            columnMm(column + EDGE_MIDDLES[from][0]), rowMm(row + EDGE_MIDDLES[from][1]),
            columnMm(column + EDGE_MIDDLES[to][0]), rowMm(row + EDGE_MIDDLES[to][1]),
          );
        }
      }
    }
  }
}

// Edges of a cell of four voxels: 0 top, 1 bottom, 2 left, 3 right; and the edges that an outline crosses, by which of
// the corners (1 upper left, 2 upper right, 4 lower left, 8 lower right) are inside.
const EDGE_MIDDLES = [[0.5, 0], [0.5, 1], [0, 0.5], [1, 0.5]];
const CROSSINGS = [
  [], [[0, 2]], [[0, 3]], [[2, 3]], [[1, 2]], [[0, 1]], [[0, 3], [1, 2]], [[1, 3]],
  [[1, 3]], [[0, 2], [1, 3]], [[0, 1]], [[1, 2]], [[2, 3]], [[0, 3]], [[0, 2]], [],
];

// A place on one axis, e.g. "S 12.5": as 3D Slicer writes it.
function onAxis(axis, mm, decimals) {
  const rounded = Number(mm.toFixed(decimals));
  return `${AXIS_LETTERS[axis][rounded >= 0 ? 0 : 1]} ${Math.abs(rounded).toFixed(decimals)}`;
}

function placeWords(point) {
  return point.map((mm, axis) => onAxis(axis, mm, 0)).join(", ") + " mm";
}

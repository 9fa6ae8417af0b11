"use strict";
// Sorting of the table, and the two columns of the organ that is chosen.
(() => {
  const table = document.getElementById("cases");
  const body = table.tBodies[0];
  const choice = document.getElementById("organ");
  const organs = new Map([...body.rows].map((row) => [row, JSON.parse(row.dataset.organs)]));

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell === undefined ? "" : cell.dataset.value ?? cell.textContent;
  };

  // Rows without a value come last in both directions.
  const compare = (a, b, numbers, sign) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (numbers ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
  };

  const sort = (header, direction) => {
    const column = header.cellIndex;
    const numbers = header.dataset.sort === "number";
    const sign = direction === "ascending" ? 1 : -1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    const value = (row) => (row.querySelector("td[colspan]") && column > 2 ? "" : valueOf(row, column));
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), numbers, sign)));
  };

  const show = (cell, value, digits) => {
    if (cell === null) return;
    cell.textContent = value === null ? "" : value.toFixed(digits);
    cell.dataset.value = value === null ? "" : String(value);
  };

  const choose = () => {
    for (const [row, values] of organs) {
      const [volume, expected] = values[choice.value] ?? [null, null];
      show(row.querySelector("td.volume"), volume, 2);
      show(row.querySelector("td.expected"), expected, 2);
    }
    const sorted = table.querySelector("th[aria-sort].organ-column");
    if (sorted !== null) sort(sorted, sorted.getAttribute("aria-sort"));
  };

  for (const header of table.tHead.rows[0].cells) {
    if (!header.dataset.sort) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () =>
      sort(header, header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending"));
    header.append(button);
  }
  const there = new Set([...organs.values()].flatMap((values) => Object.keys(values)));
  for (const option of [...choice.options]) if (!there.has(option.value)) option.remove();
  choice.addEventListener("change", choose);
  document.documentElement.classList.add("live");
  for (const element of document.querySelectorAll(".live-only")) element.hidden = false;
  choose();
})();

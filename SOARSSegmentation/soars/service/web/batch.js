"use strict";
// The two columns of the organ that is chosen.
(() => {
  const table = document.getElementById("cases");
  const choice = document.getElementById("organ");
  const organs = new Map([...table.tBodies[0].rows].map((row) => [row, JSON.parse(row.dataset.organs)]));
  const sortAgain = sortable(table);

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
    sortAgain();
  };

  const there = new Set([...organs.values()].flatMap((values) => Object.keys(values)));
  for (const option of [...choice.options]) if (!there.has(option.value)) option.remove();
  choice.addEventListener("change", choose);
  document.documentElement.classList.add("live");
  for (const element of document.querySelectorAll(".live-only")) element.hidden = false;
  choose();
})();

"use strict";
// Sorts a table's rows when one of its headers with data-sort ("text" or "number") is clicked; gives a function that
// sorts again by the column that is sorted by, for when values have changed.
const sortable = (table) => {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];

  // A cell's data-value where that is not its text. A row with a cell over several columns has no values there.
  const valueOf = (row, column) => {
    if (row.querySelector(":scope > td[colspan]") && column >= row.cells.length - 1) return "";
    const cell = row.cells[column];
    return cell === undefined ? "" : cell.dataset.value ?? cell.textContent;
  };

  // Rows without a value come last in both directions.
  const compare = (a, b, numbers, sign) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (!numbers) return sign * a.localeCompare(b, undefined, { numeric: true });
    return sign * (Number(a) > Number(b)) - sign * (Number(a) < Number(b));  // also between infinite ones
  };

  const sort = (header, direction) => {
    const column = header.cellIndex;
    const numbers = header.dataset.sort === "number";
    const sign = direction === "ascending" ? 1 : -1;
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
    body.append(...rows.sort((a, b) => compare(a[0], b[0], numbers, sign)).map(([, row]) => row));
  };

  for (const header of headers) {
    if (!header.dataset.sort) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () =>
      sort(header, header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending"));
    header.append(button);
  }
  return () => {
    const sorted = headers.find((header) => header.hasAttribute("aria-sort"));
    if (sorted !== undefined) sort(sorted, sorted.getAttribute("aria-sort"));
  };
};

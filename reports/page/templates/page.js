"use strict";
// Sorts and filters the tables and shows blocks of columns. Without it the page is the same, in the suite's order.
for (const grid of document.querySelectorAll("[data-grid]")) {
  const table = grid.querySelector("table");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const status = grid.querySelector("[data-status]");
  const filter = grid.querySelector("[data-filter]");
  const words = rows.map((row) =>
    Array.from(row.querySelectorAll("th, td.t"), (cell) => cell.textContent).join("\n").toLowerCase());

  // A number, or null where it is missing; else the text.
  const valueOf = (cell) => {
    const value = cell.dataset.v;
    return value === undefined ? cell.textContent.trim() : value === "" ? null : Number(value);
  };
  const lacks = (value) => value === null || value === "-";
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

  const sort = (place) => {
    const head = heads[place];
    const text = head.classList.contains("t");
    const before = head.getAttribute("aria-sort");
    const rising = before ? before === "descending" : text;  // numbers begin with the largest
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const sign = rising ? 1 : -1;
    const keyed = rows.map((row, i) => [valueOf(row.cells[place]), i, row]);
    keyed.sort(([a, i], [b, j]) => {
      if (lacks(a) || lacks(b)) return lacks(a) - lacks(b) || i - j;
      return sign * compare(a, b) || i - j;
    });
    body.append(...keyed.map((entry) => entry[2]));
    status.textContent = `sorted by ${head.textContent.trim()}, ${rising ? "smallest" : "largest"} first`;
  };

  heads.forEach((head, place) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", () => sort(place));
  });
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let left = 0;
    rows.forEach((row, i) => {
      row.hidden = !words[i].includes(wanted);
      left += row.hidden ? 0 : 1;
    });
    status.textContent = wanted ? `${left} of ${rows.length} rows` : "";
  });
  for (const choice of grid.querySelectorAll("[data-block]")) {
    const show = () => table.classList.toggle(`hide-${choice.dataset.block}`, !choice.checked);
    choice.addEventListener("change", show);
    show();
  }
  grid.querySelector(".controls").hidden = false;
}

"use strict";
// Puts rows in order, narrows them down, and opens what is asked for; #sort=-lr&filter=adam in the address does so, too.
const tables = [...document.querySelectorAll("table")];
const keyOf = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();

function compared(a, b) {
  const [x, y] = [Number(a), Number(b)];
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x < y ? -1 : x > y ? 1 : 0;
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return a < b ? -1 : a > b ? 1 : 0;
}

function sort(table, column, descending) {
  const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row, column), row]);
  const isMissing = ([key]) => key === "" || key === "-";
  rows.sort((a, b) => isMissing(a) - isMissing(b) || (isMissing(a) ? 0 : (descending ? -1 : 1) * compared(a[0], b[0])));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  [...table.tHead.rows[0].cells].forEach((head, at) => {
    if (at === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

function filter(table, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) {
    const shown = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => shown.includes(word));
  }
  const left = rows.filter((row) => !row.hidden).length;
  const count = left === rows.length ? `${left}` : `${left} of ${rows.length}`;
  table.parentElement.previousElementSibling.querySelector("output").textContent = `${count} ${table.dataset.things}`;
}

function remember(name, value) {
  const asked = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  if (value) asked.set(name, value);
  else asked.delete(name);
  history.replaceState(null, "", `#${asked}`);
}

function follow() {
  const place = location.hash.slice(1);
  if (!place.includes("=")) {
    const target = place && document.getElementById(place);
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
    return;
  }
  const asked = new URLSearchParams(place);
  const by = asked.get("sort") ?? "";
  for (const table of tables) {
    const heads = [...table.tHead.rows[0].cells].map((head) => head.dataset.name);
    const column = heads.indexOf(by) >= 0 ? heads.indexOf(by) : heads.indexOf(by.replace(/^-/, ""));
    if (by && column >= 0) sort(table, column, by !== heads[column]);
    if (table.dataset.things && asked.has("filter")) {
      table.parentElement.previousElementSibling.querySelector("input").value = asked.get("filter");
      filter(table, asked.get("filter"));
    }
  }
}

for (const table of tables) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.dataset.name = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      sort(table, column, descending);
      if (table.dataset.things) remember("sort", (descending ? "-" : "") + head.dataset.name);
    });
  });
  if (table.dataset.things) {
    const field = table.parentElement.previousElementSibling;
    field.hidden = false;
    field.querySelector("input").addEventListener("input", (event) => {
      filter(table, event.target.value);
      remember("filter", event.target.value);
    });
  }
}
addEventListener("hashchange", follow);
follow();

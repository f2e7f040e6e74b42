"use strict";
// Each main table sorts by its heads and hides the rows that lack what is typed above it.
for (const table of document.querySelectorAll("table.main")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const filter = document.querySelector(`input[data-table="${table.id}"]`);
  const count = document.getElementById(table.dataset.count);
  const reloads = document.querySelector('meta[http-equiv="refresh"]') !== null;
  const key = `report ${location.pathname} ${table.id}`;
  const written = [...body.rows];
  let column = -1, direction = 1;

  function compare(one, other) {
    const [a, b] = [one, other].map((row) => row.cells[column].dataset.value);
    if (a === "" || b === "") return (a === "") - (b === "");  // nothing comes last in both directions
    const numbers = heads[column].classList.contains("number");
    return direction * (numbers ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
  }

  function sort() {
    // From the order in which they were written, so that equal rows keep it.
    const rows = column < 0 ? written : [...written].sort(compare);
    body.append(...rows);
    heads.forEach((head, place) => {
      head.setAttribute("aria-sort", place !== column ? "none" : direction > 0 ? "ascending" : "descending");
    });
  }

  function hide() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of written) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = words.length ? `${shown} of ${written.length} rows` : `${written.length} rows`;
  }

  // A page that reloads itself keeps what was asked of it. A browser may refuse to store anything for files.
  function remember() {
    if (!reloads) return;
    try {
      sessionStorage.setItem(key, JSON.stringify({ column, direction, words: filter.value }));
    } catch { /* it begins anew then */ }
  }

  function recall() {
    if (!reloads) return;
    try {
      const state = JSON.parse(sessionStorage.getItem(key));
      if (state !== null && state.column < heads.length) {
        ({ column, direction } = state);
        filter.value = state.words;
      }
    } catch { /* there is nothing to recall */ }
  }

  heads.forEach((head, place) => {
    head.querySelector("button").addEventListener("click", () => {
      direction = place === column ? -direction : 1;
      column = place;
      sort();
      remember();
    });
  });
  filter.addEventListener("input", () => { hide(); remember(); });
  recall();
  sort();
  hide();
}

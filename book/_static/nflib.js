// Tables of the book: a click on a column's head sorts by it; a long table has a field that keeps only the rows with its words.
// In the dark theme, the interactive table of the scoreboard is told so by a class that its library looks for.

function number(text) {
  const value = parseFloat(text.replace(/[,\s+]/g, "").replace("−", "-"));
  return Number.isNaN(value) ? null : value;
}

function compare(a, b) {
  const [x, y] = [number(a), number(b)];
  return x !== null && y !== null ? x - y : a.localeCompare(b, "en", { numeric: true });
}

function sort(table, column, head) {
  const down = head.getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0], text = (row) => row.cells[column].textContent;
  const rows = [...body.rows], missing = rows.filter((row) => text(row) === "–"); // last in either direction
  const known = rows.filter((row) => text(row) !== "–").sort((a, b) => compare(text(a), text(b)));
  body.append(...(down ? known.reverse() : known), ...missing);
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
}

function filter(table, words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of table.tBodies[0].rows) {
    const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
    row.hidden = !wanted.every((word) => text.includes(word));
  }
}

function prepare(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column, head));
    head.append(button);
  });
  const box = table.parentElement;
  box.tabIndex = 0; // can be scrolled by keys
  if (!box.classList.contains("tall")) return;
  const field = Object.assign(document.createElement("input"), { type: "search", placeholder: "Show only rows with…" });
  field.className = "nflib-filter";
  field.setAttribute("aria-label", "Show only rows with these words");
  field.addEventListener("input", () => filter(table, field.value));
  box.before(field);
}

function follow() {
  document.documentElement.classList.toggle("dark", document.documentElement.dataset.theme === "dark");
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("table.nflib").forEach(prepare);
  follow();
  new MutationObserver(follow).observe(document.documentElement, { attributeFilter: ["data-theme"] });
});

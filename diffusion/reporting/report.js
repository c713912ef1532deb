"use strict";

// A header's button sorts its table's rows: first the better end, then the other way round. Rows without a number stay last.
function sortBy(header) {
  const table = header.closest("table");
  const column = [...header.parentElement.children].indexOf(header);
  const first = header.querySelector("button").dataset.first || "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = header.getAttribute("aria-sort") === first ? other : first;
  for (const each of header.parentElement.children) each.setAttribute("aria-sort", each === header ? order : "none");
  const value = (row) => parseFloat(row.children[column].dataset.value ?? "NaN");
  const sign = order === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
    return sign * (x - y);
  });
  body.append(...rows);
}

// The switches show one view. A step without pictures of the chosen weights shows those that it has.
function show(step, weights) {
  const views = [...document.querySelectorAll(".view")];
  const at = views.filter((view) => view.dataset.step === step);
  const view = at.find((view) => view.dataset.weights === weights) ?? at[0];
  for (const each of views) each.hidden = each !== view;
  for (const input of document.querySelectorAll(".switches input[name=weights]")) {
    input.disabled = !at.some((view) => view.dataset.weights === input.value);
    input.checked = input.value === view.dataset.weights;
  }
}

for (const header of document.querySelectorAll(".scores thead th")) {
  header.querySelector("button").addEventListener("click", () => sortBy(header));
}
const switches = document.querySelector(".switches");
if (switches) {
  const chosen = () => show(switches.elements.step.value, switches.elements.weights.value);
  switches.addEventListener("change", chosen);
  chosen();
}

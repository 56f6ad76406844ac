document.documentElement.classList.add("live");  // sorting and searching work: show them
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    head.querySelector("button").addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") === "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const compare = (a, b) => {
        const [x, y] = [a, b].map(row => row.cells[column]);
        const [p, q] = [x, y].map(cell => cell.dataset.value);
        if (p === "" || q === "") return (p === "") - (q === "");  // what was not measured stays at the end
        const order = p === undefined ? x.textContent.localeCompare(y.textContent, undefined, {numeric: true}) : p - q;
        return rising ? order : -order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  }
}
for (const field of document.querySelectorAll("input[data-filters]")) {
  const rows = [...document.getElementById(field.dataset.filters).tBodies[0].rows];
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(part => { part.open = true; }));

"use strict";
// Comfort only: everything is there without it. Filters lines, and says what is under the pointer.
for (const form of document.querySelectorAll("form.filter")) {
  const rows = Array.from(form.parentElement.querySelectorAll("tbody tr"), (row) => ({
    row, text: row.textContent.toLowerCase(), source: row.cells[1].textContent, node: row.cells[2].textContent,
  }));
  const [wanted, source, node] = form.querySelectorAll("input, select");
  const count = form.querySelector("output");
  const filter = () => {
    const words = wanted.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const entry of rows) {
      const fits = (!source.value || entry.source === source.value) && (!node.value || entry.node === node.value)
        && words.every((word) => entry.text.includes(word));
      entry.row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} lines`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
}
for (const body of document.querySelectorAll("svg.body")) {
  const under = body.closest(".zooms").nextElementSibling;
  const cursor = body.querySelector(".cursor");
  const began = Number(body.dataset.began), length = Number(body.dataset.length);
  const look = (event) => {
    const box = body.getBoundingClientRect();
    const x = Math.min(Math.max(event.clientX - box.left, 0), box.width);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", "visible");
    const title = event.target.closest("svg.body *")?.querySelector(":scope > title")
      ?? event.target.parentElement?.querySelector(":scope > title");
    const what = title && title.parentElement !== body ? `: ${title.textContent}` : "";
    under.textContent = `${(began + x / box.width * length).toFixed(3)} s${what}`;
    under.hidden = false;
  };
  body.addEventListener("pointermove", look);
  body.addEventListener("pointerdown", look);
  body.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    under.hidden = true;
  });
}

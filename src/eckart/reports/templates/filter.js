// The rows of the table below a filter that have the chosen words and the text; a row is found whatever the case.
for (const form of document.querySelectorAll("form.filter")) {
  const rows = [...form.nextElementSibling.querySelectorAll("tbody tr")];
  const chosen = [...form.querySelectorAll("select")];
  const narrow = () => {
    const text = form.querySelector("input").value.toLowerCase();
    const fits = (row) => row.textContent.toLowerCase().includes(text)
      && chosen.every((one) => !one.value || row.cells[one.dataset.column].textContent === one.value);
    let shown = 0;
    for (const row of rows) shown += !(row.hidden = !fits(row));
    form.querySelector("output").textContent = `${shown} shown`;
  };
  form.addEventListener("input", narrow);
  form.addEventListener("submit", (event) => event.preventDefault());
}

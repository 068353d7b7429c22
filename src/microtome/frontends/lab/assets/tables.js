// Tables of texts, each made of what a place of the page says in its `data-table`. With a component
// of Dash for each of its cells a table would take longer to be shown than a run to be computed.
(function () {
  const made = new WeakMap();  // a place → its table

  const element = (kind, text, more) =>
    Object.assign(document.createElement(kind), { textContent: text }, more);

  // A text, or a token whose white space is to be seen.
  const cell = (kind, given, more) => {
    if (typeof given === "string") { return element(kind, given, more); }
    const found = element(kind, "", more);
    found.append(element("span", given.piece, { className: "piece" }));
    return found;
  };

  const line = (cells) => {
    const found = document.createElement("tr");
    found.append(...cells);
    return found;
  };

  const table = ({ title, heads, rows }) => {
    const found = document.createElement("table");
    found.append(element("caption", title));
    found.createTHead().append(line(heads.map((one) => cell("th", one, { scope: "col" }))));
    found.createTBody().append(...rows.map(([first, ...rest]) => line([
      cell("th", first, { scope: "row" }),
      ...rest.map((one) => cell("td", one, { className: "number" })),
    ])));
    return found;
  };

  const fill = (place) => {
    made.get(place)?.remove();  // also where the page has made something else of the place
    made.delete(place);
    if (place.dataset.table) {
      made.set(place, table(JSON.parse(place.dataset.table)));
      place.append(made.get(place));
    }
  };

  const places = "[data-table]";
  new MutationObserver((changes) => changes.forEach(({ type, target, addedNodes }) => {
    if (type === "attributes") { fill(target); }
    addedNodes.forEach((node) => {
      if (node.nodeType !== Node.ELEMENT_NODE) { return; }
      if (node.matches(places)) { fill(node); }
      node.querySelectorAll(places).forEach(fill);
    });
  })).observe(document.body, {
    childList: true, subtree: true, attributes: true, attributeFilter: ["data-table"],
  });
})();

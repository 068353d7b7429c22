// Tables of texts, and the lines of lists, each made of what a place of the page says in its
// `data-table` or `data-lines`. With a component of Dash for each cell a table would take longer to
// be shown than a run to be computed; and whatever happens on a page is told to all its components.
(function () {
  const made = new WeakMap();  // a place → what was made of it

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

  const option = ({ label, value, ...more }) =>
    element("option", label ?? "", { value: value ?? "", ...more });

  const MAKES = {
    table: (told) => [table(told)],
    lines: (told) => told.map(option),
  };
  const places = Object.keys(MAKES).map((kind) => `[data-${kind}]`).join();

  const fill = (place) => {
    made.get(place)?.forEach((one) => one.remove());  // also where the page has made something else
    const kind = Object.keys(MAKES).find((one) => place.dataset[one]);
    const some = kind ? MAKES[kind](JSON.parse(place.dataset[kind])) : [];
    made.set(place, some);
    place.append(...some);
  };

  new MutationObserver((changes) => changes.forEach(({ type, target, addedNodes }) => {
    if (type === "attributes") { fill(target); }
    addedNodes.forEach((node) => {
      if (node.nodeType !== Node.ELEMENT_NODE) { return; }
      if (node.matches(places)) { fill(node); }
      node.querySelectorAll(places).forEach(fill);
    });
  })).observe(document.body, {
    childList: true, subtree: true, attributes: true,
    attributeFilter: Object.keys(MAKES).map((kind) => `data-${kind}`),
  });
})();

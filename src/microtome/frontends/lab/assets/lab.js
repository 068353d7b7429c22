// What a page needs besides its callbacks: the keyboard, and whether shift was held at a click.
(function () {
  // As it was when something was pressed: what a click leads to comes later, and the key is up.
  let shift = false;
  window.addEventListener("pointerdown", (event) => { shift = event.shiftKey; }, true);
  window.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { shift = event.shiftKey; }
  }, true);

  // Enter in a field is as good as leaving it; in a text, shift and Enter begin a new line.
  window.addEventListener("keydown", (event) => {
    const field = event.target;
    const commits = field.classList && (field.classList.contains("commits") ||
      field.closest(".commits"));
    if (commits && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      field.blur();
    }
  });

  // A browser's own list says what was chosen; Dash's HTML components do not listen to it.
  window.addEventListener("change", (event) => {
    const list = event.target;
    if (list.matches && list.matches("select.native")) {
      const id = list.id.startsWith("{") ? JSON.parse(list.id) : list.id;
      window.dash_clientside.set_props(id, { "data-value": list.value });
    }
  });

  const said = (search, key, unless) => new URLSearchParams(search || "").getAll(key).pop() ?? unless;

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    microtome: {
      // What stands in the fields follows the address at once: a later answer of the server
      // would overwrite what is being typed by then.
      fields: (search) => ["text", "donor", "target", "contrast"].map((key) => said(search, key, "")),
      edit: (search, unless) => said(search, "edit", unless),
      clicked: (data) => {
        const point = data && data.points && data.points[0];
        if (!point) { return window.dash_clientside.no_update; }
        return { x: point.x, y: point.y, more: shift, at: Date.now() };
      },
    },
  });
})();

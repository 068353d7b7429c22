// What a page needs besides its callbacks: the keyboard, and the browser's own lists.
(function () {
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

  // A field follows the address where that says something else than before; what is being typed
  // into it meanwhile stays.
  const said_before = {};
  const followed = (field, next, now) => {
    const same = said_before[field] === next;
    said_before[field] = next;
    return same || next === now ? window.dash_clientside.no_update : next;
  };

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    microtome: {
      // What stands in the fields follows the address at once: a later answer of the server
      // would overwrite what is being typed by then.
      fields: (search, ...now) => ["text", "donor", "target", "contrast"].map((key, n) =>
        followed(key, said(search, key, ""), now[n])),
      edit: (search, unless, now) => followed("edit", said(search, "edit", unless), now),
    },
  });
})();

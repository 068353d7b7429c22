// What a page needs besides its callbacks: the keyboard, and whether shift was held at a click.
(function () {
  let shift = false;
  const note = (event) => { shift = event.shiftKey; };
  for (const kind of ["mousedown", "keydown", "keyup"]) {
    window.addEventListener(kind, note, true);
  }

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

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    microtome: {
      clicked: (data) => {
        const point = data && data.points && data.points[0];
        if (!point) { return window.dash_clientside.no_update; }
        return { x: point.x, y: point.y, more: shift, at: Date.now() };
      },
    },
  });
})();

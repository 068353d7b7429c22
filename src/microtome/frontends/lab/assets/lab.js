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

  // On the map arrow keys choose the next cell; in a frame of their own, so that a page still scrolls.
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  let at = null;
  let pressed = 0;  // when: answers to earlier keys may still come, and are not where one is now
  window.addEventListener("keydown", (event) => {
    const frame = event.target;
    const step = STEPS[event.key];
    if (frame.id !== "map-frame" || !step || !frame.dataset.at) { return; }
    event.preventDefault();
    const told = JSON.parse(frame.dataset.at);
    const same = at && at.rows === told.rows && at.columns === told.columns;
    if (!same || Date.now() - pressed > 3000) { at = told; }
    pressed = Date.now();
    const within = (value, size) => Math.min(Math.max(value, 0), size - 1);
    at.x = within(at.x + step[0], at.columns);
    at.y = within(at.y + step[1], at.rows);
    const cell = { x: at.x, y: at.y, more: event.shiftKey, at: Date.now() };
    window.dash_clientside.set_props("map-clicked", { data: cell });
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

  const other = (next, now) => (next === now ? window.dash_clientside.no_update : next);

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    microtome: {
      // What stands in the fields follows the address at once: a later answer of the server
      // would overwrite what is being typed by then.
      fields: (search, ...now) => ["text", "donor", "target", "contrast"].map((key, n) =>
        other(said(search, key, ""), now[n])),
      edit: (search, unless, now) => other(said(search, "edit", unless), now),
      clicked: (data) => {
        const point = data && data.points && data.points[0];
        if (!point) { return window.dash_clientside.no_update; }
        return { x: point.x, y: point.y, more: shift, at: Date.now() };
      },
    },
  });
})();

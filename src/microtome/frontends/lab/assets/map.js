// The map: which of its cells a press, a key or a button chooses, and the frames around those.
(function () {
  const SLIP = 8;  // pixels that a pointer may move between down and up, and still press one cell
  const { now, of, put } = window.microtome;

  const frame = () => document.getElementById("map-frame");

  // The cells that are drawn; null where none are.
  const grid = (told) => (told ? JSON.parse(told) : null);
  const drawn = () => grid(frame() && frame().dataset.cells);

  const edit = ({ parts, axes, rows, columns }, { x, y }) => parts.reduce((text, part, n) =>
    text + (axes[n - 1] === "rows" ? rows[y] : columns[x]) + part);

  // Where an edit's cell is drawn; null where it is not.
  const placed = ({ parts, axes, rows, columns }, text) => {
    const plain = parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const found = new RegExp(`^${plain.join("(\\d+)")}$`).exec(text);
    if (!found) { return null; }
    const at = { x: 0, y: 0 };
    axes.forEach((axis, n) => {
      const number = Number(found[n + 1]);
      if (axis === "rows") { at.y = rows.indexOf(number); } else { at.x = columns.indexOf(number); }
    });
    return at.x < 0 || at.y < 0 ? null : at;
  };

  const within = (value, size) => Math.min(Math.max(value, 0), size - 1);

  // A cell is chosen, once more and it is not; with others, or by itself.
  const choose = (text, more) => {
    const chosen = now("cell"), others = chosen.filter((one) => one !== text);
    const is = others.length < chosen.length;
    if (more) {
      put("cell", is ? others : [...chosen, text]);
    } else {
      put("cell", is && !others.length ? [] : [text]);
    }
  };

  const several = () => document.getElementById("map-more")?.getAttribute("aria-pressed") === "true";

  // Which cell a pointer is on, by where the axes are now: what plotly last saw under a pointer,
  // which its own clicks tell of, may be the cell before.
  const under = (event) => {
    const cells = drawn(), area = event.target.closest?.("#map-figure .nsewdrag");
    if (!cells || !area) { return null; }
    const { xaxis, yaxis } = area.closest(".js-plotly-plot")._fullLayout;
    const box = area.getBoundingClientRect();
    const x = within(Math.round(xaxis.p2d(event.clientX - box.left)), cells.columns.length);
    const y = within(Math.round(yaxis.p2d(event.clientY - box.top)), cells.rows.length || 1);
    return edit(cells, { x, y });
  };

  let pressed = null;
  window.addEventListener("pointerdown", (event) => {
    const cell = event.isPrimary && event.button === 0 ? under(event) : null;
    pressed = cell && { cell, left: event.clientX, top: event.clientY };
  }, true);
  window.addEventListener("pointerup", (event) => {
    const { cell, left, top } = pressed || {};
    pressed = null;
    if (cell && Math.hypot(event.clientX - left, event.clientY - top) <= SLIP) {
      choose(cell, event.shiftKey || several());
    }
  }, true);
  window.addEventListener("pointercancel", () => { pressed = null; }, true);

  // Buttons that choose a cell, let one go, or open a panel.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) { return; }
    const { chooses, drops, opens } = button.dataset;
    if (chooses) { choose(chooses, event.shiftKey || several()); }
    if (drops) { put("cell", now("cell").filter((one) => one !== drops)); }
    if (opens) { put("panel", [opens]); }
  });
  document.addEventListener("change", (event) => {
    const list = event.target;
    if (list.id === "cell-pick" && list.value && !now("cell").includes(list.value)) {
      put("cell", [...now("cell"), list.value]);
    }
  });

  // Arrow keys choose the next cell; in a frame of their own, so that a page still scrolls.
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  window.addEventListener("keydown", (event) => {
    const step = STEPS[event.key], cells = drawn();
    if (event.target !== frame() || !step || !cells) { return; }
    event.preventDefault();
    const last = now("cell").map((one) => placed(cells, one)).filter(Boolean).pop();
    const from = last || { x: -1, y: -1 };
    const x = within(from.x + step[0], cells.columns.length);
    const y = within(from.y + step[1], cells.rows.length || 1);
    if (x !== from.x || y !== from.y) { choose(edit(cells, { x, y }), event.shiftKey); }
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    map: {
      // The figure with a frame around each chosen cell that is seen; to draw it takes a moment, so
      // the answer is asked for first.
      framed: async (search, told, figure) => {
        const cells = grid(told), { no_update, Patch } = window.dash_clientside;
        await new Promise((resolve) => { setTimeout(resolve); });
        if (!cells || !figure || !figure.layout) { return no_update; }
        const frames = of(search, "cell").map((one) => placed(cells, one)).filter(Boolean).map(({ x, y }) => {
          const { x0, x1, y0, y1, ...look } = cells.frame;
          const down = cells.rows.length ? y : 0;
          return { ...look, x0: x0 + x, x1: x1 + x, y0: y0 + down, y1: y1 + down };
        });
        const shapes = [...cells.shapes, ...frames];
        const same = JSON.stringify(shapes) === JSON.stringify(figure.layout.shapes || []);
        return same ? no_update : new Patch().assign(["layout", "shapes"], shapes).build();
      },
      // Which buttons of the strongest cells are pressed.
      marked: (search) => {
        const [buttons] = window.dash_clientside.callback_context.outputs_list;
        const chosen = of(search, "cell");
        const are = buttons.map((one) => chosen.includes(one.id.edit));
        return [are.map((one) => (one ? "chosen" : "")), are.map(String)];
      },
      // Whether each click adds a cell.
      several: (clicks) => (clicks % 2 ? ["true", "chosen"] : ["false", ""]),
    },
  });
})();

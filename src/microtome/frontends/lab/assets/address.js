// The address, which is all that a page shows: it is read and changed here, at once, and nobody's
// change is lost to somebody else's that took longer.
(function () {
  let known = null;
  // What stands in an address, in which order and where it is shown: as the server has it.
  const keys = () => (known ??= JSON.parse(document.getElementById("page").dataset.keys));

  let now = window.location.search;  // the newest, which Dash may know a moment later

  const pairs = (search) => [...new URLSearchParams(search || "")];
  const quoted = (text) =>
    encodeURIComponent(text).replace(/%(40|3A|2C|2F|7B|7D)/g, decodeURIComponent);
  const written = (some) => "?" + some.map(([name, value]) => `${name}=${quoted(value)}`).join("&");
  const values = (search, name) =>
    pairs(search).filter(([one]) => one === name).map(([, value]) => value);

  // An address with other values of a key.
  const having = (search, name, others) => written(keys().order.flatMap((one) =>
    (one === name ? others : values(search, one)).map((value) => [one, value])));

  // Each move is one step of the browser's way back, however fast they come.
  const go = (search) => {
    const next = new URL(search, window.location.href).search;  // as browsers write it
    if (next === now) { return; }
    window.history.pushState({}, "", next || "?");
    now = next;
    const { href } = window.location;  // without it Dash would go back there
    window.dash_clientside.set_props("address", { search: next, href });
  };

  // What an answer changes of the address at which it was asked, done to the one of now.
  const merged = (from, to) => written(keys().order.flatMap((name) => {
    const [was, is, wanted] = [from, now, to].map((search) => values(search, name));
    const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
    let found = wanted;
    if (same(was, wanted)) {
      found = is;
    } else if (!same(was, is) && keys().several.includes(name)) {
      const stay = is.filter((one) => wanted.includes(one) || !was.includes(one));
      found = [...stay, ...wanted.filter((one) => !was.includes(one) && !is.includes(one))];
    }
    return found.map((value) => [name, value]);
  }));

  const opened = (search) => {
    const { tabs } = keys(), panel = values(search, "panel").pop();
    return tabs.includes(panel) ? panel : tabs[0];
  };

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    address: {
      // Each part of the address for itself, so that only those look again whom a change concerns.
      parts: (search, ...before) => {
        now = search || "";
        const { tabs, question, more } = keys(), open = opened(now);
        const of = (names) => written(pairs(now).filter(([name]) => names.includes(name)));
        const found = [
          values(now, "model").pop() ?? "",
          of(question),
          ...tabs.map((tab) => (tab === open ? of([...question, ...more[tab], "panel"]) : null)),
        ];
        return found.map((one, n) =>
          (one === (before[n] ?? null) ? window.dash_clientside.no_update : one));
      },
      // A link to the same view in each language.
      languages: (search) => window.dash_clientside.callback_context.outputs_list.map((one) =>
        having(search, "lang", [one.id.replace("shell-", "")])),
      // Which panel is seen, and which tab is pressed.
      tabs: (search) => {
        const { tabs } = keys(), open = opened(search);
        const [buttons] = window.dash_clientside.callback_context.outputs_list.slice(tabs.length);
        const are = buttons.map((one) => one.id.name === open);
        return [
          ...tabs.map((tab) => tab !== open),
          are.map((one) => (one ? "chosen" : "")),
          are.map(String),
        ];
      },
      // A move that the server has made.
      answered: (asked, answer) => {
        const move = answer && answer.address;
        if (!move || move.search === undefined) { return; }
        const from = (asked.state || []).find((one) => one.id === "address");
        delete answer.address;  // it goes another way, also where Dash forgets an older question
        go(merged(from && from.value, move.search));
      },
    },
  });

  window.microtome = {
    of: values,
    now: (name) => values(now, name),
    put: (name, others) => go(having(now, name, others)),
  };
})();

// The address, which is all that a page shows: it is read and changed here, at once, and nobody's
// change is lost to somebody else's that took longer.
(function () {
  let known = null;
  // What stands in an address, in which order and where it is shown: as the server has it.
  const keys = () => (known ??= JSON.parse(document.getElementById("page").dataset.keys));

  // The newest, which Dash may know a moment later.
  const now = () => window.location.search;

  // Choices are counted as they are made, so that of two that take their time the later one stays.
  let choices = 0;
  const choice_of = new WeakMap();  // a question to the server → the choice that it is of
  const changed = {};  // key → the last choice that changed it
  const change = (name, choice) => { changed[name] = Math.max(changed[name] ?? 0, choice); };
  window.addEventListener("popstate", () => {
    choices += 1;
    keys().order.forEach((name) => change(name, choices));
  });

  const pairs = (search) => [...new URLSearchParams(search || "")];
  const quoted = (text) =>
    encodeURIComponent(text).replace(/%(40|3A|2C|2F|7B|7D)/g, decodeURIComponent);
  const written = (some) => "?" + some.map(([name, value]) => `${name}=${quoted(value)}`).join("&");
  const values = (search, name) =>
    pairs(search).filter(([one]) => one === name).map(([, value]) => value);

  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

  // An address with other values of a key.
  const having = (search, name, others) => written(keys().order.flatMap((one) =>
    (one === name ? others : values(search, one)).map((value) => [one, value])));

  // Each move is one step of the browser's way back, however fast they come.
  const go = (search, choice) => {
    const next = new URL(search, window.location.href).search, was = now();  // as browsers write it
    if (next === was) { return; }
    keys().order.filter((name) => !same(values(was, name), values(next, name)))
      .forEach((name) => change(name, choice));
    window.history.pushState({}, "", next || "?");
    const { href } = window.location;  // without it Dash would go back there
    window.dash_clientside.set_props("address", { search: next, href });
  };

  // What an answer to a choice changes of the address at which it was asked, done to that of now.
  const merged = (from, to, choice) => written(keys().order.flatMap((name) => {
    const { several, unless } = keys(), many = name in several;
    const [was, is, wanted] = [from, now(), to].map((search) => values(search, name));
    const meant = (some) => (many ? some : some.slice(-1).concat(unless[name] ?? []).slice(0, 1));
    const later = changed[name] > choice;
    let found = wanted;
    if (!same(was, is)) {  // somebody else has changed it meanwhile
      if (same(meant(was), meant(wanted)) || (later && !many)) {
        found = is;
      } else if (many) {
        const about = (one) => (several[name] ? one.split(several[name])[0] : one);
        const stays = is.filter((one) => wanted.includes(one) || !was.includes(one));
        const comes = wanted.filter((one) => !was.includes(one) && !is.includes(one));
        const taken = (later ? stays : comes).map(about);
        const free = (one) => !taken.includes(about(one));
        found = later ? [...stays, ...comes.filter(free)] : [...stays.filter(free), ...comes];
      }
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
        const { tabs, question, more } = keys(), open = opened(search);
        const of = (names) => written(pairs(search).filter(([name]) => names.includes(name)));
        const found = [
          values(search, "model").pop() ?? "",
          of(question),
          ...tabs.map((tab) => (tab === open ? of([...question, ...more[tab], "panel"]) : null)),
        ];
        return found.map((one, n) =>
          (one === (before[n] ?? null) ? window.dash_clientside.no_update : one));
      },
      // What an open panel hears of the model, or of the map; the others hear nothing.
      told: (search, now, ...before) => {
        const { callback_context: { outputs_list }, no_update } = window.dash_clientside;
        const is_open = ({ id }) => id.endsWith(`-${opened(search)}`);
        const is_new = (n) => !same(now ?? null, before[n] ?? null);
        return outputs_list.map((one, n) => (is_open(one) && is_new(n) ? now : no_update));
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
      // Whatever a page asks the server may be a choice.
      asks: (asked) => {
        choices += 1;
        choice_of.set(asked, choices);
      },
      // A move that the server has made.
      answered: (asked, answer) => {
        const move = answer && answer.address;
        if (!move || move.search === undefined) { return; }
        const from = (asked.state || []).find((one) => one.id === "address");
        delete answer.address;  // it goes another way, also where Dash forgets an older question
        const choice = choice_of.get(asked);
        go(merged(from && from.value, move.search, choice), choice);
      },
    },
  });

  window.microtome = {
    of: values,
    now: (name) => values(now(), name),
    put: (name, others) => {
      choices += 1;
      go(having(now(), name, others), choices);
    },
  };
})();

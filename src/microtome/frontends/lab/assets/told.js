// Each component of a page hears of all that happens on it. Dash tells them too when one of them was
// put on, and when nothing has changed at all: for a page of four hundred that is a quarter of the
// time in which it comes up. Here they are told once of all that were put on together, and of
// nothing not at all; whatever else happens they hear at once, as before.
(function () {
  const MARKS = "layoutHashes";  // which version of a component was drawn last

  const is_more = (now, before) =>
    Object.keys(now).some((part) => part !== MARKS && now[part] !== before[part]);

  const sparing = (store, hear) => {
    let heard = store.getState(), waits = false;
    const tell = () => {
      waits = false;
      heard = store.getState();
      hear();
    };
    return () => {
      const now = store.getState();
      if (now === heard) { return; }
      if (is_more(now, heard)) {
        tell();
      } else if (!waits) {
        waits = true;
        window.queueMicrotask(() => { if (waits) { tell(); } });
      }
    };
  };

  // Dash puts its store here before anybody hears of it.
  window.dash_stores = Object.assign([], {
    push: function (store) {
      const { subscribe } = store;
      store.subscribe = (hear) => subscribe(sparing(store, hear));
      return Array.prototype.push.call(this, store);
    },
  });
})();

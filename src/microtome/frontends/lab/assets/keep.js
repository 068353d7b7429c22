// Copying, undo, the full screen, and where this tab has been: the browser's own doing.
(function () {
  const PLACE = "microtome-visited", MOST = 60;

  const copied = (text) => {
    if (navigator.clipboard) { return navigator.clipboard.writeText(text); }
    // Without https, beyond this machine, there is no clipboard: a selected text can be copied.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    return Promise.resolve();
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) { return; }
    const { copies, goes, fills } = button.dataset;
    if (copies) {
      const from = document.getElementById(copies);
      copied(from.value === undefined ? from.textContent : from.value).then(() => {
        button.dataset.done = "yes";
        setTimeout(() => { delete button.dataset.done; }, 1500);
      });
    }
    if (goes) { window.history.go(Number(goes)); }
    if (fills) { document.getElementById(fills).requestFullscreen(); }
  });

  const visited = () => {
    try {
      const kept = JSON.parse(window.sessionStorage.getItem(PLACE));
      return Array.isArray(kept) ? kept.filter((one) => typeof one === "string") : [];
    } catch (error) { return []; }  // nothing is kept, or somebody else wrote there
  };

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    keep: {
      link: (search) => window.location.origin + window.location.pathname + (search || ""),
      remember: (search) => {
        const kept = visited(), now = search || "";
        if (kept[kept.length - 1] !== now) { kept.push(now); }
        const last = kept.slice(-MOST);
        window.sessionStorage.setItem(PLACE, JSON.stringify(last));
        const { of } = window.microtome, { no_update } = window.dash_clientside;
        return of(now, "panel").pop() === "keep" ? last : no_update;
      },
    },
  });
})();

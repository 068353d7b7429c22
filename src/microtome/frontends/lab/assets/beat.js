// Beats: what has a page look again at what is on its way. Each goes on once all that heard it is
// answered, or lost. A clock that went on by itself would overtake its answers where a server takes
// longer than a beat, and a page takes no answer but that to its last question; one that an answer
// had to set going would stand still for good where that never came, or came too late to be taken.
(function () {
  const OFTEN = 100;  // milliseconds between two looks at the beats
  const LOST = 60000;  // and after which an answer is not waited for any more
  const HOME = "_dash-update-component";

  const on_way = new Map();  // a question to the server → the beats that it heard, and since when

  const beats_of = (body) => {
    try {
      return JSON.parse(body).inputs.flat().filter((one) => one.property === "n_intervals")
        .map((one) => one.id);
    } catch (error) { return []; }  // none of a callback's
  };

  const ask = window.fetch;
  window.fetch = function (place, how) {
    const answer = ask.apply(this, arguments), heard = beats_of(how && how.body);
    if (String(place).includes(HOME) && heard.length) {
      on_way.set(answer, { heard, since: performance.now() });
      const over = () => on_way.delete(answer);
      answer.then(over, over);
    }
    return answer;
  };

  const is_waited_for = (beat) => [...on_way.values()].some(({ heard, since }) =>
    heard.includes(beat) && performance.now() - since < LOST);

  const look = () => {
    const page = document.getElementById("page");
    if (!page) { return; }  // not there yet
    JSON.parse(page.dataset.keys).beats.forEach((beat) => {
      const found = window.dash_component_api.getLayout(beat);
      if (!found) { return; }
      const { disabled, max_intervals: until, n_intervals: now = 0 } = found.props;
      if (!disabled && now >= until && !is_waited_for(beat)) {
        window.dash_clientside.set_props(beat, { max_intervals: now + 1 });
      }
    });
  };
  window.setInterval(look, OFTEN);

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    beat: {
      // Whether nothing of the page's is on its way: neither its model nor its map.
      rests: (ready, grown) => Boolean(ready) && ready.state !== "loading" &&
        !["waiting", "running"].includes((grown || {}).state),
    },
  });
})();

// Beats: what has a page look again at what is on its way. Each goes on once all that heard it is
// answered, or lost. A clock that went on by itself would overtake its answers where a server takes
// longer than a beat, and a page takes no answer but that to its last question; one that an answer
// had to set going would stand still for good where that never came, or came too late to be taken.
(function () {
  const OFTEN = 100;  // milliseconds between two looks at the beats
  const QUIET = 2;  // looks in succession that see nobody wait: one answer may let another be asked
  const AGAIN = 10;  // and before what was lost is asked again of who rests
  const LOST = 60000;  // milliseconds after which an answer is not waited for any more
  const OWN = "pulse";  // the page's own beat: all that hears it goes on without a click
  const HOME = "_dash-update-component";

  const on_way = new Map();  // a question to the server → the beats that it heard, and since when
  const quiet = {};  // beat → how many looks have seen that it might go on
  let is_lost = false;  // whether what heard the page's own beat was, since that went on

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
      const over = (is_answered) => {
        on_way.delete(answer);
        is_lost ||= !is_answered && heard.includes(OWN);
      };
      // It is there with its last byte: where a line is slow, long after its first.
      answer.then((got) => got.clone().arrayBuffer().then(() => over(got.ok)))
        .catch(() => over(false));
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
      const is_due = disabled ? beat === OWN && is_lost : now >= until;
      quiet[beat] = is_due && !is_waited_for(beat) ? (quiet[beat] ?? 0) + 1 : 0;
      if (quiet[beat] < (disabled ? AGAIN : QUIET)) { return; }
      quiet[beat] = 0;
      is_lost &&= beat !== OWN;
      const next = disabled ? "n_intervals" : "max_intervals";
      window.dash_clientside.set_props(beat, { [next]: now + 1 });
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

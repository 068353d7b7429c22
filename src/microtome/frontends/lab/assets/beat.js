// Beats: what has a page look again at what is on its way. Each goes on once all who hear it have
// asked, and are answered. A clock that went on by itself would overtake its answers where a server
// takes longer than a beat, and a page takes no answer but that to its last question; one that an
// answer had to set going would stand still for good where that is lost, or comes too late.
(function () {
  const OFTEN = 100;  // milliseconds between two looks at the beats
  const IDLE = 5000;  // and after which those who should have asked are not waited for any more
  const LOST = 60000;  // nor is an answer
  const HOME = "_dash-update-component";

  const last = {};  // beat → who hears it → their last question: which beat it is of, and is it over?
  const seen = {};  // beat → its number, and since when nothing has happened

  const heard = (body) => {
    try {
      const { inputs, output } = JSON.parse(body);
      const some = inputs.flat().filter((one) => one.property === "n_intervals");
      return some.map(({ id, value = 0 }) => ({ beat: id, output, number: value }));
    } catch (error) { return []; }  // it is none of a callback's
  };

  const ask = window.fetch;
  window.fetch = function (place, how) {
    const answer = ask.apply(this, arguments);
    (String(place).includes(HOME) ? heard(how && how.body) : []).forEach((of) => {
      const question = { number: of.number, since: performance.now(), over: false };
      (last[of.beat] ??= {})[of.output] = question;
      const over = () => {
        question.over = true;
        seen[of.beat] = { ...seen[of.beat], since: performance.now() };
      };
      answer.then(over, over);
    });
    return answer;
  };

  const goes_on = (beat, number) => {
    const now = performance.now(), questions = Object.values(last[beat] ?? {});
    if (seen[beat]?.number !== number) { seen[beat] = { number, since: now }; }
    if (questions.some((one) => !one.over && now - one.since < LOST)) { return false; }
    const all = questions.length > 0 && questions.every((one) => one.number === number);
    return all || now - seen[beat].since > IDLE;
  };

  const look = () => {
    const page = document.getElementById("page");
    if (!page) { return; }  // not there yet
    JSON.parse(page.dataset.keys).beats.forEach((beat) => {
      const found = window.dash_component_api.getLayout(beat);
      if (!found) { return; }
      const { disabled, max_intervals: until, n_intervals: now = 0 } = found.props;
      if (!disabled && now >= until && goes_on(beat, now)) {
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

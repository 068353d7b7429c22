// Beats: what has a page look again at what is on its way. Each goes on once all who hear it have
// asked, and are answered. A clock that went on by itself would overtake its answers where a server
// takes longer than a beat, and a page takes no answer but that to its last question; one that an
// answer had to set going would stand still for good where that is lost, or comes too late.
// What is asked by a click, by what is typed or by a panel, and is lost, is sent again as it was, since
// only it knows what was clicked; and as long as the server cannot be heard, the page says so.
(function () {
  const OFTEN = 50;  // milliseconds between two looks at the beats
  const SOON = 500;  // and after which a beat begins that nobody has heard
  const AGAIN = 1000;  // what was lost is asked again
  const IDLE = 5000;  // those who should have asked are not waited for any more
  const LOST = 60000;  // nor is an answer
  const OWN = "pulse";  // the page's own beat: all that hears it goes on without a click
  const HOME = "_dash-update-component";

  const last = {};  // beat → who hears it → their last question
  const seen = {};  // beat → its number, and since when nothing has happened

  const newest = {};  // what is asked for → the last question that asks for it

  // What a question asks for, and which beats it hears.
  const read = (body) => {
    try {
      const { inputs, output } = JSON.parse(body);
      const some = inputs.flat().filter((one) => one.property === "n_intervals");
      return { output, beats: some.map(({ id, value }) => ({ beat: id, number: value ?? 0 })) };
    } catch (error) { return null; }  // it is none of a callback's
  };

  const ask = window.fetch;
  const pause = () => new Promise((go_on) => window.setTimeout(go_on, AGAIN));
  const say_whether_lost = (is_lost) => {
    const line = document.getElementById("shell-lost");
    if (line) { line.hidden = !is_lost; }
  };
  const send = async (place, how, is_wanted) => {
    try {
      const got = await ask.call(window, place, how);
      say_whether_lost(false);
      return got;
    } catch (error) {
      say_whether_lost(true);
      if (is_wanted()) { await pause(); }
      if (!is_wanted()) { throw error; }  // for something else is asked by now
      return send(place, how, is_wanted);
    }
  };

  // Notes who hears a beat; gives what is to be called once they are answered.
  const noted = ({ beat, number }, output) => {
    const question = { number, since: performance.now(), is_over: false, is_lost: false };
    (last[beat] ??= {})[output] = question;
    return (is_answered) => {
      question.is_over = true;
      question.is_lost = !is_answered;
      seen[beat] = { ...seen[beat], since: performance.now() };
    };
  };

  window.fetch = function (place, how) {
    const asked = String(place).includes(HOME) ? read(how && how.body) : null;
    if (!asked) { return ask.call(window, place, how); }
    const { output, beats } = asked, own = beats.length > 0 && beats.every(({ beat }) => beat === OWN);
    newest[output] = asked;
    // The page's own beat asks again by itself.
    const answer = send(place, how, () => !own && newest[output] === asked);
    beats.map((one) => noted(one, output)).forEach((over) => {
      // It is there with its last byte: where a line is slow, long after its first.
      answer.then((got) => got.clone().arrayBuffer().then(() => over(got.ok)))
        .catch(() => over(false));
    });
    return answer;
  };

  const goes_on = (beat, { disabled, interval, n_intervals: number = 0 }) => {
    const now = performance.now(), questions = Object.values(last[beat] ?? {});
    if (seen[beat]?.number !== number) { seen[beat] = { number, since: now }; }
    if (questions.some((one) => !one.is_over && now - one.since < LOST)) { return false; }
    const idle = now - seen[beat].since;
    if (disabled) { return beat === OWN && idle > AGAIN && questions.some((one) => one.is_lost); }
    const have_asked = questions.every((one) => one.number === number);
    const rested = questions.length ? interval : Math.max(interval, SOON);
    return idle > IDLE || (have_asked && idle > rested);
  };

  const look = () => {
    const page = document.getElementById("page");
    if (!page) { return; }  // not there yet
    JSON.parse(page.dataset.keys).beats.forEach((beat) => {
      const found = window.dash_component_api.getLayout(beat);
      if (!found || !goes_on(beat, found.props)) { return; }
      // At once, and not by its own clock: until that strikes, something else may be asked.
      const { n_intervals: number = 0 } = found.props;
      window.dash_clientside.set_props(beat, { n_intervals: number + 1 });
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

"""Questions drawn at random: edits of any site, edges and paths, on prompts of one token and more.

Many of them cannot be asked, of this model or of any: whoever draws one counts what is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import microtome as mt
from microtome.plan.plan import make_plan
from microtome.verbs.asking import asking

SITES = (
    "embed", "resid_pre", "q_in", "k_in", "v_in", "k_in_group", "v_in_group", "q", "k", "v",
    "k_head", "v_head", "pattern", "z", "head_out", "attn_out", "resid_mid", "mlp_in", "mlp_post",
    "mlp_out", "resid_post", "final_in",
)  # fmt: skip
WRITERS, READERS = ("z", "mlp_out", "embed", "head_out"), ("q_in", "k_in", "v_in", "mlp_in")
OF_HEADS = ("q", "z", "k_head", "v_head", "q_in", "k_in", "v_in", "head_out")
OF_KEYS = ("k", "v", "k_in_group", "v_in_group")
OUTSIDE = ("embed", "final_in")
EDITS = (
    "zero", "patch", "scale(0.5)", "scale(-1)", "noise", 'noise(how="add", std=0.3, seed=3)',
    "noise(std=0.5, relative=True)", "mean", 'mean(over="positions")', 'mean(over="prompts")',
    "add(0.2)", "replace(0.3)", "shuffle(seed=2)",
)  # fmt: skip
ON_EDGES = ("patch", "zero", "scale(0.5)", "noise", "mean", "add(0.1)")
METRICS = (
    "logit_diff", "kl", "prob", "loss", "rank", "logit", "logprob", "prob(contrast)", "top1",
    "logit_corr", "next_loss@0", "kl@0", "loss@-1", "cosine(L*.resid_post@0, -1)",
    "norm(L*.z.h*@-1)", "std(L*.mlp_out@-1)", "distance(L*.resid_post@-1)",
)  # fmt: skip
MEMORY = (None, None, "1MiB", "3MiB")
TOKENS = range(3, 300)
"""Ids of tokens that are drawn."""


@dataclass(frozen=True)
class Question:
    """What a sweep is asked; it prints as what one would write."""

    prompts: Sequence[mt.Prompt]
    edits: Sequence[str]
    metrics: Sequence[str]
    more: dict[str, Any] = field(default_factory=dict)

    def cells(self, model: mt.Model) -> int:
        """How many there are."""
        more = {name: self.more[name] for name in ("over", "reference") if name in self.more}
        asked = asking(model, self.prompts, self.edits, metrics=self.metrics, **more)
        return len(make_plan(asked).cells.points)

    def swept(self, model: mt.Model, **how: Any) -> mt.Effects:
        """What is found; no progress is shown."""
        asked = {"metrics": self.metrics, "progress": False, **self.more, **how}
        return mt.sweep(model, self.prompts, self.edits, **asked)


def question(draw: Random, model: mt.Model, most: int = 3) -> Question:
    """Some edits of some prompts."""
    given = prompts(draw)
    n = min(len(one.ids or ()) for one in given)
    sites = draw.sample(SITES, 3) if draw.random() < 0.5 else SITES
    edits = [edit(draw, model, n, sites) for _ in range(draw.randint(1, most))]
    if len(edits) == 1 and draw.random() < 0.1:
        edits.append(f"{edits[0]} as other")
    if draw.random() < 0.15:
        given = [of_several(draw, model, one) for one in given]
    more: dict[str, Any] = {"memory": draw.choice(MEMORY)}
    if draw.random() < 0.15:
        how, name = draw.choice([("scale(1)", "factor"), ("noise", "std"), ("noise", "seed")])
        edits[0] = edit(draw, model, n, sites, how)
        more["over"] = {name: draw.sample([1, 2] if name == "seed" else [0.1, 0.5, 1.0, 10.0], 2)}
    if any("prompts" in one for one in edits) and draw.random() < 0.7:
        more["reference"] = [mt.Prompt(ids=ids(draw, len(one.ids or ()))) for one in given]
    return Question(given, edits, draw.sample(METRICS, 2), more)


def prompts(draw: Random, most: int = 3) -> list[mt.Prompt]:
    """One or several, of one length or of several, each with a donor, target and contrast."""
    lengths = [draw.choice([1, 2, 4, 6, 8]) for _ in range(draw.randint(1, most))]
    if draw.random() < 0.5:
        lengths = [lengths[0]] * len(lengths)
    return [prompt(draw, length) for length in lengths]


def prompt(draw: Random, length: int) -> mt.Prompt:
    """A prompt whose donor is the same up to some token."""
    own = ids(draw, length)
    first = draw.randrange(length)
    other = [
        token if n < first or draw.random() < 0.4 else draw.choice(TOKENS)
        for n, token in enumerate(own)
    ]
    target, contrast = draw.sample(TOKENS, 2)
    kind = draw.choice(["one", "two"])
    return mt.Prompt(
        ids=own, donor_ids=other, target=target, contrast=contrast, meta={"kind": kind}
    )


def of_several(draw: Random, model: mt.Model, one: mt.Prompt) -> mt.Prompt:
    """The same where two tokens are expected, one after another or any of them."""
    first, second = draw.sample(TOKENS, 2)
    kept = {"ids": one.ids, "donor_ids": one.donor_ids, "meta": one.meta}
    if draw.random() < 0.5:
        return mt.Prompt(**kept, targets=[first, second], contrasts=[one.contrast])
    both = [model.tokenizer.decode(own) for own in ([first, second], [second])]
    return mt.Prompt(**kept, target=both[0], contrast=both[1])


def ids(draw: Random, length: int) -> list[int]:
    """Tokens."""
    return [draw.choice(TOKENS) for _ in range(length)]


def edit(draw: Random, model: mt.Model, n: int, sites: Sequence[str] = SITES, how: str = "") -> str:
    """An edit of a place, an edge or a path, of prompts that have so many tokens at least."""
    if draw.random() < 0.25:
        writer, _, places = address(draw, model, n, draw.choice(WRITERS)).partition("@")
        writer += f"@{places}" if places and draw.random() < 0.3 else ""
        reader = address(draw, model, n, draw.choice([*READERS, "final_in"]))
        arrow = draw.choice(["->", "->", "=>"])
        return f"{how or draw.choice(ON_EDGES)} {writer} {arrow} {reader}"
    site = draw.choice(sites)
    knocked = site == "pattern" and draw.random() < 0.7
    how = how or ("knockout" if knocked else draw.choice(EDITS))
    return f"{how} {address(draw, model, n, site)}"


def address(draw: Random, model: mt.Model, n: int, site: str) -> str:
    """Some of a site's values."""
    dims = model.anatomy.dims
    places = ["", "@*", "@-1"] + (["@0", f"@{draw.randrange(n)}", "@:", "@1:"] if n > 1 else [])
    if site in OUTSIDE:
        return site + draw.choice(places)
    layers = ["*", "*", "0", str(dims.n_layers - 1), ":", "{0,1}", some(draw, dims.n_layers)]
    base = f"L{draw.choice(layers)}.{site}"
    if site == "pattern":
        pair = draw.choice(["@-1,*", "@-1,0", "@*,0", "@*,*"])
        return f"{base}.h{some(draw, dims.n_heads)}{pair}"
    if site in OF_HEADS:
        base += f".h{some(draw, dims.n_heads)}"
    elif site in OF_KEYS:
        base += f".h{some(draw, dims.n_kv_heads)}"
    elif site == "mlp_post":
        base += draw.choice([".n0", ".n::2", ".n{1,3}", ".n*"])
    return base + draw.choice(places)


def some(draw: Random, n: int) -> str:
    """Each of n, one, two together, or all together."""
    pair = "{" + ",".join(map(str, sorted(draw.sample(range(n), 2)))) + "}" if n > 1 else ":"
    return draw.choices(["*", str(draw.randrange(n)), pair, ":"], [12, 3, 3, 2])[0]

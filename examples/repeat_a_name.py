"""Which heads of a small Llama repeat a name, and what do they look at?

python examples/repeat_a_name.py MODEL_DIRECTORY OUT_DIRECTORY

Made for stories260K (karpathy/tinyllamas), whose own stories begin like these prompts. Writes
``heads.png`` and ``keys.png``, and prints what they show.
"""

from __future__ import annotations

import sys

import microtome as mt
from microtome.figures import save

LILY = "Once upon a time, there was a little girl named Lily. One day,"
TIM = "Once upon a time, there was a little boy named Tim. One day,"
PROMPTS = [
    mt.Prompt(LILY, donor=TIM, target=" Lily", contrast=" Tim", roles={"name": ("Lily", "Tim")}),
    mt.Prompt(TIM, donor=LILY, target=" Tim", contrast=" Lily", roles={"name": ("Tim", "Lily")}),
]


def heads(model: mt.Model) -> mt.Effects:
    """Each head's output at the last token, from the story about the other child."""
    return mt.sweep(model, PROMPTS, mt.patch("L*.z.h*@-1"), metrics=["logit_diff"])


def keys(model: mt.Model, layer: int) -> mt.Effects:
    """What the last token attends to in a layer, knocked out key by key, in the first story."""
    edit = mt.knockout(f"L{layer}.pattern.h*@-1,*")
    return mt.sweep(model, PROMPTS[0], edit, metrics=["logit_diff"])


def shared(model: mt.Model, layer: int) -> mt.Effects:
    """The key of the name, zeroed for each query head by itself."""
    return mt.sweep(model, PROMPTS, mt.zero(f"L{layer}.k_head.h*@name"), metrics=["logit_diff"])


def main() -> None:
    """Compute, draw and print."""
    directory, out = sys.argv[1:]
    model = mt.load(directory)
    found = heads(model)
    mean = found.delta("logit_diff").mean("prompt")
    # In the figure too, effects are averaged over the two stories.
    save(found.figure("logit_diff"), out, "heads")
    strongest = mean.stack(cell=("layer", "head")).sortby(lambda x: abs(x), ascending=False)[:2]
    for cell in strongest.cell.values:
        layer, head = map(int, cell)
        print(f"L{layer}.z.h{head}@-1: {float(mean.sel(layer=layer, head=head)):+.2f}")
    first = min(int(layer) for layer, _ in strongest.cell.values)
    looked = keys(model, first)
    save(looked.figure("logit_diff"), out, "keys")
    print(looked.top(3, "logit_diff")[["head", "k_pos", "k_pos_token", "effect"]])
    print(shared(model, first).delta("logit_diff").mean("prompt").round(2).values)


if __name__ == "__main__":
    main()

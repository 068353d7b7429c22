"""Steer a small language model between two moods: ``python examples/steering.py [MODEL] [DIR]``.

It makes a vector from ten pairs of texts, writes on under it, measures what doses of it gain and
cost in every layer, and keeps it as two files. What it prints stands in docs/steering.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import microtome as mt
from microtome import figures

PROMPT = "The film that we saw last night was"
TOPICS = (
    "the weather", "this film", "my job", "the food", "this city", "the new phone", "our teacher",
    "the concert", "that book", "my neighbours",
)  # fmt: skip
LAYER, STEPS = 12, 24
JUDGED = ("The concert", "My holiday", "The soup", "His speech")
NEUTRAL = (
    "The committee will meet on Tuesday to discuss the budget for the coming year.",
    "Water boils at one hundred degrees, and freezes at zero.",
    "The train to the coast leaves from the second platform at noon.",
)
FACTORS = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)


def happy_minus_sad(model: mt.Model) -> mt.SteeringVector:
    """The mean difference of the states at the last word, in every layer."""
    happy = [f"I think {topic} is wonderful. I am so happy" for topic in TOPICS]
    sad = [f"I think {topic} is terrible. I am so sad" for topic in TOPICS]
    return mt.steering.contrast(model, happy, sad)


def written(model: mt.Model, vector: mt.SteeringVector, factor: float) -> mt.Generation:
    """What the model writes with so much of the vector at every token."""
    edits = [vector.add(factor, layers=LAYER)] if factor else []
    return model.generate(PROMPT, edits, STEPS)


def doses(model: mt.Model, vector: mt.SteeringVector) -> mt.Dose:
    """What the vector does for “wonderful” against “terrible”, in every layer, and its cost."""
    prompts = [
        mt.Prompt(f"{subject} was absolutely", target=" wonderful", contrast=" terrible")
        for subject in JUDGED
    ]
    return mt.dose(model, vector.add(layers="*"), prompts, NEUTRAL, over={"factor": FACTORS})


def main() -> None:
    """Write the texts, the vector's files and the maps of its doses."""
    model = mt.load(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "out/steering")
    out.mkdir(parents=True, exist_ok=True)
    vector = happy_minus_sad(model)
    for factor in (0.5, 0.0, -0.5):
        [one] = written(model, vector, factor)
        print(f"{factor:+.1f}  KL {one.kl.mean():.2f}  {one.text.strip()}")
        if factor > 0:
            print(one.table()[["token", "logprob", "clean_token", "kl"]].head(6).to_string())
    found = doses(model, vector)
    print(found.best(kl=0.3).round(2).to_string())
    for of in ("logit_diff", "kl", "perplexity"):
        figures.write_png(found.figure(of), out / f"dose-{of}.png")
    figures.write_png(found.trade(), out / "dose-trade.png")
    vector.save(out / "happy.safetensors")
    vector.only(range(1, len(vector.layers))).save(out / "happy.gguf")


if __name__ == "__main__":
    main()

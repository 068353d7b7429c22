# %% [markdown]
# # Steering, and what it costs
#
# A vector added to the hidden states moves what a model says. It moves everything else as well.
# This notebook makes a vector out of a few texts, has the model write under it, and measures each
# dose twice: what it does for the behaviour, and what it does to texts that have nothing to do
# with it.

# %%
import microtome as mt

model = mt.load("nano")
n_layers = model.anatomy.dims.n_layers

# %% [markdown]
# ## 1. A vector from texts
#
# The mean difference of the states at the last token, in every layer: texts after which it says “
# France”, minus texts after which it says “ Germany”.

# %%
france = ["Paris is the capital of", "Paris is a city in"]
germany = ["Berlin is the capital of", "Berlin is a city in"]
vector = mt.steering.contrast(model, france, germany)
print(vector)
for layer, norm in vector.norms.items():
    print(f"layer {layer}: {norm:.1f} long")
assert len(vector.layers) == n_layers

# %% [markdown]
# ## 2. Write under it
#
# **Guess first**: what will the model say of Rome with the vector for France added, once, twice,
# and four times?

# %%
middle = n_layers // 2
asked = "Rome is the capital of"
written = {
    factor: model.generate(asked, [vector.add(factor, layers=middle)] if factor else [], steps=8)[0]
    for factor in (0, 1, 2, 4)
}
for factor, one in written.items():
    print(f"{factor} × {asked}|{one.text}   (mean KL {one.kl.mean():.2f})")
assert written[0].kl.max() == 0  # without edits nothing moves
assert written[4].kl.mean() > written[1].kl.mean()

# %% [markdown]
# Beside each token stands what it would have been without the edit, after the same text up to
# there:

# %%
written[2].table()

# %% [markdown]
# ## 3. Dose
#
# Every layer by every factor, each an exact cell. The *behaviour* is the logit of “ France” minus
# that of the true country. The *damage* is measured at every token of other texts: KL(clean ‖
# edited), and the perplexity.

# %%
prompts = [
    mt.Prompt("Rome is the capital of", target=" France", contrast=" Italy"),
    mt.Prompt("Madrid is the capital of", target=" France", contrast=" Spain"),
]
neutral = [
    "When Sam and Sally went to the park, Sam gave a gift to Sally.",
    "The battle lasted from the year 1352 to the year 1369.",
]
dose = mt.dose(
    model,
    vector.add(layers="*"),
    prompts,
    neutral,
    over={"factor": [-1.0, -0.5, 0.5, 1.0, 2.0, 4.0]},
)
dose

# %%
dose.figure("logit_diff")

# %%
dose.figure("kl")

# %%
dose.trade()

# %% [markdown]
# ## 4. How much may it cost?
#
# There is no best dose, only a best one at a price. The price is yours: here 0.25 nats a token.

# %%
price = 0.25
best = dose.best(kl=price, top=5)
best

# %%
row = best.iloc[0]
everything = dose.table()
most = everything.loc[everything["logit_diff_effect"].abs().idxmax()]
clean = float(dose.data["clean_perplexity"])
print(
    f"At {price} nats or less: layer {row['layer']:.0f}, factor {row['factor']:g}, "
    f"{row['logit_diff_effect']:+.2f} logits for {row['kl']:.2f} nats."
)
print(
    f"The largest effect of all: layer {most['layer']:.0f}, factor {most['factor']:g}, "
    f"{most['logit_diff_effect']:+.2f} logits for {most['kl']:.2f} nats; perplexity "
    f"{most['perplexity']:.0f} instead of {clean:.0f}."
)
assert row["kl"] <= price
assert abs(most["logit_diff_effect"]) >= abs(row["logit_diff_effect"])

# %% [markdown]
# ## 5. Does it do what its name says?
#
# “The vector for France” is *our* name for it. Does it raise “ France” itself, or any country? A
# vector has to be held against the answers that it was not made for.

# %%
countries = (" France", " Germany", " Italy", " Spain", " Poland")
edit = vector.add(float(row["factor"]), layers=int(row["layer"]))
run = model.run(asked, edits=edit)
ids = {}
for name in countries:
    [encoded] = model.encode(mt.Prompt(asked, target=name))
    ids[name] = encoded.target
change = (run.logits - run.clean_logits)[0, -1]
moved = {name: float(change[token]) for name, token in ids.items()}
for name, value in sorted(moved.items(), key=lambda pair: -pair[1]):
    print(f"{name}: {value:+.2f} logits")
print(f"raised most of these: “{max(moved, key=moved.get)}”")

# %% [markdown]
# **To think about.** The vector was made of two pairs of texts. Make it of one pair, or of six,
# and look at the same five countries again. What would you want to see before you called it a
# direction *for France*?
#
# On a real model: [steering SmolLM2 between two moods](../../docs/steering.md#on-a-real-model).

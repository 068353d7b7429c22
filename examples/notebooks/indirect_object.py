# %% [markdown]
# # Who gets the gift? Indirect objects, end to end
#
# “When Mary and John went to the store, John gave a drink to” goes on with “ Mary”. This notebook
# finds the parts of a model that know it, over many sentences, with intervals: where the answer
# is, which heads carry it, what they look at, and what they write. It follows Wang et al.,
# *Interpretability in the wild* (2022), who did it for GPT-2 Small.
#
# Runs on `nano` in a minute. With `"smollm2"` in its place the same cells ask a model of 135
# million parameters, for some minutes more.

# %%
import numpy as np

import microtome as mt

model = mt.load("nano")

# %% [markdown]
# ## 1. Many sentences
#
# A task makes prompts in the words of the model's own tokenizer. In each donor the other of the
# two gives, so that its answer is the contrast. `IO` is the one who gets the gift, `S1` and `S2`
# are the giver, named first and again.

# %%
prompts = mt.tasks.ioi(8, seed=0, tokenizer=model.tokenizer)
prompts

# %% [markdown]
# ## 2. Where is the answer?
#
# Take one sentence, and replace the hidden state after one layer, at one token, by that of the
# donor. Where that turns the answer round, the state there holds who gives.
#
# **Guess first**: at which token is it in the first layers? And in the last?

# %%
states = mt.sweep(model, prompts[0], "patch L*.resid_post@*", metrics="logit_diff")
states.figure()

# %%
turned = states.delta("logit_diff").isel(prompt=0)
pieces = states.data["token"].isel(prompt=0).values
places = abs(turned).argmax("pos").values.tolist()
for layer, place in zip(turned["layer"].values, places, strict=True):
    print(f"layer {layer}: most at token {place}, “{pieces[place]}”")
[encoded] = model.encode(prompts[0])
role = encoded.tokens.role
both = zip(encoded.tokens.ids, encoded.donor.ids, strict=True)
assert [n for n, (own, donor) in enumerate(both) if own != donor] == [role("S2")]
assert places[0] == role("S2")
assert places[-1] == role("end")  # the prediction is read there

# %% [markdown]
# The two sentences differ in the second name alone, so all begins there; and the prediction is
# made at the last token, so all ends there. In between somebody has carried it over: attention
# heads, since nothing else moves between tokens.

# %% [markdown]
# ## 3. Which heads carry it?
#
# At the last token each head's output is replaced by the donor's, in all sentences. `top` gives
# means with 95 % intervals and p values that are corrected for having looked at all heads.

# %%
heads = mt.sweep(model, prompts, "patch L*.z.h*@end", metrics="logit_diff")
heads.figure()

# %%
table = heads.top(6)[["layer", "head", "effect", "low", "high", "p", "n"]]
table

# %%
test = heads.over_prompts()
print(test)
layer, head = (int(table.iloc[0][name]) for name in ("layer", "head"))
print(
    f"The strongest is L{layer}.h{head}: {table.iloc[0]['effect']:.2f} logits "
    f"({table.iloc[0]['low']:.2f} … {table.iloc[0]['high']:.2f}), over {len(prompts)} sentences."
)
assert table.iloc[0]["low"] * table.iloc[0]["high"] > 0  # its interval does not hold 0

# %% [markdown]
# ## 4. What does it look at?
#
# A head that carries a name from where it stands has to look there.

# %%
seen = mt.attention(model, prompts[0], f"L{layer}.pattern")
seen.figure(layer, head)

# %%
run = model.run(prompts, keep=f"L{layer}.pattern")
weights = run[f"L{layer}.pattern"].sel(head=head).values
looks = {
    name: np.mean(
        [
            weights[n, one.tokens.role("end"), one.tokens.role(name)]
            for n, one in enumerate(run.encoded)
        ]
    )
    for name in ("IO", "S1", "S2")
}
for name, weight in looks.items():
    print(f"from the last token to {name}: {weight:.2f}")
most = max(looks, key=looks.get)
assert sum(looks.values()) <= 1 + 1e-5

# %% [markdown]
# Is that look what it does its work with? Take the look away, and see: `knockout` removes one
# attention weight, and the others of the row grow so that they sum to 1 again.

# %%
cut = mt.sweep(model, prompts, f"knockout L{layer}.pattern.h*@end,{most}", metrics="logit_diff")
lost = mt.stats.mean(cut.delta("logit_diff").sel(head=head))
print(f"without its look at {most}, the logit difference changes by {lost}")

# %% [markdown]
# ## 5. What does it write?
#
# Direct logit attribution: with the last norm held as it is, the answer's logit is a sum of what
# each part has written. All shares add up to the model's own number.

# %%
shares = mt.attribute_logits(model, prompts)
shares.figure()

# %%
rest = abs(shares.total - shares.data["logit"]).max()
own = mt.stats.mean(shares.data["head_out"].sel(layer=layer, head=head))
print(f"all shares together are the model's own difference, to {float(rest):.1e} logits")
print(f"L{layer}.h{head} writes {own} of {float(shares.data['logit'].mean()):.2f}")
assert float(rest) < 1e-3

# %% [markdown]
# ## 6. What may it be called?
#
# In GPT-2 Small, *name movers* look at `IO` and write for it, *negative name movers* look there
# and write against it, *S-inhibition heads* look at `S2` and write little themselves. Which of
# these fits? The rule is in the cell, so that it can be argued with.

# %%
writes = float(own.value)
if most == "IO" and own.low > 0:
    kind = "a name mover: it looks at the answer most, and writes for it"
elif most == "IO" and own.high < 0:
    kind = "a negative name mover: it looks at the answer most, and writes against it"
elif most == "S2" and abs(writes) < abs(float(table.iloc[0]["effect"])) / 4:
    kind = "like an S-inhibition head: it looks at the giver, and writes little by itself"
else:
    kind = f"none of these by the rules above: it looks at {most} most, and writes {writes:+.2f}"
print(f"L{layer}.h{head} is {kind}.")

# %% [markdown]
# **To think about.** We chose the strongest head by the same sentences that we then looked at.
# Draw others (`seed=1`) for sections 4 to 6. Does anything change?
#
# On a real model: [name movers in SmolLM2](../../docs/name-movers.md). Next: `head_to_circuit`,
# where we ask what feeds the head.

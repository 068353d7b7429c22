# %% [markdown]
# # What does a layer say, and who wrote it?
#
# Three ways to *read* a model without changing it: the logit lens (what would it say if it ended
# here?), direct logit attribution (who wrote how much of the answer?), and attention (where does a
# head look?). And then the question that none of them answers: what happens without that part?

# %%
import microtome as mt

model = mt.load("nano")
prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")

# %% [markdown]
# ## 1. The lens
#
# Each state goes through the last norm and the unembedding, as if the model ended there.
#
# **Guess first**: from which layer on will the last token's state say what the model says?

# %%
seen = mt.lens(model, prompt)
seen.figure()

# %%
last = seen.table(pos=-1)
columns = [name for name in ("layer", "top_token", "top_prob", "prob", "kl") if name in last]
last[columns]

# %%
answer = model.run(prompt).top(1)["token"][0]
says = last["top_token"] == answer
first = next(n for n in range(len(last)) if says[n:].all())
print(f"The model says “{answer}”, and the lens says so from the state after layer {first} on.")
assert says.iloc[-1]  # the last state is the model's own output
assert abs(last["kl"].iloc[-1]) < 1e-4

# %% [markdown]
# In early layers the lens may say nonsense: it takes each state for one of the last layer's, which
# it is not. A *tuned* lens learns a translation for each layer (`mt.train_translators`).

# %% [markdown]
# ## 2. Attribution
#
# With the last norm held as it was, the logit is a sum: each head, each MLP and each bias has
# written a share.

# %%
shares = mt.attribute_logits(model, prompt)
shares.figure()

# %%
shares.table(6)

# %%
apart = float(abs(shares.total - shares.data["logit"])[0])
print(f"The shares sum to {float(shares.total[0]):.4f}; the model's own is")
print(f"{float(shares.data['logit'][0]):.4f}: apart by {apart:.1e}.")
assert apart < 1e-3

# %% [markdown]
# ## 3. Attention

# %%
looked = mt.attention(model, prompt)
looked.grid()

# %%
weights = looked.data["pattern"].isel(prompt=0, q_pos=-1)
rows = weights.sum("k_pos")
most = weights.isel(k_pos=0).argmax(...)
layer, head = (int(most[name]) for name in ("layer", "head"))
print(
    f"Of all heads, L{layer}.h{head} looks from the last token most at the first, "
    f"with weight {float(weights[layer, head, 0]):.2f}."
)
assert float(abs(rows - 1).max()) < 1e-5  # the weights of a query sum to 1

# %%
looked.figure(layer, head)

# %% [markdown]
# ## 4. Reading is not doing
#
# A share is what a part *writes*. What happens *without* it is another question: others read what
# it wrote, and the norm changes. An experiment answers that one.
#
# **Guess first**: will the parts that write most be those that are missed most?

# %%
removed = mt.sweep(model, prompt, "zero L*.z.h*@-1", metrics="logit_diff")
missed = -removed.delta("logit_diff").isel(prompt=0)
wrote = shares.data["head_out"].isel(prompt=0)
apart = abs(missed - wrote)
where = apart.argmax(...)
layer, head = (int(where[name]) for name in ("layer", "head"))
print(
    f"Furthest apart: L{layer}.h{head} writes {float(wrote[layer, head]):+.2f}, and without it "
    f"the answer loses {float(missed[layer, head]):+.2f}."
)
final = apart.isel(layer=-1)
print(f"in the last layer they are apart by {float(final.mean()):.3f} on average,")
print(f"in the first by {float(apart.isel(layer=0).mean()):.3f}")
mt.stats.correlation(wrote.values.ravel(), missed.values.ravel())

# %% [markdown]
# **To think about.** In which layers do you expect writing and being missed to be nearly the same,
# and why? Compare the two numbers above with your answer.
#
# More: [reading](../../docs/reading.md).

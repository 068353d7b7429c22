# %% [markdown]
# # Exercises: published experiments, predicted first
#
# Nine published experiments, each in three steps. **Predict**: write down what you expect, before
# anything runs; a guess that cannot be wrong teaches nothing. **Measure**: a small experiment by
# yourself. **Judge**: the claims of the study, each by a rule that was fixed beforehand, on the
# model at hand.
#
# The claims were published about other models (GPT-2, BERT). That one does not hold on `nano` is
# no error: it says that the finding did not generalise to this model. The questions are the same
# for any model: `"smollm2"` in the place of `"nano"` asks a real one, and takes longer. For the
# class: let everybody fill in the guesses, and compare before you run the next cell.

# %%
import numpy as np
from IPython.display import HTML

import microtome as mt
from microtome.notebook import html_table

LANG = "en"
WORDS = ("name", "claim", "rule", "your guess", "measured", "verdict")
model = mt.load("nano")
done = []


def look(name):
    """What a study asks, and its claims with their rules; nothing is run."""
    study = mt.studies.find(name)
    texts = study.texts(LANG)
    print(texts("question"))
    rows = [
        (one.name, texts(f"claims.{one.name}.text"), texts(f"claims.{one.name}.rule"))
        for one in study.claims
    ]
    return HTML(html_table(WORDS[:3], rows))


def judge(name, guess):
    """The claims as measured, beside a guess for each: True, it holds; False, it does not."""
    result = mt.studies.run(name, model=model, lang=LANG)
    found = result.claims()
    assert set(guess) == set(found.index)
    holds = found["holds"]
    judged = [one for one in guess if holds[one] is not None]
    right = sum(guess[one] == holds[one] for one in judged)
    print(f"{right} of your {len(judged)} guesses that could be judged are right.")
    for caveat in result.document.caveats:
        print(f"Note: {caveat}")
    done.append(name)
    rows = [(one.claim, guess[index], one.measured, one.verdict) for index, one in found.iterrows()]
    return HTML(html_table((WORDS[1], *WORDS[3:]), rows))


# %% [markdown]
# ## 1. Turning a layer's volume down
#
# Multiply everything that a layer says by 0.6. **In which layer does that raise the loss of the
# right word most?**

# %%
look("hidden-scaling")

# %% [markdown]
# **Your guesses**: `True` or `False` for each claim, and a number for the question above. The
# values here are placeholders; change them.

# %%
my_layer = 0
guess = {"shift": True, "early": True, "most": True, "growth": True, "temperature": True}

# %%
prompt = mt.Prompt("I have no special talents. I am only passionately", target=" curious")
scaled = mt.sweep(model, prompt, "scale(0.6) L*.resid_post", metrics="loss")
loss = scaled.delta("loss").isel(prompt=0)
layer = int(loss.argmax("layer"))
print(f"Most in layer {layer}: {float(loss[layer]):+.3f} nats. Your guess: {my_layer}.")
print(f"In the last layer: {float(loss[-1]):+.1e}, since the norm behind it undoes any scaling.")
assert abs(float(loss[-1])) < 1e-2
scaled.figure()

# %%
judge("hidden-scaling", guess)

# %% [markdown]
# ## 2. Writing activations over
#
# Ten times too weak, or ten times too loud: **which of the two, done to a layer's hidden state,
# costs more of the right word's probability, averaged over the layers: 0.1 or 10?**

# %%
look("replace-activations")

# %% [markdown]
# **Your guesses**: `True` or `False` for each claim, and a number for the question above. The
# values here are placeholders; change them.

# %%
my_factor = 10.0
guess = {"growth": True, "collapse": True, "compress": True}

# %%
prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
strengths = {"factor": [0.1, 10.0]}
scaled = mt.sweep(model, prompt, mt.scale("L*.resid_post", 1.0), metrics="prob", over=strengths)
cost = -scaled.delta("prob").isel(prompt=0).mean("layer")
worse = float(cost["factor"][cost.argmax("factor")])
for factor in strengths["factor"]:
    print(f"× {factor:g}: the probability falls by {float(cost.sel(factor=factor)):.3f} on average")
print(f"Worse: {worse:g}. Your guess: {my_factor:g}.")
scaled.figure()

# %%
judge("replace-activations", guess)

# %% [markdown]
# ## 3. How to silence a head
#
# Zeros in the place of what a head says, or its mean? **How strongly do the two maps correlate,
# from −1 to 1?**

# %%
look("ablation-methods")

# %% [markdown]
# **Your guesses**: `True` or `False` for each claim, and a number for the question above. The
# values here are placeholders; change them.

# %%
my_correlation = 0.5
guess = {"coincide": True, "unspaced": True, "tighter": True}

# %%
prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
maps = [
    mt.sweep(model, prompt, f"{how} L*.z.h*", metrics="logprob").delta("logprob").values.ravel()
    for how in ("zero", "mean")
]
r = float(np.corrcoef(*maps)[0, 1])
assert -1 <= r <= 1
print(f"r = {r:.3f} over {len(maps[0])} heads. Your guess: {my_correlation:g}.")

# %%
judge("ablation-methods", guess)

# %% [markdown]
# ## 4. Does one head hold the fact?
#
# Silence each head. **Without how many of them is the model's first choice another word?**

# %%
look("head-ablation")

# %% [markdown]
# **Your guesses**: `True` or `False` for each claim, and a number for the question above. The
# values here are placeholders; change them.

# %%
my_count = 3
guess = {"scattered": True, "contrast": True, "top1": True, "means": True, "agree": True}

# %%
prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
silenced = mt.sweep(model, prompt, "zero L*.z.h*", metrics=["prob", "top1"])
words = silenced.data["top1_token"].values.ravel()
others = [word for word in words if word != silenced.data["clean_top1_token"].item()]
assert len(others) < len(words)
print(f"{len(others)} of {len(words)} heads. Your guess: {my_count}.")
print(f"What it says instead: {sorted(set(others))}")
silenced.figure("prob")

# %%
judge("head-ablation", guess)

# %% [markdown]
# ## 5. All heads of a layer, or its state?
#
# Replace the hidden state of the last token by that of the text in which the other one gives.
# **From which layer on does the answer turn round?**

# %%
look("ioi-levels")

# %% [markdown]
# **Your guesses**: `True` or `False` for each claim, and a number for the question above. The
# values here are placeholders; change them.

# %%
my_layer = 3
guess = {"flips": True, "never": True}

# %%
gift = mt.Prompt(
    "When Sam and Sally went to the park, Sam gave a gift to",
    donor="When Sam and Sally went to the park, Sally gave a gift to",
    target=" Sally",
    contrast=" Sam",
)
patched = mt.sweep(model, gift, "patch L*.resid_post@-1", metrics="logit_diff")
score = patched.data["logit_diff"].isel(prompt=0).values
turned = [n for n in range(len(score)) if (score[n:] < 0).all()]
print(f"Turned from layer {turned[0] if turned else None} on. Your guess: {my_layer}.")
donor = model.run(mt.Prompt(gift.donor, target=gift.target, contrast=gift.contrast))
assert abs(score[-1] - donor.measure("logit_diff")["clean"].item()) < 1e-3
patched.figure()

# %%
judge("ioi-levels", guess)

# %% [markdown]
# ## 6. One head falls silent
#
# How alike are the tokens of a sentence, after each layer? **In which layer are they most alike
# (mean cosine of all pairs)?**

# %%
look("cosine-ripple")

# %% [markdown]
# **Your guesses**: `True` or `False` for each claim, and a number for the question above. The
# values here are placeholders; change them.

# %%
my_layer = 5
guess = {"falls": True, "rises": True, "delayed": True}

# %%
sentence = "I have no special talents. I am only passionately curious"
states = model.run(sentence, keep="L*.resid_post")["L*.resid_post"].isel(prompt=0).values
unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
pairs = np.triu_indices(states.shape[1], 1)
alike = [float((layer @ layer.T)[pairs].mean()) for layer in unit]
most = int(np.argmax(alike))
for number, value in enumerate(alike):
    print(f"layer {number}: {value:.3f}")
print(f"Most alike in layer {most}. Your guess: {my_layer}.")
assert max(map(abs, alike)) <= 1

# %%
judge("cosine-ripple", guess)

# %% [markdown]
# ## 7. One head, one token
#
# Now a single head, at the last token alone. **How many heads turn the answer round all by
# themselves?**

# %%
look("ioi-head-token")

# %% [markdown]
# **Your guesses**: `True` or `False` for each claim, and a number for the question above. The
# values here are placeholders; change them.

# %%
my_count = 1
guess = {"tiny": True, "late": True, "both_ways": True, "equation": True}

# %%
heads = mt.sweep(model, gift, "patch L*.z.h*@-1", metrics="logit_diff")
score = heads.data["logit_diff"].isel(prompt=0)
alone = np.argwhere(score.values < 0).tolist()
print(f"{len(alone)} of {score.size} heads. Your guess: {my_count}.")
print(f"Layer and head of these: {alone}")
heads.figure()

# %%
judge("ioi-head-token", guess)

# %% [markdown]
# ## 8. One head, one word
#
# “Peanut butter and pineapple taste great on pizza.” **After the last layer, which word's state is
# nearer to that of “pizza”: “pineapple” or “butter”?**

# %%
look("pineapple-pizza")

# %% [markdown]
# **Your guesses**: `True` or `False` for each claim, and a number for the question above. The
# values here are placeholders; change them.

# %%
my_word = "pineapple"
guess = {"nearer": True, "nowhere": True}

# %%
words = {"pineapple": "pineapple", "butter": "butter", "pizza": "pizza"}
pizza = mt.Prompt("Peanut butter and pineapple taste great on pizza", roles=words)
run = model.run(pizza, keep="L-1.resid_post")
tokens = run.encoded[0].tokens
states = run["L-1.resid_post"].isel(prompt=0).values
dish = states[tokens.role("pizza")]
near = {}
for word in ("pineapple", "butter"):
    own = states[tokens.role(word)]
    near[word] = float(own @ dish / np.linalg.norm(own) / np.linalg.norm(dish))
    print(f"{word}: cosine {near[word]:.3f}")
print(f"Nearer: {max(near, key=near.get)}. Your guess: {my_word}.")
assert max(map(abs, near.values())) <= 1

# %%
judge("pineapple-pizza", guess)

# %% [markdown]
# ## 9. Noisy BERT
#
# The last of the nine is about an *encoder*, which fills in masks; `nano` predicts what comes
# next, and the study says so. With a network: `mt.studies.run("noisy-bert",
# model="bert-large-uncased")`.

# %%
look("noisy-bert")

# %%
refused = ""
try:
    mt.studies.run("noisy-bert", model=model)
except mt.MicrotomeError as error:
    refused = str(error)
print(refused)
assert "masked" in refused

# %% [markdown]
# Its question can be put to any model, at the token where it predicts. Shuffle the coordinates of
# the last token's state in one layer: all numbers stay, in another order. **In which layers does
# anything of the answer survive? In how many is it still the model's first choice?**

# %%
my_count = 1

# %%
prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
shuffled = mt.sweep(model, prompt, "shuffle L*.resid_post@-1", metrics=["prob", "rank"])
rank = shuffled.data["rank"].isel(prompt=0).values
print(f"Still first in {(rank == 1).sum()} of {len(rank)} layers. Your guess: {my_count}.")
shuffled.figure("prob")

# %% [markdown]
# ## What is left
#
# More studies are begun in the same way.

# %%
left = [name for name in mt.studies.STUDIES if name not in (*done, "noisy-bert")]
for name in left:
    print(f"{name}: {mt.studies.find(name).texts(LANG)('question')}")
assert left

# %% [markdown]
# **To think about.** Of which claims were you most sure, and wrong? What would you have to change
# in your picture of a transformer? A claim that does not hold on `nano` may hold on a larger
# model: `mt.studies.compare("ioi-levels", ["nano", "smollm2"])` puts several side by side.

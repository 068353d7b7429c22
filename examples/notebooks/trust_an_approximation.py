# %% [markdown]
# # Can this approximation be trusted?
#
# Exact maps cost a pass through the upper layers for each cell. Gradients give *approximate*
# effects of every cell at the price of two or three passes: attribution patching. How wrong are
# they? That depends on the model, the site and the task, so microtome never gives an approximation
# without an *audit*: some cells are computed exactly, and say how good the others are. On a model
# as small as `nano` we can look behind the curtain, and compute all of them exactly as well.

# %%
import numpy as np

import microtome as mt

model = mt.load("nano")
prompts = mt.tasks.ioi(2, seed=0, tokenizer=model.tokenizer)

# %% [markdown]
# ## 1. Two maps of the same
#
# Effects of patching each head's *output*, and each head's *query*, at every token. The edit, the
# axes and the signs are the same; only `method=` differs.

# %%
asked = {"outputs": "patch L*.z.h*@*", "queries": "patch L*.q.h*@*"}
prompt = prompts[0]
exact = {site: mt.sweep(model, prompt, edit, metrics="logit_diff") for site, edit in asked.items()}
approximate = {
    site: mt.sweep(model, prompt, edit, metrics="logit_diff", method="atp", audit=60)
    for site, edit in asked.items()
}

# %% [markdown]
# **Guess first**: a softmax stands between a query and all that follows. For which of the two
# sites will a straight line, which is what a gradient is, be the worse guide?

# %%
for site in asked:
    true = exact[site].delta("logit_diff").values.ravel()
    guess = approximate[site].approximate("logit_diff").values.ravel()
    both = np.isfinite(true) & np.isfinite(guess)
    r = np.corrcoef(true[both], guess[both])[0, 1]
    print(f"{site}: correlation of approximate and exact effects, all {both.sum()} cells: {r:.3f}")

# %% [markdown]
# ## 2. The audit knows without the curtain
#
# The audit saw the cells that it computed exactly, and nothing else: half of them the strongest by
# the approximation, half drawn at random.

# %%
audits = {site: found.audit("logit_diff") for site, found in approximate.items()}
for site, audit in audits.items():
    print(
        f"{site}: estimated correlation {audit['pearson']:.3f}, "
        f"same sign in {audit['signs']:.0%}, worst error {audit['miss']:.3f} logits"
    )

# %%
approximate["outputs"].audit_figure()

# %%
approximate["queries"].audit_figure()

# %% [markdown]
# ## 3. What it promises
#
# With 95 % confidence no more than a share of the cells that were left approximate has an effect
# above the largest that was drawn. It assumes nothing about the effects or the method. Here we can
# see whether it is true.

# %%
for site, audit in audits.items():
    bound = audit["bound"]
    why = approximate[site].data["why_exact"].values.ravel()
    true = exact[site].delta("logit_diff").values.ravel()
    left = np.isfinite(true) & (why == 0)
    above = int((np.abs(true[left]) > bound["effect"] + 1e-9).sum())
    print(
        f"{site}: at most {bound['share']:.1%} of {bound['cells']} cells are said to be above "
        f"{bound['effect']:.3f} logits; there are {above}, {above / bound['cells']:.1%}"
    )
    assert above <= bound["share"] * bound["cells"]

# %% [markdown]
# ## 4. Where it fails, and what mends it
#
# For queries and keys, AtP* computes the softmax again (Kramár et al., 2024), instead of following
# a straight line through it.

# %%
mended = mt.sweep(
    model,
    prompt,
    asked["queries"],
    metrics="logit_diff",
    method=mt.AtPStar(grad_drop=False),
    audit=60,
)
true = exact["queries"].delta("logit_diff").values.ravel()
rs = {}
for name, found in {"atp": approximate["queries"], "atp_star": mended}.items():
    guess = found.approximate("logit_diff").values.ravel()
    both = np.isfinite(true) & np.isfinite(guess)
    rs[name] = np.corrcoef(true[both], guess[both])[0, 1]
    print(f"{name}: {rs[name]:.3f}")
assert rs["atp_star"] > rs["atp"]

# %% [markdown]
# ## 5. What to do with it
#
# Take an approximate map to find where to look, and exact cells for what you say. The strongest
# cells of an approximate map are exact already: rings mark them in the figure, and `refine=`
# computes more of them.

# %%
mended.figure(pos=-1)

# %%
more = mt.sweep(
    model,
    prompt,
    asked["queries"],
    metrics="logit_diff",
    method=mt.AtPStar(grad_drop=False),
    audit=mt.Audit(cells=60, refine=40),
)
known = int((more.data["why_exact"] > 0).sum())
print(f"{known} of {more.n_cells} cells are exact")
assert known >= 100
strongest = more.top(1).iloc[0]
at = {name: strongest[name] for name in ("layer", "head", "pos")}
truth = float(exact["queries"].delta("logit_diff").sel(prompt=0, **at))
print(f"the strongest, {at}: {strongest['effect']:.4f}; on the exact map {truth:.4f}")
assert abs(strongest["effect"] - truth) < 1e-3

# %% [markdown]
# **To think about.** What would have happened to your conclusions if you had trusted the first map
# of queries? All methods, their equations and what they were measured to do:
# [approximations](../../docs/approximations.md).

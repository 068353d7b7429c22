# %% [markdown]
# # From a head to a circuit
#
# A map of heads says which parts matter. A *circuit* says how they hang together: which part reads
# what another one writes. This notebook starts from one head, asks what feeds it, edge by edge,
# then scores every edge of the model, and runs the strongest of them alone: do they do what the
# model does?

# %%
import microtome as mt

model = mt.load("nano")
found_on = mt.tasks.ioi(4, seed=0, tokenizer=model.tokenizer)
judged_on = mt.tasks.ioi(12, seed=1, tokenizer=model.tokenizer)

# %% [markdown]
# ## 1. A head
#
# Of those in the upper half of the model, the one whose output at the last token matters most:
# those below are read by many, and those above by few.

# %%
n_layers = model.anatomy.dims.n_layers
heads = mt.sweep(model, found_on, "patch L*.z.h*@end", metrics="logit_diff")
effect = heads.delta("logit_diff").mean("prompt")
upper = effect.isel(layer=slice(n_layers // 2, None))
strongest = upper.isel(abs(upper).argmax(...))
layer, head = int(strongest["layer"]), int(strongest["head"])
print(f"L{layer}.h{head}: {float(strongest):+.2f} logits")

# %% [markdown]
# ## 2. What feeds it?
#
# A head reads three times: its queries decide from where it looks, its keys what is looked at, its
# values what it carries away. An *edge* is what one reader reads of one writer: with `->` a head's
# output is replaced for that reader alone, and all others go on reading the true one.
#
# **Guess first**: if this head carries a name to the last token, through which of the three do
# other heads tell it *which* name?

# %%
writers = {"heads": "L*.z.h*", "MLPs": "L*.mlp_out"}
feeding = {
    (kind, side): mt.sweep(
        model,
        found_on,
        f"patch {address} -> L{layer}.{side}_in.h{head}",
        metrics="logit_diff",
    )
    for kind, address in writers.items()
    for side in ("q", "k", "v")
}
sizes = {
    way: float(abs(found.delta("logit_diff").mean("prompt")).max())
    for way, found in feeding.items()
}
for (kind, side), size in sizes.items():
    print(f"the strongest edge from {kind} into its {side}: {size:.3f} logits")
kind, side = max(sizes, key=sizes.get)

# %%
feeding[kind, side].figure(title=f"What {kind} feed the {side} of L{layer}.h{head}")

# %%
feeding[kind, side].top(3)[["effect", "low", "high", "n"]]

# %% [markdown]
# No single edge does what the whole head does: what it reads was written by many. And each of
# these numbers is exact. Here is the strongest as a run by itself.

# %%
cell = feeding[kind, side].top(1, over=None).iloc[0]
writer = f"L{cell['from_layer']}." + (f"z.h{cell['from_head']}" if kind == "heads" else "mlp_out")
edge = f"{writer} -> L{layer}.{side}_in.h{head}"
run = model.run(found_on[int(cell["prompt"])], edits=mt.patch(edge))
by_itself = run.measure("logit_diff")["edited"].item()
print(f"patch {edge}: {by_itself:.4f}; on the map {cell['edited']:.4f}")
assert abs(by_itself - cell["edited"]) < 1e-3
assert max(sizes.values()) < abs(float(strongest))

# %% [markdown]
# ## 3. All edges
#
# Now every edge of the model, by how much worse the answer is without it, in one sentence. (A
# larger model has far more of them; `method=mt.EAP()` scores all by a few passes with gradients,
# see `trust_an_approximation`.)

# %%
scores = mt.circuits.score(model, found_on[0])
scores.top(10)

# %%
mt.circuits.draw_edges(scores)

# %% [markdown]
# ## 4. A circuit, alone
#
# The strongest edges make a circuit. To run it, every edge outside carries what it has in the
# donor's run. *Faithfulness* is 1 where the circuit does what the model does, and 0 where it does
# no more than no edge at all. It is judged on sentences that it was not found on.
#
# **Guess first**: how many of the edges are needed for 0.8?

# %%
circuit = scores.circuit(200)
kept = mt.circuits.faithfulness(model, judged_on, circuit)
share = len(circuit) / len(scores)
print(
    f"{len(circuit)} of {len(scores):,} edges ({share:.1%}) keep "
    f"{float(kept['faithfulness']):.2f} "
    f"({float(kept['low']):.2f} … {float(kept['high']):.2f})"
)

# %%
mt.circuits.draw(scores.circuit(40))

# %%
curve = mt.circuits.curve(model, judged_on, scores, sizes=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0))
mt.circuits.draw_curve(curve)

# %%
f = curve.data["faithfulness"]
enough = float(curve.data["share"][(f >= 0.8).values.argmax()])
print(f"0.8 is reached with {enough:.0%} of the edges; with all of them it is {float(f[-1]):.3f}")
assert abs(float(f[-1]) - 1) < 1e-3  # all edges are the model itself

# %% [markdown]
# ## 5. Is our head in it?

# %%
name = f"a{layer}.h{head}"
print(
    f"{name} is {'in' if name in circuit.nodes else 'not in'} "
    f"the circuit of {len(circuit.nodes)} nodes"
)
edges = circuit.to_dataframe()
edges[edges["reader"].str.startswith(name) | (edges["writer"] == name)]

# %% [markdown]
# **To think about.** The circuit was chosen edge by edge, each measured with all others in place.
# Two edges that stand in for each other are then both weak. `mt.circuits.interaction` finds such
# pairs, and `mt.circuits.greedy` measures anew at each step ([circuits](../../docs/circuits.md)).

# %% [markdown]
# # Your own model family
#
# microtome runs the unmodified Hugging Face modules, so it has to know where in them a head, a key
# or a neuron is. That is a *row*: a few names of modules. An architecture without one is refused
# by its name; this notebook writes one, has it proved, and sees what happens where it is wrong.
#
# The example is SmolLM3, which transformers has and microtome's table has not; a tiny one with
# random weights, so that nothing is downloaded. Put your own module in its place.

# %%
import torch
from transformers import SmolLM3Config, SmolLM3ForCausalLM

import microtome as mt
from microtome.errors import ArchitectureError, ProbeError

tokenizer = mt.load("nano").tokenizer
torch.manual_seed(0)
config = SmolLM3Config(
    vocab_size=len(tokenizer),
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=0,
    eos_token_id=0,
)
hf = SmolLM3ForCausalLM(config).eval()
print(f"{sum(weight.numel() for weight in hf.parameters()):,} parameters")

# %% [markdown]
# ## 1. Refused by name

# %%
refused = ""
try:
    mt.load(hf, tokenizer=tokenizer)
except ArchitectureError as error:
    refused = str(error)
print(refused)
assert "smollm3" in refused

# %% [markdown]
# ## 2. Read the block
#
# The names of its modules, and what its `forward` does with them, are all that is needed.

# %%
hf.model.layers[0]

# %% [markdown]
# It norms (`input_layernorm`), projects three times (`q_proj`, `k_proj`, `v_proj`), attends,
# multiplies by W_O (`o_proj`), and adds that to the stream; then norms again
# (`post_attention_layernorm`) and adds what the MLP gives, whose last projection (`down_proj`)
# reads the neurons. The block's source is the place to be sure:

# %%
import inspect

source = inspect.getsource(type(hf.model.layers[0]).forward)
print(source[source.index("residual = ") :])

# %% [markdown]
# ## 3. Write the row
#
# Each field answers a question of [how to add a family](../../docs/add-a-family.md).

# %%
from microtome.model.families.family import family, gated, split

SMOLLM3 = family(
    "smollm3",
    blocks="model.layers",
    qkv=split("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    reads="input_layernorm",
    out_proj="self_attn.o_proj",
    middle="post_attention_layernorm",
    mlp="mlp",
    down_proj="mlp.down_proj",
    final=("model.norm",),
    dimensions=gated,
    inner="norms",
)
model = mt.load(hf, tokenizer=tokenizer, family=SMOLLM3)
model

# %% [markdown]
# That it loaded says much: a *probe* has run the model and held that every site is there and live,
# that heads are where the row says, and that the parts add up to the whole.

# %% [markdown]
# ## 4. What if the row is wrong?
#
# **Guess first**: keys and values exchanged. Would you see that on a map? Does the probe?

# %%
from dataclasses import replace

exchanged = SMOLLM3.tapped(k=SMOLLM3.taps["v"], v=SMOLLM3.taps["k"])
late = replace(SMOLLM3, final=())
wrong = {"keys and values exchanged": exchanged, "the last norm forgotten": late}
found = {}
for mistake, row in wrong.items():
    try:
        mt.load(hf, tokenizer=tokenizer, family=row)
    except ProbeError as error:
        found[mistake] = str(error)
        print(f"{mistake}:\n  {error}\n")
assert set(found) == set(wrong)

# %% [markdown]
# ## 5. Does it do what a hook does?
#
# The last word has a hook that you write yourself. One head is silenced in both ways:

# %%
prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
layer, head, d_head = 2, 4, model.anatomy.dims.d_head


def silence(module, args):
    """Zeros in the columns of one head, where W_O reads them."""
    z = args[0].clone()
    z[..., head * d_head : (head + 1) * d_head] = 0
    return (z,)


handle = hf.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(silence)
ids = torch.tensor([model.encode(prompt)[0].tokens.ids])
with torch.no_grad():
    by_hand = hf(ids).logits[0, -1]
handle.remove()
ours = model.run(prompt, edits=f"zero L{layer}.z.h{head}").logits[0, -1]
apart = float(abs(ours - by_hand).max())
print(f"apart by {apart:.1e}")
assert apart < 1e-5

# %% [markdown]
# ## 6. Maps of it
#
# Everything else works through the same addresses. The keys have their own number of heads, since
# here several query heads share one.

# %%
effects = mt.sweep(model, prompt, "zero L*.k.h*", metrics="logit_diff")
print(effects.dims, dict(effects.data.sizes))
assert effects.data.sizes["kv_head"] == config.num_key_value_heads
effects.figure()

# %% [markdown]
# Beside each sweep some cells run on the *reference path*, full passes of the plain module with
# hooks:

# %%
checked = effects.provenance["verification"]
print(f"{checked['cells']} cells, apart by {checked['largest_difference']:.1e}")
assert checked["largest_difference"] <= checked["tolerance"]

# %% [markdown]
# **To think about.** What would it take for a *wrong* row to be proved? The probe asks for sums
# and for effects; two sites that add up to the same would do. That is why a family that goes into
# the table has a row of hooks in the tests as well, written by hand.

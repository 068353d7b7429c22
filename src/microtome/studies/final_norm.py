"""Behind the final norm: where Hugging Face takes its last hidden state.

`resid_post` of the last layer is before that norm, so studies that follow hidden states through
the layers show the state behind it as a point of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits import Edit
from microtome.passes.session import session
from microtome.prompts.prompt import Prompt
from microtome.verbs.model import Model


def after_norm(
    model: Model, prompt: Prompt, edits: Iterable[Edit | str] = ()
) -> Float[Tensor, "pos d_model"]:
    """The last hidden states of one run, behind the final norm, in float64."""
    last = f"L{model.anatomy.dims.n_layers - 1}.resid_post"
    kept = model.run(prompt, edits=edits, keep=[last])[last].isel(prompt=0).values
    with torch.no_grad(), session(model.hf, model.anatomy):
        last_state = torch.from_numpy(kept).to(model.device, model.dtype)
        normed: Tensor = model.anatomy.final(model.hf, last_state)
    return normed.double().cpu()


def with_norm(made: go.Figure, n: int, name: str) -> go.Figure:
    """A figure over n layers whose last point, at x = n, is behind the final norm."""
    step = -(-n // 24)
    ticks = [*range(0, n - (step > 1), step), n]
    labels = [*map(str, ticks[:-1]), name]
    return made.update_xaxes(tickmode="array", tickvals=ticks, ticktext=labels)

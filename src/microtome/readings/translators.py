"""Translators of the tuned lens: per layer an affine map of the stream before the final norm.

The state that enters block ``i`` is read as ``h + W_i h + b_i``; translators are trained so that
the prediction is as near as it gets to the model's own. The files are those of the package
``tuned-lens``: ``config.json``, and parameters named ``0.weight``, ``0.bias``, …, as safetensors.
Our own parameters say themselves how they were trained, under a checksum: who writes two files may
be stopped between them.

After Belrose et al., "Eliciting latent predictions from transformers with the tuned lens" (2023).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedModel

from microtome.amounts import many
from microtome.errors import AddressError, LoadError
from microtome.language.addresses import Address
from microtome.language.sites import Dimensions, Site
from microtome.model.placement import device_of
from microtome.paths import at_home
from microtome.readings.lens import Translate
from microtome.spoken import spoken

CONFIG, PARAMETERS, PICKLED = "config.json", "params.safetensors", "params.pt"
"""Of a folder; the last one as the package writes it."""
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError),
    *(UnpicklingError, SafetensorError),
)
"""What readers raise on files that are no translators, or are damaged."""
KIND = "linear_tuned_lens"
RECORD = "microtome.translators"
"""The name in the parameters' metadata of their checksum, and behind it how they were trained."""
DIGITS = 64
SITES = ("embed", "resid_pre", "resid_post", "final_in")
"""Sites of the stream as it enters or leaves a block, which is what translators are for."""


@spoken
@dataclass(frozen=True, eq=False, repr=False)
class Translators:
    """What takes the place of each state of the stream before it is unembedded.

    Attributes:
        weight: per block that a state enters ``[block, d_model, d_model]``.
        bias: ``[block, d_model]``.
        source: where they are from, for records.
        about: what is known of their training: plain values.
        is_saved: they were read from a folder, which is their source.
    """

    weight: Float[Tensor, "block d_model d_model"]
    bias: Float[Tensor, "block d_model"]
    source: str
    about: Mapping[str, Any] = field(default_factory=dict)
    is_saved: bool = False

    @classmethod
    def nothing(cls, dims: Dimensions, like: PreTrainedModel) -> Translators:
        """Translators that change nothing, on the device of a model, in its type or float32."""
        kind = torch.promote_types(like.dtype, torch.float32)
        weight = torch.zeros(
            dims.n_layers, dims.d_model, dims.d_model, dtype=kind, device=device_of(like)
        )
        return cls(weight, weight[:, 0].clone(), "none")

    def check(self, address: Address, dims: Dimensions) -> None:
        """Raise unless these are of such a model, and the address is of the stream.

        Raises:
            LoadError: they are of a model of other sizes.
            AddressError: the address is of something else.
        """
        wanted = (dims.n_layers, dims.d_model)
        if self.bias.shape != wanted:
            whose = f" (trained on {self.about['model']})" if "model" in self.about else ""
            raise LoadError(
                f"The translators of {self.source!r}{whose} are for "
                f"{many(self.bias.shape[0], 'block')} of "
                f"d_model {self.bias.shape[1]}, and this model has {wanted[0]} of {wanted[1]}. "
                "Give those of this model, or train some: mt.train_translators, 'microtome tune'."
            )
        if address.site.name not in SITES:
            raise AddressError(
                f"{address}: translators are of the stream between blocks, {', '.join(SITES)}; "
                "read parts with the logit lens, without tuned=."
            )

    def of(self, site: Site, layer: int | None) -> Translate | None:
        """What translates the states at a place; None where nothing is between it and the end."""
        block = len(self.bias)
        if site.name == "embed":
            block = 0
        elif layer is not None and site.name != "final_in":
            block = layer + (site.name == "resid_post")
        if block == len(self.bias):
            return None
        return lambda states: self.translated(block, states)

    def translated(self, block: int, states: Float[Tensor, "*n d_model"]) -> Tensor:
        """States that enter a block, in the basis of those that leave the last one."""
        weight = self.weight[block].to(states.device)
        bias = self.bias[block].to(states.device)
        own = states.to(weight.dtype)
        return (own + torch.nn.functional.linear(own, weight, bias)).to(states.dtype)

    def save(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``params.safetensors`` to a folder.

        Raises:
            LoadError: it cannot be written to, or is somebody else's.
        """
        folder = at_home(folder)
        check_folder(folder)
        blocks, width = self.bias.shape
        config = {
            "base_model_name_or_path": self.about.get("model", self.source),
            "bias": True,
            "d_model": width,
            "num_hidden_layers": blocks,
            "lens_type": KIND,
            "about": dict(self.about),
        }
        named = {}
        for block in range(blocks):
            named[f"{block}.weight"] = self.weight[block].detach().cpu().contiguous().clone()
            named[f"{block}.bias"] = self.bias[block].detach().cpu().contiguous().clone()
        told = json.dumps(dict(self.about), sort_keys=True)
        record = {RECORD: _checksum(named, told) + told}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(config, indent=2, ensure_ascii=False)
            new = {name: folder / f"{name}.new" for name in (PARAMETERS, CONFIG)}
            new[PARAMETERS].write_bytes(save(named, record))  # save_file has an error of its own
            new[CONFIG].write_text(text + "\n", encoding="utf-8")
            for name, place in new.items():  # whole, whenever a program is stopped
                place.replace(folder / name)
        except OSError as error:
            raise LoadError(
                f"Cannot write translators to {folder}: {error.strerror or error}."
            ) from error
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Translators:
        """Translators of a folder, as `save` writes it or as the package ``tuned-lens`` does.

        Raises:
            LoadError: the folder does not hold any, or some of another kind; or they are damaged.
        """
        folder = at_home(folder)
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            named, record = _parameters(folder)
            blocks = int(config["num_hidden_layers"])
            weight = torch.stack([named[f"{block}.weight"] for block in range(blocks)])
            bias = torch.stack([named[f"{block}.bias"] for block in range(blocks)])
        except UNREADABLE as error:
            why = str(error).splitlines()[0]
            raise LoadError(
                f"{folder} holds no translators that can be read ({type(error).__name__}: {why}):"
                f" expected {CONFIG} with num_hidden_layers, and {PARAMETERS} (or {PICKLED}) with "
                "0.weight, 0.bias, …, as microtome and the package tuned-lens write them."
            ) from error
        told = record[DIGITS:]
        if record and record != _checksum(named, told) + told:
            raise LoadError(
                f"{folder}: {PARAMETERS} is damaged: its checksum differs. Train the translators "
                "again (overwrite=True, --overwrite), or take a copy that is whole."
            )
        about = json.loads(told) if record else config.get("about", {})
        more = sum(bool(re.fullmatch(r"\d+\.weight", name)) for name in named) - blocks
        if more > 0:
            raise LoadError(
                f"{folder}: {CONFIG} says {many(blocks, 'block')}, and there are translators of "
                f"{blocks + more}: the two are not of one model."
            )
        width = weight.shape[-1]
        if weight.shape != (blocks, width, width) or bias.shape != (blocks, width):
            raise LoadError(
                f"{folder}: translators are {list(weight.shape)} and {list(bias.shape)}, not "
                "[block, d_model, d_model] and [block, d_model]."
            )
        return cls(weight, bias, str(folder), about, is_saved=True)

    def __repr__(self) -> str:
        blocks, width = self.bias.shape
        return f"<Translators of {many(blocks, 'block')}, d_model {width}, from {self.source!r}>"


def check_folder(folder: Path) -> None:
    """Raise `LoadError` where translators would take the place of another ``config.json``."""
    place = folder / CONFIG
    try:
        known = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {KIND: None}
    except (OSError, ValueError):
        known = None
    if not isinstance(known, dict) or not known.keys() & {KIND, "lens_type"}:
        raise LoadError(
            f"{place} is not of translators, and would be written over: name another folder."
        )


def _parameters(folder: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors by their names, and the record beside them, where there is one."""
    if (folder / PARAMETERS).is_file():
        with safe_open(folder / PARAMETERS, framework="pt") as file:
            names = list(file.keys())
            found = {name: file.get_tensor(name) for name in names}
            return found, (file.metadata() or {}).get(RECORD, "")
    # Published ones are pickles; this reads tensors out of one and runs nothing that it says.
    return torch.load(folder / PICKLED, map_location="cpu", weights_only=True), ""


def _checksum(named: Mapping[str, Tensor], told: str) -> str:
    """The SHA-256 of how translators were trained and of their numbers, in hexadecimal digits."""
    found = hashlib.sha256(told.encode())
    for name in sorted(named):
        one = named[name]
        found.update(f"{name} {one.dtype} {list(one.shape)}".encode())
        found.update(one.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()

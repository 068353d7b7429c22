"""Every edge of a model's graph, by name."""

from __future__ import annotations

from transformers import PretrainedConfig

from microtome.language.nodes import Edges
from microtome.language.sites import Dimensions
from microtome.model.anatomy import Anatomy, family_of
from microtome.model.loaded import Loaded, check_loaded
from microtome.spoken import spoken


@spoken
def edges(of: Loaded | PretrainedConfig | Dimensions) -> Edges:
    """Every edge of a model's graph: the nodes that write, and what reads them.

    Nodes are the embedding, each head, each MLP, and the logits; a head reads three times, by its
    queries, keys and values. They have the names of EAP-IG's and MIB's files, in their order.

    Args:
        of: a model, or the configuration of one: no weights are needed.

    Returns:
        The names, such as ``"input->a0.h0<q>"``; its ``kinds`` are the sweeps that span them.

    Raises:
        AddressError: the residual stream of the model is no sum.
        ArchitectureError: a configuration of an architecture that is not in the table.

    Source: Hanna et al. 2024 (arXiv:2403.17806), section 2.

    >>> import microtome as mt
    >>> found = mt.edges(mt.load())
    >>> found[0], "a0.h1->m1" in found
    ('input->a0.h0<q>', True)
    """
    if isinstance(of, Dimensions):
        return Edges(of)
    if isinstance(of, PretrainedConfig):
        return Edges(Anatomy.by(family_of(of, "This configuration is of"), of).dims)
    check_loaded(of)
    return Edges(of.anatomy.dims)

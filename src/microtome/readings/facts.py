"""Parts of a fact's text, and windows of layers: how causal tracing is averaged and made."""

from __future__ import annotations

HIDDEN = "hidden"
"""What is put back layer by layer; anything else, in windows of layers."""
PARTS = (
    "before the subject",
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token behind",
    "further tokens",
    "last token",
)
"""Of a text, in its order. A subject of one token has a last one alone."""


def parts_of(subject: range, length: int) -> list[str]:
    """The part that each token of a text is.

    >>> parts_of(range(1, 4), 7)[:4]
    ['before the subject', 'first subject token', 'middle subject tokens', 'last subject token']
    >>> parts_of(range(0, 1), 4)
    ['last subject token', 'first token behind', 'further tokens', 'last token']
    """
    first, last = subject[0], subject[-1]
    found = []
    for position in range(length):
        if position < first:
            name = PARTS[0]
        elif position == last:
            name = PARTS[3]
        elif position < last:
            name = PARTS[1] if position == first else PARTS[2]
        elif position == length - 1:
            name = PARTS[6]
        else:
            name = PARTS[4] if position == last + 1 else PARTS[5]
        found.append(name)
    return found


def maps_of(kind: str, site: str, width: int, n_layers: int) -> dict[str, str]:
    """The maps of a kind by name, each with the address of what is put back.

    >>> maps_of("hidden", "resid_post", 2, 3)
    {'hidden': 'L*.resid_post@*'}
    >>> maps_of("mlp", "mlp_out", 2, 3)
    {'mlp-0': 'L0:1.mlp_out@*', 'mlp-0-1': 'L0:2.mlp_out@*', 'mlp-1-2': 'L1:3.mlp_out@*'}
    """
    if kind == HIDDEN:
        return {kind: f"L*.{site}@*"}
    windows = (window_of(layer, width, n_layers) for layer in range(n_layers))
    return {map_of(kind, own): f"L{own.start}:{own.stop}.{site}@*" for own in windows}


def map_of(kind: str, window: range) -> str:
    """The name of the map of a window of layers.

    >>> map_of("mlp", range(3, 13))
    'mlp-3-12'
    """
    first, last = window[0], window[-1]
    return f"{kind}-{first}" if first == last else f"{kind}-{first}-{last}"


def window_of(layer: int, width: int, n_layers: int) -> range:
    """Layers around one, fewer at the ends: as many before it as behind, and itself.

    Of an even width one more is before, as in the code of Meng et al. (2022).

    >>> window_of(7, 10, 30), window_of(2, 10, 30), window_of(3, 1, 4)
    (range(2, 12), range(0, 7), range(3, 4))
    """
    return range(max(0, layer - width // 2), min(n_layers, layer + (width + 1) // 2))

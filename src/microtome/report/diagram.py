"""A drawing of one transformer block, with the places marked where an edit sits.

The drawing is SVG that takes its colours from the page (``--ink``, ``--accent``, …), so that it
follows the reader's light or dark scheme. It has a title and a description for screen readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from types import MappingProxyType

from markupsafe import Markup

from microtome.errors import EffectsError, did_you_mean, listing
from microtome.texts import Texts

WIDTH, HEIGHT = 760, 236
STREAM = 188
"""Height of the line that is the residual stream."""
BRANCH = 92
"""Height of the row in which attention and the MLP stand."""

PLACES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "resid_pre": (64, STREAM),
        "q_in": (120, BRANCH - 26),
        "k_in": (120, BRANCH),
        "k_in_group": (120, BRANCH),
        "v_in": (120, BRANCH + 26),
        "v_in_group": (120, BRANCH + 26),
        "q": (166, BRANCH - 26),
        "k": (166, BRANCH),
        "k_head": (166, BRANCH),
        "v": (166, BRANCH + 26),
        "v_head": (166, BRANCH + 26),
        "pattern": (222, BRANCH - 26),
        "z": (286, BRANCH),
        "head_out": (344, BRANCH),
        "attn_out": (372, BRANCH + 44),
        "resid_mid": (424, STREAM),
        "mlp_in": (472, BRANCH),
        "mlp_post": (554, BRANCH),
        "mlp_out": (642, BRANCH + 44),
        "resid_post": (706, STREAM),
    }
)
"""Site → where it stands in the drawing."""

LABEL_BELOW = ("resid_pre", "resid_mid", "resid_post")
LABEL_BESIDE = ("attn_out", "mlp_out")
ROOM = 100
"""Between two labels under the frame, of which one says that it is edited."""


def diagram(sites: Sequence[str], texts: Texts, parallel: bool = False) -> Markup:
    """A block with these sites marked, as an SVG element.

    Args:
        sites: of an edit.
        texts: in the language of the page.
        parallel: attention and MLP read the same input, instead of one after the other.

    Raises:
        EffectsError: a site has no place in a block.

    >>> from microtome.report.html import texts_of
    >>> "role=\\"img\\"" in diagram(["z"], texts_of("en"))
    True
    """
    for site in sites:
        if site not in PLACES:
            raise EffectsError(
                f"{site!r} has no place in the drawing of a block; those that have: "
                f"{listing(PLACES)}.{did_you_mean(site, PLACES)}"
            )
    kind = "parallel" if parallel else "sequential"
    title, about = texts("diagram.title"), texts(f"diagram.{kind}", sites=listing(sites))
    parts = [
        f'<svg class="diagram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{title}. {about}")}">',
        f"<title>{escape(title)}</title><desc>{escape(about)}</desc>",
        *_block(texts, parallel),
        *(_mark(site, sites, texts("diagram.edited")) for site in sites),
        "</svg>",
    ]
    return Markup("".join(parts))


def _block(texts: Texts, parallel: bool) -> Iterator[str]:
    # The stream, with what is added to it.
    yield _arrow((16, STREAM), (744, STREAM), "stream")
    yield _text(238, STREAM + 20, texts("diagram.stream"), "quiet")
    for at in (372, 642):
        yield f'<circle class="plus" cx="{at}" cy="{STREAM}" r="10"/>'
        yield _text(at, STREAM + 5, "+", "sign")
    # Attention: up, through queries, keys and values to the heads and their projection, and down.
    yield _frame(118, 34, 228, 122)
    yield _text(232, 26, texts("diagram.attention"), "quiet")
    yield _path([(104, STREAM), (104, BRANCH), (136, BRANCH)])
    for name, shift in (("Q", -26), ("K", 0), ("V", 26)):
        yield _box(138, BRANCH + shift - 11, 22, 22, name)
    yield _path([(172, BRANCH), (196, BRANCH)])
    yield _box(198, BRANCH - 14, 68, 28, texts("diagram.heads"))
    yield _path([(266, BRANCH), (304, BRANCH)])
    yield _box(306, BRANCH - 14, 34, 28, "W<tspan dy='4' font-size='9'>O</tspan>", raw=True)
    yield _path([(340, BRANCH), (372, BRANCH), (372, STREAM - 12)])
    # The MLP likewise.
    yield _frame(480, 34, 136, 122)
    yield _text(548, 26, "MLP", "quiet")
    if parallel:
        yield _path([(104, BRANCH), (104, 8), (456, 8), (456, BRANCH), (488, BRANCH)])
    else:
        yield _path([(456, STREAM), (456, BRANCH), (488, BRANCH)])
    yield _box(490, BRANCH - 14, 46, 28, "W<tspan dy='4' font-size='9'>in</tspan>", raw=True)
    yield _path([(536, BRANCH), (566, BRANCH)])
    yield _box(568, BRANCH - 14, 42, 28, "W<tspan dy='4' font-size='9'>out</tspan>", raw=True)
    yield _path([(610, BRANCH), (642, BRANCH), (642, STREAM - 12)])


def _mark(site: str, sites: Sequence[str], words: str) -> str:
    x, y = PLACES[site]
    first = site == sites[0]
    lead = ""
    if site in LABEL_BELOW or site in LABEL_BESIDE:
        across, down = (x, y + 26) if site in LABEL_BELOW else (x + 58, y - 2)
        label = _text(across, down, site, "mark-name")
        label += _text(across, down + 16, words, "mark-words") if first else ""
    else:  # below the frame, with a line that leads down to it
        lead = f'<path class="lead" d="M{x} {y + 8}V160"/>'
        label = _under(site, sites, words)
    return (
        f'{lead}<circle class="halo" cx="{x}" cy="{y}" r="13"/>'
        f'<circle class="mark" cx="{x}" cy="{y}" r="6.5"/>{label}'
    )


def _under(site: str, sites: Sequence[str], words: str) -> str:
    """A label under the frame: those that stand above each other, as q and k do, have one."""
    x, _ = PLACES[site]
    below = [one for one in sites if one not in (*LABEL_BELOW, *LABEL_BESIDE)]
    here = [one for one in below if PLACES[one][0] == x]
    if site != here[0]:
        return ""
    names = ", ".join(here)
    near = any(0 < abs(PLACES[one][0] - x) < ROOM for one in below)
    return _text(x, 172, names if near or sites[0] != site else f"{names}: {words}", "mark-name")


def _text(x: int, y: int, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="middle">{escape(words)}</text>'


def _box(x: int, y: int, width: int, height: int, words: str, raw: bool = False) -> str:
    inside = words if raw else escape(words)
    return (
        f'<rect class="box" x="{x}" y="{y}" width="{width}" height="{height}" rx="5"/>'
        f'<text class="name" x="{x + width // 2}" y="{y + height // 2 + 4}" '
        f'text-anchor="middle">{inside}</text>'
    )


def _frame(x: int, y: int, width: int, height: int) -> str:
    return f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>'


def _path(points: Sequence[tuple[int, int]]) -> str:
    there = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline class="wire" points="{there}"/>' + _head(points[-2], points[-1], "tip")


def _arrow(start: tuple[int, int], end: tuple[int, int], kind: str) -> str:
    line = f'<path class="{kind}" d="M{start[0]} {start[1]}L{end[0] - 4} {end[1]}"/>'
    return line + _head(start, end, f"{kind}-tip")


def _head(start: tuple[int, int], end: tuple[int, int], kind: str) -> str:
    """The head of an arrow that runs to the right or down."""
    x, y = end
    if start[1] == end[1]:
        corners = f"{x},{y} {x - 8},{y - 4} {x - 8},{y + 4}"
    else:
        corners = f"{x},{y} {x - 4},{y - 8} {x + 4},{y - 8}"
    return f'<polygon class="{kind}" points="{corners}"/>'

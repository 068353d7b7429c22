"""What a part says, as a file: all that verbs of reading are told, in the dialect of a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from microtome.frontends.experiment import sources
from microtome.frontends.experiment.fields import (
    Bytes,
    Count,
    Edits,
    Metric,
    Metrics,
    Named,
    Over,
    Place,
    SomeEdits,
    Text,
    Verified,
    Whole,
    several,
)
from microtome.frontends.experiment.form import Filed
from microtome.frontends.experiment.sources import Source
from microtome.prompts.prompts import Prompts
from microtome.readings.translators import Translators
from microtome.verbs.attention import Attention, attention
from microtome.verbs.attribution import Attribution, attribute_logits
from microtome.verbs.dose import Dose, dose
from microtome.verbs.head_card import HeadCard, head_card
from microtome.verbs.lens import Lens, lens
from microtome.verbs.model import Model
from microtome.verbs.tracing import KINDS, WINDOW, Traces, trace_facts


class Read(Filed):
    """What every file of a reading has.

    Attributes:
        model, prompts: as an `Experiment` has them.
        out: a folder for figures and report, or a picture, as ``-o`` on the command line.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...

    model: Named
    prompts: Source
    out: Place | None = None

    def of(self, model: Model | None) -> tuple[Model, Prompts]:
        """The model, loaded unless it is given, and the prompts in its words."""
        model = model or self.model.load()
        return model, sources.make(self.prompts, model)


class ReadLens(Read):
    """All that `lens` is told.

    Attributes:
        address, edits, metrics, top, reference: as `lens` takes them.
        tuned: a folder with translators.

    >>> ReadLens(model="nano", prompts="Berlin is the capital of", top=1).run().data.sizes["layer"]
    6
    """

    address: Text = "L*.resid_post@*"
    edits: SomeEdits = ()
    metrics: Metrics | None = None
    top: Count = 5
    tuned: Place | None = None
    reference: Source | None = None

    def run(self, model: Model | None = None) -> Lens:
        """Read what states say."""
        model, prompts = self.of(model)
        return lens(
            model,
            prompts,
            self.address,
            edits=self.edits,
            metrics=self.metrics,
            top=self.top,
            tuned=None if self.tuned is None else Translators.load(self.tuned),
            reference=() if self.reference is None else tuple(sources.make(self.reference, model)),
        )


class ReadAttribution(Read):
    """All that `attribute_logits` is told.

    Attributes:
        metric, sources: as it takes them.
    """

    metric: Metric | None = None
    sources: bool = False

    def run(self, model: Model | None = None) -> Attribution:
        """Share a logit out."""
        model, prompts = self.of(model)
        return attribute_logits(model, prompts, self.metric, sources=self.sources)


class ReadAttention(Read):
    """All that `attention` is told.

    Attributes:
        address: which layers and heads.
    """

    address: Text = "L*.pattern"

    def run(self, model: Model | None = None) -> Attention:
        """Read where heads look."""
        return attention(*self.of(model), self.address)


class ReadHead(Read):
    """All that `head_card` is told.

    Attributes:
        head: such as ``L23.h3``.
        k, tokens, seed: as `head_card` takes them.
    """

    head: Text
    k: Count = 10
    tokens: Count = 300
    seed: Whole = 0

    def run(self, model: Model | None = None) -> HeadCard:
        """Make the card."""
        model, prompts = self.of(model)
        return head_card(model, self.head, prompts, k=self.k, tokens=self.tokens, seed=self.seed)


class ReadTraces(Read):
    """All that `trace_facts` is told; the facts' subjects are roles of the prompts.

    Attributes:
        kinds, samples, noise_std, window, seed, verify, memory: as `trace_facts` takes them.
    """

    kinds: Annotated[tuple[Text, ...], BeforeValidator(several)] = tuple(KINDS)
    samples: Count = 10
    noise_std: float = Field(3.0, ge=0)
    window: Count = WINDOW
    seed: Whole = 0
    verify: Verified = 1
    memory: Bytes | None = None

    def run(self, model: Model | None = None, **more: Any) -> Traces:
        """Trace; ``more`` is what no file holds, such as ``tell``."""
        model, prompts = self.of(model)
        return trace_facts(
            model,
            prompts,
            kinds=self.kinds,
            samples=self.samples,
            noise_std=self.noise_std,
            window=self.window,
            seed=self.seed,
            verify=self.verify,
            memory=self.memory,
            **more,
        )


class ReadDose(Read):
    """All that `dose` is told.

    Attributes:
        edits, metrics, over, verify, memory, seed: as an `Experiment` has them.
        neutral: texts that are to go on as they are, given as prompts are.
    """

    edits: Edits
    metrics: Metrics = ("logit_diff",)
    over: Over
    neutral: Source
    verify: Verified = 4
    memory: Bytes | None = None
    seed: Whole = 0

    def run(self, model: Model | None = None, **more: Any) -> Dose:
        """Measure; ``more`` is what no file holds, such as ``progress``."""
        model, prompts = self.of(model)
        return dose(
            model,
            self.edits,
            prompts,
            sources.make(self.neutral, model),
            over=self.over,
            metrics=self.metrics,
            verify=self.verify,
            memory=self.memory,
            seed=self.seed,
            **more,
        )

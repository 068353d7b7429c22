"""A model as its users have it: what was loaded, and what can be done with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from microtome.edits import Edit, as_edits
from microtome.language.habits import here
from microtome.model.describe import described
from microtome.model.loaded import Loaded
from microtome.notebook import html_fields, html_line, html_table
from microtome.prompts.prompts import Given, listed
from microtome.spoken import spoken
from microtome.verbs import card as cards
from microtome.verbs import run as outcome
from microtome.verbs.generate import When, generate
from microtome.verbs.generation import Generation


@spoken
@dataclass(frozen=True, eq=False, repr=False)
class Model(Loaded):
    """What `load` gives; see `Loaded` for what it holds."""

    if not TYPE_CHECKING:  # a type checker would take every name for one that is there

        def __getattr__(self, name: str) -> NoReturn:
            """For a name that is not there: what other tools call so is named as it is here."""
            if hasattr(type(self), name):  # it is there, and something that it asks for is not
                return object.__getattribute__(self, name)
            own = type(self).__name__
            raise AttributeError(f"{own!r} object has no attribute {name!r}{here(name)}")

    def _repr_html_(self) -> str:
        """In a notebook: what it is, and what can be addressed in it."""
        sites = self.sites().reset_index()
        return (
            html_line(repr(self))
            + html_fields(described(self.anatomy, self.hf.config))
            + html_table(tuple(sites.columns), sites.astype(object).values.tolist())
        )

    def run(
        self,
        prompts: Given | Iterable[Given],
        edits: Edit | str | Iterable[Edit | str] = (),
        keep: str | Iterable[str] = (),
        reference: Iterable[Given] = (),
    ) -> outcome.Run:
        """Run prompts with edits, one full forward pass each, and keep some activations.

        Args:
            prompts: one or several; each runs by itself, so nothing is padded.
            edits: applied together, in the order of the forward pass; edits of one tensor apply
                in the order given. Addresses without stars.
            keep: addresses of the activations to keep, as they are after the edits.
            reference: the prompts that `mean(over="prompts")` averages over; by default the
                prompts themselves.

        Raises:
            AddressError, EditError, PromptError: something names what is not there.

        >>> import microtome as mt
        >>> model = mt.load("nano")
        >>> run = model.run("Berlin is the capital of", edits=[mt.zero("L0.z.h3")], keep=["L0.z"])
        >>> run["L0.z"].sel(head=3).values.any()
        np.False_
        """
        encoded = self.encode(prompts)
        others = listed(reference)
        return outcome.run(
            self.hf,
            self.anatomy,
            self.tokenizer,
            encoded,
            as_edits(edits),
            keep,
            self.encode(others) if others else encoded,
        )

    def generate(
        self,
        prompts: Given | Iterable[Given],
        edits: Edit | str | Iterable[Edit | str] = (),
        steps: int = 20,
        when: When = "all",
        *,
        batch: int = 1,
        seed: int = 0,
        reference: Iterable[Given] = (),
        verify: bool = True,
        **how: Any,
    ) -> Generation:
        """Continue prompts under edits, by the model's own ``generate``, with its cache.

        Each prompt is continued by itself, so that nothing is padded, unless ``batch`` is given. A
        token is edited once, in the step that reads it first: step 0 reads the prompt and gives the
        first token, step n reads the n-th. In each step an address is looked up in the text as it
        is then, and what it selects of the new tokens is edited: ``@last`` is the newest token,
        ``@:`` every one, and a place in the prompt stays where it is.

        Args:
            prompts: one or several; a chat is written as the model's template has it.
            edits: made together in each step.
            steps: how many tokens are written at most.
            when: ``"prompt"`` (step 0 alone), ``"generated"`` (the others), ``"all"``; or a
                function of the step's number.
            batch: how many prompts are continued together, padded on the left. Each is edited,
                sampled, stopped and verified as it would be alone, and gets the tokens that it
                would get alone, unless rounding decides between two.
            seed: of what is sampled, if anything is; the same for each prompt.
            reference: the prompts that `mean(over="prompts")` averages over; by default the
                prompts themselves.
            verify: read the finished text once more in one pass, with the same edits, and compare
                the logits; that costs about as much as reading a prompt of that length.
            **how: settings of transformers' ``GenerationConfig``, such as ``do_sample=True``,
                ``temperature``, ``stop_strings``, ``use_cache``; and ``logits_processor``,
                ``stopping_criteria``, ``prefix_allowed_tokens_fn``, ``streamer`` (or a list of one
                for each prompt). What is left out is as the model's own ``generation_config`` has
                it.

        Raises:
            AddressError, EditError, PromptError: something names what is not there, or an edit has
                no meaning in a step in which it is to be made.
            MicrotomeError: a setting asks for a way of writing in which edits have none (beams).
            VerificationError: the finished text gives other logits.

        >>> import microtome as mt
        >>> model = mt.load("nano")
        >>> made = model.generate("Berlin is the capital of", "zero L:.mlp_out@last", steps=3)
        >>> len(made[0].ids), [one.step for one in made.receipts]
        (3, [0, 1, 2])
        """
        encoded = self.encode(prompts)
        others = listed(reference)
        texts = self.encode(others) if others else encoded
        return generate(
            self,
            encoded,
            as_edits(edits),
            steps,
            when,
            batch,
            seed,
            [one.tokens for one in texts],
            verify,
            how,
        )

    def card(self, n: int = 100, seed: int = 0, tasks: Iterable[str] = cards.ASKED) -> cards.Card:
        """What the model can do of the tasks, measured on prompts in its own tokens.

        Args:
            n: how many prompts of each task.
            seed: of their draw.
            tasks: names in `microtome.tasks`; unless given ioi, capitals, induction and
                greater_than.

        Returns:
            Per task the share that is right (the target's logit above the contrast's), the share
            whose target is the most probable of all tokens, the mean logit difference and the
            mean probability of the target, with 95 % intervals. A task that the tokenizer has no
            words for says so.

        Raises:
            TaskError: there is no such task, or n is too small.
            MicrotomeError: the model fills in masks.

        >>> import microtome as mt
        >>> [ability] = mt.load("nano").card(8, tasks=["capitals"]).abilities
        >>> ability.accuracy, ability.n
        (1.0, 8)
        """
        return cards.measured(self, n, seed, tasks)

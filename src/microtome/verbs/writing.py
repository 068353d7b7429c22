"""How a model is told to write: its own ``generation_config``, and what is asked for besides."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from microtome.amounts import single
from microtome.errors import MicrotomeError, did_you_mean, glimpse, listing
from microtome.passes.generating import Manner
from microtome.passes.rows import Streamer

STREAMER = "streamer"
OBJECTS = ("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", STREAMER)
"""What ``generate`` takes besides settings, and runs between passes."""

LISTS: Mapping[str, str] = {
    "logits_processor": "LogitsProcessorList([…])",
    "stopping_criteria": "StoppingCriteriaList([…])",
}
"""Those of which there may be several, and what transformers keeps them in."""

OURS: Mapping[str, str] = {
    "max_new_tokens": "steps= says how many tokens are written",
    "max_length": "steps= says how many tokens are written",
    "inputs": "the prompt comes first",
    "input_ids": "tokens as a prompt are Prompt(ids=[…])",
    "attention_mask": "batch= says how many prompts are padded together, if any",
    "tokenizer": "it is the model's own; load(…, tokenizer=…) takes another",
}
"""What ``generate`` calls what is said here in another way."""

OTHERWISE: Mapping[str, str] = {
    "assistant_model": "another model would write some of the tokens",
    "dola_layers": "layers would be read beside the output",
    "guidance_scale": "the model would be run a second time in each step",
    "token_healing": "the prompt's last token would be another one",
    "prefill_chunk_size": "the prompt would be read in pieces",
    "custom_generate": "somebody else's code would write",
    "cache_implementation": "edits are made with the cache that grows",
    "num_return_sequences": "one text is written for a prompt; another seed gives another one",
}
"""Ways of generating in which an edit has no meaning here, and why."""

TOGETHER: Mapping[str, tuple[object, str]] = {
    "min_length": (0, "it counts the prompt, and prompts differ: say min_new_tokens"),
    "forced_bos_token_id": (None, "it looks whether a prompt is one token"),
    "encoder_repetition_penalty": (1.0, "it looks at the prompts of all rows"),
    "encoder_no_repeat_ngram_size": (0, "it looks at the prompts of all rows"),
}
"""Settings that would see the padding of a batch: what does nothing, and why they are refused."""

DRAWING: Mapping[str, tuple[object, ...]] = {
    "temperature": (0, 1),
    "top_p": (1,),
    "top_k": (0, 50),
    "min_p": (0,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
}
"""Settings of what is drawn, with the values that ask for nothing."""

SHARES = ("top_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Of a probability: beyond 1 or below 0 they are left out in transformers, without a word."""

IDLE = (None, False, 1, "dynamic", "hybrid")
"""Their values that do nothing."""

SOMETHING = ("use_cache", "num_beams", "num_return_sequences")
"""Settings that cannot be None: that is as if nothing were said."""

MODES = ("greedy_search", "sample")
"""The ways in which one token is written after another."""


def manner_of(
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    seed: int,
    asked: Mapping[str, Any],
) -> Manner:
    """How a model is to write: as its ``generation_config`` says, unless something else is asked.

    Args:
        hf: the model.
        tokenizer: what finds stop strings.
        steps: how many tokens at most.
        seed: of what is drawn.
        asked: settings and objects, as ``generate`` takes them.

    Raises:
        MicrotomeError: a setting does not exist, has a value that cannot be, or asks for a way of
            writing in which edits have no meaning.
    """
    for name in asked:
        if name in OURS:
            raise MicrotomeError(f"generate has no {name}=: {OURS[name]}.")
    settings = {
        name: value for name, value in asked.items()
        if name not in OBJECTS and not (name in SOMETHING and value is None)
    }  # fmt: skip
    given = settings.pop("generation_config", None)
    if not isinstance(given, GenerationConfig | None):
        raise MicrotomeError(f"generation_config= is a GenerationConfig, not {glimpse(given)}.")
    settings |= {"max_new_tokens": steps, "return_dict_in_generate": False}
    config = copy.deepcopy(given or hf.generation_config)
    try:
        # What a configuration leaves open is the model's own, as in transformers' generate.
        config.update(**hf.generation_config.to_dict(), defaults_only=True)
        unknown = config.update(**settings)
        config.validate()
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise MicrotomeError(f"The model cannot generate so: {error}") from error
    _refuse(config, unknown)
    _check_drawn(config, settings)
    if config.pad_token_id is None:  # never read: texts are padded with their own tokens
        config.pad_token_id = settings["pad_token_id"] = _first(config.eos_token_id)
    told = settings
    if given is not None:  # a setting that is asked to be None would be filled in there
        told = {"generation_config": config, **_nothing(settings)}
    _check_objects(asked)
    own = (name for name in OBJECTS if name != STREAMER)
    more = {name: asked[name] for name in own if asked.get(name) is not None}
    if config.stop_strings is not None:
        more["tokenizer"] = tokenizer
    return Manner(config, told, seed, more)


def _check_objects(asked: Mapping[str, Any]) -> None:
    """Raise for what is to run between passes and cannot be called."""
    for name, kept in LISTS.items():
        given = asked.get(name)
        if given is None:
            continue
        if not isinstance(given, list | tuple) or not all(map(callable, given)):
            raise MicrotomeError(
                f"{name}= is a list of functions, {kept}, not {glimpse(given)}: put a "
                "function into one."
            )
    allowed = asked.get("prefix_allowed_tokens_fn")
    if allowed is not None and not callable(allowed):
        raise MicrotomeError(f"prefix_allowed_tokens_fn= is a function, not {allowed!r}.")


def check_together(config: GenerationConfig) -> None:
    """Raise for settings with which a text among others would be another one than alone."""
    for name, (idle, why) in TOGETHER.items():
        if getattr(config, name, None) not in (None, idle):
            raise MicrotomeError(f"{name} has no meaning in a batch: {why}. Or say batch=1.")


def streamers_of(asked: Mapping[str, Any], texts: int, batch: int) -> list[Streamer | None]:
    """What takes the tokens of each text as they come.

    Args:
        asked: as `manner_of` takes it; its streamer is one for all texts, or one for each.
        texts: how many there are.
        batch: how many are written together.

    Raises:
        MicrotomeError: there are not as many as texts, or one for texts that are written together;
            or it takes no tokens.
    """
    given = asked.get(STREAMER)
    if isinstance(given, list | tuple):
        if len(given) != texts:
            raise MicrotomeError(
                f"streamer= is one, or one for each prompt: {texts}, not {len(given)}."
            )
    elif given is not None and min(batch, texts) > 1:
        raise MicrotomeError(
            "The tokens of several texts come by turns in a batch: give streamer= a list with one "
            "for each prompt, or say batch=1."
        )
    each = [*given] if isinstance(given, list | tuple) else [given] * texts
    for one in each:
        if not isinstance(one, Streamer | None):
            raise MicrotomeError(
                "streamer= is something with put(tokens) and end(), such as transformers' "
                f"TextStreamer(tokenizer), not {glimpse(one)}."
            )
    return each


def _refuse(config: GenerationConfig, unknown: Mapping[str, Any]) -> None:
    """Raise for names that are no settings, and for ways of generating that no edit is meant in."""
    said = config.to_dict() | dict(unknown)
    mode = str(config.get_generation_mode().value)
    why = "" if mode in MODES else f"its settings ask for {mode.replace('_', ' ')}"
    for name, reason in OTHERWISE.items():
        if said.get(name) not in IDLE:
            why = f"{name} is given, with which {reason}"
    if why:
        raise MicrotomeError(
            f"The model cannot generate so under edits: {why}. Greedy decoding (do_sample=False, "
            "num_beams=1) and sampling (do_sample=True) are possible."
        )
    if unknown:
        name = next(iter(unknown))
        raise MicrotomeError(
            f"generate has no {name}=. It takes the settings of transformers' GenerationConfig "
            f"(do_sample, temperature, top_p, …) and {listing(OBJECTS)}."
            f"{did_you_mean(name, config.to_dict())}"
        )


def _check_drawn(config: GenerationConfig, asked: Mapping[str, Any]) -> None:
    """Raise for settings of what is drawn that would do nothing: where nothing is, or too large."""
    for name, idle in DRAWING.items():
        value = single(asked.get(name))
        if name in SHARES and isinstance(value, int | float) and not 0 <= value <= 1:
            raise MicrotomeError(f"{name} is a share, from 0 to 1, and is {value}.")
        if not config.do_sample and isinstance(value, int | float) and value not in idle:
            raise MicrotomeError(
                f"{name}={value} is of what is drawn, and the likeliest token is taken in each "
                "step: say do_sample=True (on the command line --sample), or leave it out."
            )


def settings_of(config: GenerationConfig, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the tokens: the settings that are not transformers' defaults.

    Args:
        config: what comes of the model's own settings and of what is asked for.
        asked: that; what is None there is none, whatever the default.

    >>> settings_of(GenerationConfig(do_sample=True, top_p=0.9, max_new_tokens=3), {"top_k": None})
    {'do_sample': True, 'max_new_tokens': 3, 'top_k': None, 'top_p': 0.9}
    """
    silent = ("transformers_version", "_from_model_config", "return_dict_in_generate", "max_length")
    said = {name: value for name, value in config.to_diff_dict().items() if value is not None}
    said |= {
        name: None for name in _nothing(asked) if hasattr(config, name) and name not in SOMETHING
    }
    return {
        name: value for name, value in sorted(said.items())
        if name not in silent and not name.startswith("output_")
    }  # fmt: skip


def _nothing(settings: Mapping[str, Any]) -> dict[str, None]:
    """The settings that are asked to be none."""
    return {name: None for name, value in settings.items() if value is None}


def ends(config: GenerationConfig) -> tuple[int, ...]:
    """The tokens that end a text."""
    given = config.eos_token_id
    return () if given is None else tuple([given] if isinstance(given, int) else given)


def _first(token: int | list[int] | None) -> int:
    if isinstance(token, list):
        return token[0] if token else 0
    return token or 0

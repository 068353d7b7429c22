"""Ask questions at random, each in two ways, for so many minutes; say where the answers differ.

::

    python tests/faults/ask_at_random.py SEED [MINUTES] [KIND …]
    python tests/faults/ask_at_random.py SEED --only NUMBER

Questions are of every kind that `random_kinds` has, or of those that are named, on tiny models of
all families. The same seed asks the same; one alone is asked again by its number. It ends with how
often what was refused, and fails where anything was wrong.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of all tests

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

import microtome as mt
from faults.random_kinds import KINDS, Models, RefusedError, Round
from microtome.errors import PromptWarning
from oracles import families

WORDS = 320


def tokenizer() -> PreTrainedTokenizerFast:
    """One whose tokens are words, each the name of its number."""
    words = {f"w{n}": n for n in range(WORDS)} | {"<end>": WORDS, "[MASK]": WORDS + 1}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", mask_token="[MASK]")


def everything(folder: Path) -> Models:
    """Models of all families, each made once."""
    words = tokenizer()

    @functools.cache
    def of(name: str, dtype: torch.dtype, exactly: bool) -> mt.Model:
        hf = families.make(name, len(words)).to(dtype)
        return mt.load(hf.double() if exactly else hf, tokenizer=words)

    @functools.cache
    def placed(name: str) -> tuple[mt.Model, mt.Model]:
        saved = folder / name
        families.make(name, len(words), torch.float32).save_pretrained(saved)
        words.save_pretrained(saved)
        disk = mt.load(saved, device_map={"": "disk"}, offload_folder=folder / f"{name} on disk")
        return disk, mt.load(saved)

    return Models(of=of, placed=placed)


def asked(seed: str, number: int, own: Models, kinds: list[str]) -> tuple[str, Round]:
    """What is asked at some number, and its kind; nothing is asked yet."""
    draw = Random(f"{seed}/{number}")
    some = {kind.__name__: often for kind, often in KINDS.items() if kind.__name__ in kinds}
    return draw.choices([*some], [*some.values()])[0], Round(draw, own)


def answered(kind: str, own: Round) -> str | None:
    """Ask; what was refused, in words.

    Raises:
        Exception: something is wrong.
    """
    [ask] = [one for one in KINDS if one.__name__ == kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptWarning)
        try:
            ask(own)
        except RefusedError as error:
            return str(error)
    return None


def trial(seed: str, numbers: Iterator[int], kinds: list[str], until: float) -> int:
    """Ask till then; how often something was wrong."""
    done, refused, wrong = Counter[str](), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        own = everything(Path(folder))
        for number in numbers:
            kind, one = asked(seed, number, own, kinds)
            try:
                why = answered(kind, one)
            except Exception:
                wrong += 1
                say(f"WRONG: {kind}, seed {seed}, number {number}", *one.told)
                say(traceback.format_exc(limit=-9, chain=False))
            else:
                done[kind] += why is None
                refused[why or ""] += why is not None
            if time.process_time() > until:
                break
    for why, times in refused.most_common(20):
        say(f"refused {times} times: {why}")
    say(f"{number + 1} questions; answered {dict(done)}; wrong {wrong}")
    return wrong


def say(*lines: str) -> None:
    """Write lines, at once."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    read = argparse.ArgumentParser(description="Ask questions at random, each in two ways.")
    read.add_argument("seed")
    read.add_argument("minutes", nargs="?", type=float, default=1.0, help="of a processor")
    read.add_argument("kinds", nargs="*", default=[kind.__name__ for kind in KINDS])
    read.add_argument("--only", type=int, help="the number of one question")
    given = read.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    numbers = count() if given.only is None else iter([given.only])
    sys.exit(trial(given.seed, numbers, given.kinds, 60 * given.minutes) > 0)

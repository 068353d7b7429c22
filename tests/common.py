"""What every test shares: annotations that are executed, tiny models, a tokenizer made here.

`conftest` has it loaded where tests run.

What checks shapes must be there before microtome is imported for the first time, so it is the
first thing that happens in this file.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
import signal

from oracles import typechecker

with typechecker.executed("microtome"):
    gc.disable()  # what is imported and collected stays: a fifth of the time would go into looking

    import microtome as mt

    for module in pkgutil.walk_packages(mt.__path__, "microtome."):
        importlib.import_module(module.name)  # they are resolved on first use, which is too late

import contextlib
import copy
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import torch
import typer
from hypothesis import HealthCheck, settings
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from conftest import BERLIN, CAT, D_MODEL, HEADS, LAYERS, PARIS, POSITIONS, SENTENCES
from microtome import figures
from microtome.errors import LoadError
from microtome.frontends import cli
from microtome.model import cache, files
from microtome.model.anatomy import Anatomy
from microtome.model.code import code_of
from microtome.model.loaded import Loaded
from microtome.model.smollm2 import installed
from microtome.passes.proof import prove
from microtome.studies import Study
from microtome.verbs import load as loading
from microtome.verbs.model import Model
from oracles import families

# A test never fails because the machine was busy. The same examples each time, so that a red run
# can be repeated.
settings.register_profile(
    "microtome",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
settings.load_profile("microtome")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # tensors this small only lose by sharing
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # What a shell starts in the background is deaf to Ctrl-C, and so are its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """A worker begins with test files that no other begins with, and then finds theirs prepared.

    What pytest makes of a file's assertions is kept beside it. In a bare checkout nothing is, and
    workers that go through the same files in step would each make all of it.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not worker.isdigit():
        return
    files = [file for given in session.config.args for file in Path(given).rglob("test_*.py")]
    for file in sorted(files)[int(worker) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]:
        if str(file.parent) not in sys.path:
            sys.path.insert(0, str(file.parent))  # as pytest does it
        # What is wrong with a file is told when it is collected.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(file.stem)


def pytest_collection_finish() -> None:
    # What is imported by now stays, and is not looked through: half a second, each time. The rest
    # is looked through five times less often than by default.
    gc.freeze()
    gc.set_threshold(700, 10, 50)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own, one for all workers; the user's is read and never written."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    own = folder / "microtome"
    own.mkdir(exist_ok=True)
    users = cache.directory()
    for unpacked in users.glob("gguf-*") if users is not None else ():
        if unpacked.is_dir():
            with contextlib.suppress(FileExistsError):  # another worker was here
                (own / unpacked.name).symlink_to(unpacked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.VARIABLE, str(own))
        yield own


@pytest.fixture(scope="session", autouse=True)
def a_model_is_proved_once(own_cache: Path) -> Iterator[None]:
    """The same few are loaded by hundreds of tests that are not about that, in every worker.

    The same are weights, configuration and row of the table, with nothing put on it.
    """

    def once(model: Model) -> None:
        hf, kind = model.hf, type(model.hf)
        told = (kind.__module__, kind.__qualname__, model.hashes, model.dtypes)
        told += (hf.config.to_json_string(), hf.config._attn_implementation)
        whole = repr((*told, code_of([model.anatomy])))
        mark = own_cache / f"tested-{hashlib.sha256(whole.encode()).hexdigest()}"
        if model.additions or not mark.exists():
            prove(model)
            if not model.additions:
                mark.touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "prove", once)
        yield


PLAIN = {"tokenizer", "device", "dtype", "revision"}
"""What a model is read with, where nothing more is passed on to Hugging Face."""


@pytest.fixture(scope="session", autouse=True)
def nano_is_read_once() -> Iterator[None]:
    """Commands and snippets load it by its name, hundreds of times: each gets a copy of its own."""
    own = files.read
    found: dict[str, Loaded] = {}

    def once(name: str, **how) -> Loaded:
        if name != files.NANO or how.keys() != PLAIN or how["tokenizer"] is not None:
            return own(name, **how)
        asked = repr(sorted(how.items()))
        if asked not in found:
            found[asked] = own(name, **how)
        one = found[asked]
        hf = copy.deepcopy(one.hf)
        anatomy = Anatomy.of(hf)
        return replace(one, hf=hf, anatomy=anatomy, tokenizer=copy.deepcopy(one.tokenizer))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "read", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def commands_are_made_once() -> Iterator[None]:
    """Typer makes all of them for each call: a process has one, and tests have hundreds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def each_picture() -> Iterator[Callable[[go.Figure], bytes]]:
    """What draws the pictures of reports, of which those of one kind are drawn once.

    A report has some seven, which take half of a study's time. Each that looks otherwise is drawn
    in `tests/studies/test_catalogues.py`, where this is put back.
    """
    own, drawn = figures.png_of, {}

    def once(figure: go.Figure) -> bytes:
        traces = [trace.to_plotly_json() for trace in figure.data]
        kind = str([[trace.get(key) for key in ("type", "mode", "fill")] for trace in traces])
        if kind not in drawn:
            drawn[kind] = own(figure)
        return drawn[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "png_of", once)
        yield own


@pytest.fixture(scope="session", autouse=True)
def nobody_waits_for_the_disk() -> Iterator[None]:
    """What tests write need not outlast a crash of the machine.

    That everything is flushed, and when, is held by `tests/faults/test_disk.py`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def the_same_chances() -> None:
    """What a test draws without a seed is the same in each run, whatever ran before.

    ``torch.manual_seed`` would keep the stack for a GPU that is not there: a millisecond a test.
    """
    torch.default_generator.manual_seed(0)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every word of the sentences above is one token, space and all."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")
    assert fast.tokenize(BERLIN) == ["Berlin", "Ġis", "Ġthe", "Ġcapital", "Ġof"]
    assert len(fast.tokenize(PARIS)) == 5
    assert len(fast.tokenize(CAT)) == 3
    assert len(fast) < 512
    return fast


@pytest.fixture(scope="session")
def make_gpt2(tokenizer: PreTrainedTokenizerFast) -> Callable[..., GPT2LMHeadModel]:
    """A random GPT-2, none of whose weights or biases is zero or one."""

    def make(seed: int = 0, dtype: torch.dtype = torch.float32, **changes) -> GPT2LMHeadModel:
        sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": D_MODEL, "n_positions": POSITIONS}
        attention = changes.pop("attn_implementation", "sdpa")
        config = GPT2Config(
            vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **{**sizes, **changes}
        )
        config._attn_implementation = attention
        hf = GPT2LMHeadModel(config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in sorted(hf.named_parameters()):
                noise = torch.randn(weight.shape, generator=generator)
                weight.copy_(noise * 0.2 + (1 if ".ln_" in name and "weight" in name else 0))
        return hf.to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def tiny(make_gpt2, tokenizer) -> Model:
    """Three layers, four heads, d_model 32, float32."""
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    return _of_its_size(model, torch.float32)


@pytest.fixture(scope="session")
def tiny64(make_gpt2, tokenizer) -> Model:
    """The same in float64."""
    model = mt.load(make_gpt2(dtype=torch.float64), tokenizer=tokenizer)
    return _of_its_size(model, torch.float64)


def _of_its_size(model: Model, dtype: torch.dtype) -> Model:
    dims = model.anatomy.dims
    assert (dims.n_layers, dims.n_heads, dims.d_model) == (LAYERS, HEADS, D_MODEL)
    assert (len(model.hf.transformer.h), model.dtype) == (LAYERS, dtype)
    assert sum(p.numel() for p in model.hf.parameters()) < 70_000
    return model


@pytest.fixture(scope="session")
def of_family(tokenizer) -> Callable[[str], Model]:
    """A tiny model of a family in float64, loaded once, for tests that leave it as it is."""
    return functools.cache(
        lambda name: mt.load(families.make(name, len(tokenizer)), tokenizer=tokenizer)
    )


@pytest.fixture
def call(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Calls the command line; gives its exit code, output and error output."""

    def calling(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["microtome", *map(str, arguments)])
        monkeypatch.setattr(cli.out, "_width", 200)
        code: int | str | None = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        shown = capsys.readouterr()
        return int(code or 0), shown.out, shown.err

    return calling


@pytest.fixture(scope="session")
def wordpiece() -> PreTrainedTokenizerFast:
    """An uncased WordPiece with [CLS], [SEP] and [MASK], in which a plural is two tokens."""
    words = "pay no attention to that man behind the curtain in front of a dog sat on mat ##s ."
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *words.split()])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    fast = PreTrainedTokenizerFast(tokenizer_object=made, **dict(zip(names, special, strict=True)))
    assert len(fast) == 24
    return fast


@pytest.fixture(scope="session")
def make_bert(wordpiece: PreTrainedTokenizerFast) -> Callable[..., BertForMaskedLM]:
    """A random BERT, none of whose weights or biases is zero or one."""

    def make(seed: int = 0, dtype: torch.dtype = torch.float32, **changes) -> BertForMaskedLM:
        sizes = {
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "hidden_size": D_MODEL,
            "intermediate_size": 40,
            "max_position_embeddings": POSITIONS,
        }
        hf = BertForMaskedLM(BertConfig(vocab_size=len(wordpiece), **{**sizes, **changes}))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in sorted(hf.named_parameters()):
                noise = torch.randn(weight.shape, generator=generator)
                norm = "LayerNorm.weight" in name
                weight.copy_(noise * 0.3 + float(norm))
        assert sum(weight.numel() for weight in hf.parameters()) < 40_000
        return hf.to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def bert64(make_bert, wordpiece) -> Model:
    """Three layers, four heads, d_model 32, float64."""
    return mt.load(make_bert(dtype=torch.float64), tokenizer=wordpiece)


@pytest.fixture(scope="session")
def real_models() -> Path:
    """The folder of real weights and tokenizers that lies beside the checkout in CI."""
    folder = Path(__file__).parents[2] / "shared" / "models"
    if not folder.is_dir():
        pytest.skip("the folder of real models, ../shared/models, is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def gpt2_tokenizer(real_models: Path):
    """GPT-2's own tokenizer."""
    if not (real_models / "gpt2-tokenizer").is_dir():
        pytest.skip("../shared/models/gpt2-tokenizer is not there")
    return AutoTokenizer.from_pretrained(real_models / "gpt2-tokenizer")


@pytest.fixture(scope="session")
def model_of(short, bert64) -> Callable[[Study], Model]:
    """A small model of the kind that a study is for."""
    return lambda study: bert64 if study.masked else short


@pytest.fixture(scope="session")
def nano() -> Model:
    """The embedded model."""
    return mt.load("nano")


@pytest.fixture(scope="session")
def short(nano) -> Model:
    """The first two blocks of the embedded model, which know its words, in a third of the time."""
    hf = copy.deepcopy(nano.hf)
    del hf.transformer.h[2:]
    hf.config.n_layer = 2
    model = mt.load(hf, tokenizer=nano.tokenizer)
    assert model.anatomy.dims.n_layers == 2
    return model


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """A real language model, SmolLM2-135M-Instruct, in float32, where its package is installed."""
    try:
        installed()
    except LoadError as error:
        pytest.skip(str(error))
    return mt.load("smollm2", device="cpu")


@pytest.fixture
def smollm2_is_loaded(smollm2, monkeypatch) -> None:
    """Code that loads it by its name gets the one that is there: to load it takes seconds."""
    load = mt.load
    monkeypatch.setattr(
        mt, "load", lambda *given, **how: smollm2 if given == ("smollm2",) else load(*given, **how)
    )


NEEDLESS = ("gguf", "scipy.stats", "ray")  # pyarrow comes with pandas where there is one
AFRESH = f"""
import sys, microtome as mt
from microtome.alignment import aligned
from microtome.prompts import piece
import microtome.model; assert 'transformers' not in sys.modules
print(aligned.__module__, piece.__module__, mt.model.load.nano_directory().name)
import microtome.frontends.commands.sweeping
print([name for name in {NEEDLESS!r} if name in sys.modules])
from microtome import *
import microtome, pydoc
print(sweep.__module__, set(microtome.__all__) <= set(dir()))
print('open_effects' in pydoc.render_doc(microtome, renderer=pydoc.plaintext))
"""
"""The old names, then what answers a sweep, then everything, in an interpreter of its own."""


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A notebook that a kernel has run: `AFRESH`, and the cells of the first notebook.

    One process for both: to import what imports transformers takes six seconds of a processor.
    """
    nbclient, nbformat = map(importlib.import_module, ("nbclient", "nbformat"))
    notebooks = importlib.import_module("recipes.notebooks")
    script = (notebooks.FOLDER / "first_map.py").read_text(encoding="utf-8")
    made = nbformat.reads(notebooks.notebook(script), as_version=4)
    made.cells.insert(0, nbformat.v4.new_code_cell(AFRESH))
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    where = {"metadata": {"path": str(tmp_path_factory.mktemp("kernel"))}}
    client = nbclient.NotebookClient(made, timeout=300, resources=where)
    client.execute(env={**os.environ, **environment})
    return made

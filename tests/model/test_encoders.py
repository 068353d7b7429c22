"""Encoders with a masked-language head: what is read at the mask, and how a map of them is made."""

from __future__ import annotations

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertForPreTraining,
    BertLMHeadModel,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)
from typer.testing import CliRunner

import microtome as mt
from conftest import LAYERS
from microtome.errors import ArchitectureError, ProbeError, PromptError, TokenError
from microtome.frontends.cli import app
from microtome.model.anatomy import Anatomy
from microtome.model.families.taps import Tap
from microtome.passes.probe import probe
from microtome.plan.plan import make_plan
from microtome.plan.question import ask
from oracles import families as by_hand

CURTAIN = mt.Prompt(
    "Pay no attention to that man [MASK] the curtain", target="behind", contrast="in"
)
MASK, LENGTH = 7, 11
BLOCK = "bert.encoder.layer.{layer}"


@pytest.fixture(scope="module")
def directory(tmp_path_factory, make_bert, wordpiece):
    folder = tmp_path_factory.mktemp("bert")
    make_bert().save_pretrained(folder)
    wordpiece.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def roberta():
    """A byte-level BPE with <mask>, where a word has a token with its space and one without."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<s>", "<pad>", "</s>"],
        show_progress=False,
    )
    made.train_from_iterator([" man behind the curtain", "behind", " man behind the"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>")
    tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True)})
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16}
    config = RobertaConfig(
        vocab_size=len(tokenizer), intermediate_size=16, max_position_embeddings=20, **sizes
    )
    return mt.load(RobertaForMaskedLM(config).eval(), tokenizer=tokenizer)


# ----------------------------------------------------------------------------------- what is loaded


def test_a_saved_directory_loads_with_its_masked_language_head(directory, make_bert):
    model = mt.load(str(directory))
    assert type(model.hf).__name__ == "BertForMaskedLM"
    assert not model.anatomy.dims.causal
    found = model.run(CURTAIN)
    bare = make_bert()(torch.tensor([found.encoded[0].tokens.ids])).logits
    assert torch.equal(found.logits, bare)


def test_an_encoder_with_another_head_or_none_is_refused(make_bert, wordpiece):
    config = make_bert().config
    with pytest.raises(ArchitectureError, match="Load it with AutoModelForMaskedLM"):
        mt.load(BertModel(config).eval(), tokenizer=wordpiece)
    with pytest.raises(ProbeError, match=r"cannot be tapped.*logits"):
        mt.load(BertForPreTraining(config).eval(), tokenizer=wordpiece)


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [("is_decoder", True, "attention is causal"), ("chunk_size_feed_forward", 2, "several times")],
)
def test_a_configuration_of_another_shape_is_refused(make_bert, wordpiece, setting, value, why):
    hf = BertLMHeadModel(make_bert(**{setting: value}).config).eval()
    with pytest.raises(ArchitectureError, match=rf"{setting}={value}: .*{why}"):
        mt.load(hf, tokenizer=wordpiece)


WRONG = {
    # An edit there would reach the MLP and not the residual stream.
    "resid_mid": Tap(f"{BLOCK}.intermediate.dense", "input"),
    # What comes out of these is the stream behind its norm, not what is added.
    "attn_out": Tap(f"{BLOCK}.attention.output", "output"),
    "mlp_out": Tap(f"{BLOCK}.output", "output"),
    "embed": Tap("bert.embeddings.LayerNorm", "input"),
}


@pytest.mark.parametrize("site", WRONG)
def test_a_tap_on_the_wrong_side_of_a_norm_is_found_out(make_bert, site):
    hf = make_bert()
    right = Anatomy.of(hf)
    with pytest.raises(ProbeError, match=site):
        probe(hf, Anatomy(right.family.tapped(**{site: WRONG[site]}), right.dims))


# ------------------------------------------------------------------------------------- at the mask


def test_a_prompt_is_read_at_its_mask(bert64):
    run = bert64.run(CURTAIN)
    [one] = run.encoded
    assert (len(one.tokens), one.tokens.role("mask"), one.tokens.reading) == (LENGTH, MASK, MASK)
    row = run.logits[0, MASK].log_softmax(-1)
    top = run.top(1)
    assert top["id"].tolist() == [int(row.argmax())]
    found = mt.sweep(bert64, CURTAIN, "zero L*.z.h*", metrics=["logprob", "logprob@last"])
    assert found.clean("logprob").item() == pytest.approx(float(row[one.target]))
    last = run.logits[0, -1].log_softmax(-1)
    assert found.clean("logprob@last").item() == pytest.approx(float(last[one.target]))
    at_place = bert64.run(CURTAIN, edits=["zero L1.resid_post@7"]).logits
    assert torch.equal(bert64.run(CURTAIN, edits=["zero L1.resid_post@mask"]).logits, at_place)


def test_without_a_mask_the_last_token_is_read(bert64):
    [one] = bert64.encode("pay no attention")
    assert one.tokens.reading == 4
    with pytest.raises(PromptError, match=r"has no mask: write \[MASK\]"):
        bert64.run("pay no attention", edits=["zero L0.resid_post@mask"])


def test_of_several_masks_one_has_to_be_named(bert64):
    two = mt.Prompt("Pay no [MASK] to that [MASK]", target="man")
    with pytest.raises(PromptError, match=r"has 2 masks, at positions 3, 6.*@3"):
        mt.sweep(bert64, two, "zero L*.resid_post@mask", metrics=["prob@3"])
    with pytest.raises(PromptError, match="has 2 masks"):
        mt.sweep(bert64, two, "zero L*.resid_post", metrics=["prob"])
    assert mt.sweep(bert64, two, "zero L*.resid_post", metrics=["prob@6"]).metrics == ("prob@6",)


def test_a_decoder_has_no_mask(tiny):
    with pytest.raises(PromptError, match="only a masked-language model has the role 'mask'"):
        tiny.run("Berlin is", edits=["zero L0.resid_post@mask"])


def test_a_target_is_one_token_that_the_vocabulary_has(bert64, wordpiece):
    ids = [
        bert64.encode(mt.Prompt(CURTAIN.text, target=t))[0].target for t in ("Behind", " behind")
    ]
    assert ids == [wordpiece.convert_tokens_to_ids("behind")] * 2
    with pytest.raises(TokenError, match=r"'curtains' is not one token.*'##s'"):
        bert64.encode(mt.Prompt(CURTAIN.text, target="curtains"))
    with pytest.raises(TokenError, match=r"'beside' is not in the vocabulary.*\[UNK\]"):
        bert64.encode(mt.Prompt(CURTAIN.text, target="beside"))


def test_a_target_behind_a_space_is_the_token_with_that_space(roberta):
    spaced, bare = (roberta.tokenizer.convert_tokens_to_ids(t) for t in ("Ġbehind", "behind"))
    assert spaced != bare
    for text, target, wanted in [
        (" man <mask> the curtain", "behind", spaced),
        (" man <mask> the curtain", " behind", spaced),
        ("<mask> the curtain", "behind", bare),
        (" man<mask> the", "behind", bare),
    ]:
        [one] = roberta.encode(mt.Prompt(text, target=target))
        assert one.target == wanted, (text, target)


def test_another_tokenizers_mask_is_refused(roberta):
    with pytest.raises(PromptError, match=r"has \[MASK\], and this model's mask is <mask>"):
        roberta.run(" man [MASK] the curtain")


# ------------------------------------------------------------------------------------ the walk


@pytest.mark.parametrize("position", ["@mask", "@*", "", "@{0,-1}"])
@pytest.mark.parametrize("site", ["resid_post", "z.h1", "k", "resid_mid", "mlp_post", "attn_out"])
def test_the_walk_is_the_reference_path_wherever_an_edit_is(bert64, site, position):
    """An edit late in the text changes what earlier positions see, and so the mask."""
    walked, slow = (
        mt.sweep(
            bert64,
            [CURTAIN, mt.Prompt("That dog sat [MASK] the mat", target="on", contrast="in")],
            f"scale(-0.5) L*.{site}{position}",
            metrics=["logit_diff", "kl", "loss@0"],
            engine=engine,
            verify=0,
        )
        for engine in ("walk", "reference")
    )
    for metric in walked.metrics:
        gap = abs(walked.data[metric] - slow.data[metric]).max()
        assert float(gap) <= 1e-9, metric
    assert float(abs(walked.delta("loss@0")).max()) > 1e-3


@pytest.mark.parametrize("family", by_hand.ENCODERS)
def test_an_edit_at_the_end_reaches_positions_before_it(family, of_family):
    """What a causal start would leave at the clean run's values; within ModernBERT's windows."""
    model = of_family(family)
    prompt = mt.Prompt("The cat sat on the mat, and", target=" cat")
    walked, slow = (
        mt.sweep(model, prompt, "zero L0.resid_post@-1", metrics=["kl@4"], engine=e, verify=0)
        for e in ("walk", "reference")
    )
    assert slow.data["kl@4"].item() > 1e-9
    rounding = by_hand.FAMILIES[family].rounding
    assert abs(walked.data["kl@4"].item() - slow.data["kl@4"].item()) <= rounding


def test_metrics_inside_the_model_walk_too(bert64):
    walked, slow = (
        mt.sweep(
            bert64,
            CURTAIN,
            "shuffle L*.resid_post@mask",
            metrics=["kl", "std(L*.resid_post@*)", "distance(L*.z.h*@0)"],
            engine=engine,
            verify=0,
        )
        for engine in ("walk", "reference")
    )
    for metric in walked.metrics:
        assert float(abs(walked.data[metric] - slow.data[metric]).max()) <= 1e-9, metric


def test_the_plan_says_what_the_walk_does_instead(bert64, tiny):
    edit = mt.zero("L*.z.h1@-1")
    plan = make_plan(ask(bert64.anatomy.dims, bert64.encode(CURTAIN), [edit]))
    assert plan.choice.engine == "walk"
    assert "in an encoder every position sees the edited one" in plan.choice.why
    # Whole rows, from each layer on; and those of cells that change nothing.
    idle = plan.cost.token_blocks - LENGTH * sum(range(1, LAYERS + 1))
    assert idle > 0
    assert idle % LENGTH == 0
    effects = mt.sweep(bert64, CURTAIN, edit, metrics=["kl"])
    assert effects.provenance["actual"]["token_blocks"] == plan.cost.token_blocks
    decoders = make_plan(ask(tiny.anatomy.dims, tiny.encode("The cat sat"), [edit]))
    assert "encoder" not in decoders.choice.why


# ----------------------------------------------------------------------------- the command line


def test_the_command_line_takes_a_masked_prompt(directory, tmp_path):
    def ran(*words):
        found = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return " ".join(found.output.split())

    shared = (str(directory), "-p", CURTAIN.text)
    output = ran("run", *shared, "-e", "zero L1.z.h3@mask")
    assert "For [MASK] at position 7" in output
    output = ran("plan", *shared, "-e", "zero L*.z.h*@mask")
    assert "in an encoder every position sees the edited one" in output
    folder = tmp_path / "out"
    options = ("--target", "behind", "-m", "logprob", "-o", str(folder))
    ran("sweep", *shared, "-e", "zero L*.z.h*@mask", *options)
    page = (folder / "report.html").read_text()
    assert "The most probable tokens for [MASK] in" in page

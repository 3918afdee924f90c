"""Foreign checkpoints: tensors and plain values are read, everything else is named and nothing is run."""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from uva_lightning.official.reading import Inert, plain, read

OMEGACONF = Path(__file__).parent / "fixtures" / "omegaconf.pt"  # by torch.save, omegaconf 2.4 and dill 0.4


def saved(value, path):
    torch.save(value, path)
    return path


class TestTensors:
    def test_are_those_that_torch_reads(self, tmp_path):
        base = torch.arange(24.0).reshape(4, 6)
        state = OrderedDict(
            view=base[1:3, ::2],
            transposed=base.T,
            scalar=torch.tensor(3.5),
            empty=torch.empty(0, 3),
            parameter=torch.nn.Parameter(torch.ones(2)),
            **{str(t): torch.arange(5).to(t) for t in (torch.bfloat16, torch.float16, torch.int64, torch.bool)},
        )
        state._metadata = {"": {"version": 1}}
        path = saved({"a": [state, (1, "x", None)], "lr": 1e-4}, tmp_path / "plain.pt")
        expected, found = torch.load(path, weights_only=True), read(path)
        assert not found.skipped
        assert found.values["lr"] == 1e-4
        assert found.values["a"][1] == (1, "x", None)
        for name, tensor in expected["a"][0].items():
            again = found.values["a"][0][name]
            assert again.dtype == tensor.dtype
            assert again.equal(tensor), name

    def test_of_safetensors(self, tmp_path):
        save_file({"a": torch.ones(3)}, tmp_path / "a.safetensors")
        assert read(tmp_path / "a.safetensors").values["a"].equal(torch.ones(3))

    @pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
    def test_outside_their_storage_are_refused(self, tmp_path):
        class Large:
            def __reduce__(self):
                storage = torch.ones(4).storage()
                return torch._utils._rebuild_tensor_v2, (storage, 0, (100, 100), (100, 1), False, OrderedDict())

        class Before(Large):
            def __reduce__(self):
                storage = torch.ones(4).storage()
                return torch._utils._rebuild_tensor_v2, (storage, -8, (2,), (1,), False, OrderedDict())

        for made in (Large(), Before()):
            with pytest.raises(ValueError, match=r"cannot be read as a checkpoint .*does not fit its storage of 4"):
                read(saved({"w": made}, tmp_path / "outside.pt"))


class TestForeignObjects:
    def test_of_an_official_file_are_named_and_their_plain_values_kept(self):
        with pytest.raises(pickle.UnpicklingError):
            torch.load(OMEGACONF, weights_only=True)
        content = read(OMEGACONF)
        assert content.skipped["omegaconf.dictconfig.DictConfig"] == 1
        assert content.values["state_dicts"]["model"]["model.z_proj.weight"].tolist() == [[0, 1], [3, 4]]
        settings = plain(content.values["cfg"])
        assert settings["task"]["shape_meta"]["obs"]["camera0_rgb"]["shape"] == [3, 224, 224]
        assert settings["model"]["policy"]["different_history_freq"] is True
        assert settings["model"]["policy"]["lr"] == 1e-4

    def test_in_a_loop_end(self, tmp_path):
        loop = {"lr": 1}
        loop["again"] = [loop, loop]
        assert plain(read(saved(loop, tmp_path / "loop.pt")).values) == {"lr": 1, "again": [None, None]}

    def test_are_not_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "sprung"),)

        path = saved({"state_dicts": {"model": {"w": torch.ones(2)}}, "pickles": Trap()}, tmp_path / "evil.pt")
        content = read(path)
        assert not (tmp_path / "sprung").exists()
        assert content.values["state_dicts"]["model"]["w"].equal(torch.ones(2))
        assert list(content.skipped) == ["posix.mkdir"]
        torch.load(path, weights_only=False)
        assert (tmp_path / "sprung").exists(), "the trap works"

    def test_called_again_or_filled_stay_inert(self, tmp_path):
        class Chain:
            def __reduce__(self):
                return getattr, (Path(tmp_path), "mkdir")

        content = read(saved([Chain(), defaultdict(list, a=[1]), Counter(b=2), {3}], tmp_path / "odd.pt"))
        assert isinstance(content.values[0], Inert)
        assert content.values[3] == {3}
        assert content.skipped["builtins.getattr"] + content.skipped["__builtin__.getattr"] == 1
        assert content.skipped["collections.defaultdict"] == 1

    def test_cannot_change_how_others_are_read(self, tmp_path):
        """A pickle may set attributes on what it names."""
        text = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x09\x00\x00\x00argumentsK\x01sb0}."
        with zipfile.ZipFile(tmp_path / "set.pt", "w") as file:
            file.writestr("archive/data.pkl", text)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            read(tmp_path / "set.pt")


class TestRefused:
    def test_a_missing_file(self, tmp_path):
        with pytest.raises(ValueError, match=r"There is no file .*lost\.ckpt, expected a checkpoint"):
            read(tmp_path / "lost.ckpt")

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
    def test_a_truncated_file(self, tmp_path, share):
        path = saved({"w": torch.randn(1000)}, tmp_path / "whole.pt")
        content = path.read_bytes()
        (tmp_path / "half.pt").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match=r"half\.pt cannot be read as a checkpoint .*damaged or incomplete"):
            read(tmp_path / "half.pt")

    def test_one_changed_byte_in_a_tensor(self, tmp_path):
        path = saved({"w": torch.full((1000,), 1.25)}, tmp_path / "flipped.pt")
        content = bytearray(path.read_bytes())
        content[content.index(torch.full((4,), 1.25).numpy().tobytes()) + 2000] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"the bytes of '.*/data/0' do not match their checksum"):
            read(path)

    def test_a_half_safetensors_file(self, tmp_path):
        save_file({"a": torch.ones(300)}, tmp_path / "a.safetensors")
        (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:900])
        with pytest.raises(ValueError, match=r"b\.safetensors cannot be read as a checkpoint"):
            read(tmp_path / "b.safetensors")

    def test_whatever_its_pickle_says(self, tmp_path):
        """Any damage is told as a ValueError; nothing else may come out of it."""
        with zipfile.ZipFile(OMEGACONF) as file:
            entries = {name: file.read(name) for name in file.namelist()}
        name = next(name for name in entries if name.endswith("data.pkl"))
        rng, refused = random.Random(0), 0
        for _ in range(200):
            text = bytearray(entries[name])
            text[rng.randrange(len(text))] = rng.randrange(256)
            with zipfile.ZipFile(tmp_path / "odd.pt", "w") as file:
                for entry, content in entries.items():
                    file.writestr(entry, bytes(text) if entry == name else content)
            try:
                read(tmp_path / "odd.pt")
            except ValueError:
                refused += 1
        assert 50 < refused < 200

    @pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half", bytes(range(256))])
    def test_what_is_no_checkpoint(self, tmp_path, content):
        (tmp_path / "odd.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"odd\.pt (is no checkpoint|cannot be read)"):
            read(tmp_path / "odd.pt")

    def test_a_pickle_that_asks_for_all_memory(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "large.pt", "w") as file:
            file.writestr("archive/data.pkl", b"\x80\x02Nr\xff\xff\xff\x7f.")  # object number 2,147,483,647
        with pytest.raises(ValueError, match="it numbers 2147483647 objects in 9 bytes"):
            read(tmp_path / "large.pt")

    def test_the_old_format_says_how_to_convert(self, tmp_path):
        torch.save({"w": torch.ones(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        with pytest.raises(ValueError, match=r"format of torch before 1\.6.*torch\.save\(torch\.load"):
            read(tmp_path / "old.pt")

    def test_a_zip_of_other_things_and_a_compressed_one(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "other.pt", "w") as file:
            file.writestr("readme", "hello")
        with pytest.raises(ValueError, match="a zip file without tensors"):
            read(tmp_path / "other.pt")
        path = saved({"w": torch.ones(9)}, tmp_path / "whole.pt")
        with zipfile.ZipFile(path) as file, zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as packed:
            for name in file.namelist():
                packed.writestr(name, file.read(name))
        with pytest.raises(ValueError, match="is compressed"):
            read(tmp_path / "c.pt")

"""What the importer refuses: one sentence, and nothing is left behind."""

from __future__ import annotations

import resource

import torch


class TestRefused:
    def test_a_truncated_file(self, refused, official_file, tmp_path):
        content = official_file().read_bytes()
        (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
        assert "half.ckpt cannot be read as a checkpoint" in refused(tmp_path / "half.ckpt")

    def test_a_corrupt_file(self, refused, official_file):
        path = official_file()
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
        assert "do not match their checksum" in refused(path)

    def test_something_else(self, refused, tmp_path):
        torch.save({"state_dict": {"layer1.weight": torch.ones(2)}}, tmp_path / "resnet.pt")
        assert "holds 1 tensors, e.g. 'layer1.weight', expected a checkpoint of UVA" in refused(tmp_path / "resnet.pt")

    def test_a_wrong_autoencoder(self, refused, official_file):
        def other(content):
            for state in content["state_dicts"].values():
                state["vae_model.encoder.conv_in.weight"] = torch.ones(64, 3, 3, 3)

        assert "These are not the weights of KL-16" in refused(official_file("pusht", other))

    def test_unknown_tensors(self, refused, official_file):
        def strange(content):
            for state in content["state_dicts"].values():
                state |= {f"model.adapter.{number}": torch.ones(1) for number in range(20)}

        text = refused(official_file("pusht", strange))
        assert "expected at least 90.0%, e.g. 'adapter.0' does not" in text

    def test_shapes_of_another_variant(self, refused, official_file):
        def wide(content):
            for state in content["state_dicts"].values():
                state["model.diffactloss.net.input_proj.weight"] = torch.ones(64, 10)

        text = refused(official_file("pusht", wide))
        assert "1 tensors have another shape than this model" in text
        assert "is [64, 10], expected [64, 2]" in text

    def test_another_variant_than_asked_for(self, refused, official_file):
        text = refused(official_file("libero10"), "--variant", "pusht")
        assert "holds weights of libero10, expected pusht" in text

    def test_widths_that_are_no_known_datas(self, refused, official_file):
        def narrow(content):
            for state in content["state_dicts"].values():
                state["model.proprioception_proj_cond.weight"] = torch.ones(64, 8)

        text = refused(official_file("toolhang", narrow))
        assert "'transformer.streams.proprio.project.1.weight' is [64, 8], expected [64, 9]" in text

    def test_an_incomplete_model(self, refused, official_file):
        def less(content):
            for state in content["state_dicts"].values():
                del state["model.encoder_norm.bias"]

        assert "lacks 1 tensors of its model, e.g. 'transformer.encoder_norm.bias'" in refused(
            official_file("pusht", less)
        )

    def test_a_file_without_averaged_weights(self, refused, official_file):
        path = official_file("pusht", lambda content: content["state_dicts"].pop("ema_model"))
        assert "has no ema_model, only model; give --weights model" in refused(path)

    def test_a_size_whose_attention_heads_nothing_tells(self, uva, official_file, tmp_path):
        status, _, complaint = uva("import-checkpoint", official_file(), "--to", tmp_path / "out")
        assert status == 2
        assert "give --heads N" in complaint

    def test_a_folder_that_is_not_empty(self, uva, official_file, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("precious")
        status, _, complaint = uva("import-checkpoint", official_file(), "--to", tmp_path / "out", "--heads", 4)
        assert status == 2
        assert "exists and is not empty, expected a new folder" in complaint
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]

    def test_a_full_disk_leaves_nothing(self, refused, official_file):
        path = official_file()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            text = refused(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "was not written" in text

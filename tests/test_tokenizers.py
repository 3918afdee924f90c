"""Frozen maps between frames and latent tokens."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from uva_lightning.draws import Draws
from uva_lightning.model.tokenizers.kl_vae import KLVAE
from uva_lightning.model.tokenizers.linear_patches import LinearPatches

PATCH = 4


def frames(count=40, size=12, seed=0):
    """Smooth random pictures: a few waves, so that few components are enough."""
    rng = torch.Generator().manual_seed(seed)
    place = torch.arange(size) / size
    waves = torch.rand(count, 3, 4, generator=rng)
    y, x = place[None, :, None, None], place[None, None, :, None]
    a, b, c, d = waves[:, None, None].unbind(-1)
    return ((0.5 + 0.2 * torch.sin(6 * a * y + 6 * b) + 0.2 * torch.cos(6 * c * x + 6 * d)) * 255).to(torch.uint8)


def mirrored(pictures):
    return pictures.flip(-3, -2).transpose(-3, -2)


def fitted(**options):
    tokenizer = LinearPatches(**{"patch": PATCH, "channels": 24, **options})
    tokenizer.fit(torch.cat([frames(), mirrored(frames())]))
    return tokenizer


class TestLinearPatches:
    @pytest.mark.parametrize("whiten", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("pictures", [frames(5, seed=1), mirrored(frames(5, seed=1))], ids=["recorded", "mirrored"])
    def test_pictures_come_back(self, pictures, whiten):
        tokenizer = fitted(whiten=whiten)
        again = tokenizer.decode(tokenizer.sample(tokenizer.encode(pictures)), pictures.shape[-2])
        assert again.dtype == torch.uint8
        assert again.shape == pictures.shape
        assert (again.int() - pictures.int()).abs().float().mean() < 2.0
        assert (again.int() - pictures.flip(1).int()).abs().float().mean() > 10.0

    def test_all_components_give_every_picture_back(self):
        noise = torch.randint(0, 256, (300, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        tokenizer = LinearPatches(patch=2, channels=12)
        tokenizer.fit(noise)
        assert tokenizer.decode(tokenizer.encode(mirrored(noise)), noise.shape[-2]).equal(mirrored(noise))

    def test_leading_axes_are_kept(self):
        tokenizer, pictures = fitted(), frames(6).view(2, 3, 12, 12, 3)
        latents = tokenizer.encode(pictures)
        assert latents.shape == (2, 3, 9, 24)
        assert torch.allclose(latents[1, 2], tokenizer.encode(pictures[1, 2]), atol=1e-4)
        assert tokenizer.decode(latents, pictures.shape[-2]).shape == pictures.shape

    def test_tokens_are_places_row_by_row(self):
        tokenizer, plain = fitted(), frames(1)
        changed = plain.clone()
        changed[0, 0:4, 8:12] = 255  # first row, third column
        different = (tokenizer.encode(plain) - tokenizer.encode(changed)).abs().sum(dim=-1)[0] > 1e-3
        assert different.nonzero().flatten().tolist() == [2]

    def test_the_latents_have_variance_one_where_asked(self):
        pictures = torch.cat([frames(), mirrored(frames())])
        white = fitted(whiten=1.0, channels=4).encode(pictures).flatten(0, 1)
        assert white.var(dim=0) == pytest.approx(1.0, rel=0.02)
        raw = fitted(whiten=0.0, channels=4).encode(pictures).flatten(0, 1).var(dim=0)
        assert raw.mean() == pytest.approx(1.0, rel=0.02)
        assert raw[0] > 2 * raw[-1]

    def test_the_state_makes_an_equal_one(self):
        tokenizer, other = fitted(), LinearPatches(patch=PATCH, channels=24)
        assert not other.fitted
        other.load_state(tokenizer.state())
        assert other.fitted
        assert other.encode(frames(3)).equal(tokenizer.encode(frames(3)))
        assert other.fingerprint() == tokenizer.fingerprint()

    def test_other_weights_have_another_fingerprint(self):
        other = LinearPatches(patch=PATCH, channels=24)
        other.fit(frames(seed=5))
        assert other.fingerprint() != fitted().fingerprint()

    def test_a_state_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match=r"basis of \(48, 24\), expected \(48, 8\)"):
            LinearPatches(patch=PATCH, channels=8).load_state(fitted().state())

    def test_frames_that_do_not_divide_are_refused(self):
        with pytest.raises(ValueError, match="Frames of 13 px do not divide into patches of 4 px"):
            fitted().grid(13)
        with pytest.raises(ValueError, match="Frames of 13 px"):
            fitted().encode(torch.zeros(1, 13, 13, 3, dtype=torch.uint8))

    def test_an_unfitted_one_says_so(self):
        with pytest.raises(ValueError, match="no basis yet; fit it"):
            LinearPatches(patch=PATCH, channels=8).encode(frames(1))
        with pytest.raises(ValueError, match="no basis yet; fit it"):
            LinearPatches(patch=PATCH, channels=8).decode(torch.zeros(1, 9, 8), 3 * PATCH)

    @pytest.mark.parametrize("options", [{"channels": 0}, {"channels": 49}, {"whiten": 1.5}])
    def test_impossible_options_are_refused(self, options):
        with pytest.raises(ValueError, match="expected 1 to 48|whiten is an exponent"):
            LinearPatches(**{"patch": PATCH, "channels": 8, **options})

    def test_a_grid_fits_pictures_of_any_size_that_it_divides(self):
        for side in (3, 6):
            tokenizer, other = (LinearPatches(channels=12, grid=3) for _ in range(2))
            picture = frames()[:, : 2 * side, : 2 * side]
            tokenizer.fit(picture)
            assert tokenizer.grid(2 * side) == (3, 3)
            assert tokenizer.encode(picture).shape == (len(picture), 9, 12)
            assert tokenizer.decode(tokenizer.encode(picture), 2 * side).shape == picture.shape
            other.load_state(tokenizer.state())
            assert other.encode(picture).equal(tokenizer.encode(picture))
        with pytest.raises(ValueError, match="Frames of 13 px do not divide into 3 columns; set grid"):
            tokenizer.grid(13)
        with pytest.raises(ValueError, match="channels is 13, expected 1 to 12, the numbers in a 2 px patch"):
            LinearPatches(channels=13, grid=3).fit(frames()[:, :6, :6])

    def test_a_copy_of_the_model_shares_it(self):
        tokenizer = fitted()
        assert copy.deepcopy({"tokenizer": tokenizer})["tokenizer"] is tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random autoencoder of two levels, written as diffusers writes the real one."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=3,
    ).save_pretrained(folder)
    return folder


class TestKLVAE:
    def test_sizes_follow_from_the_file(self, folder):
        tokenizer = KLVAE(folder, image_size=8)
        assert (tokenizer.channels, tokenizer.grid(96), tokenizer.fitted) == (3, (4, 4), True)

    def test_frames_of_any_size_become_mean_and_variance(self, folder):
        tokenizer = KLVAE(folder, image_size=8)
        moments = tokenizer.encode(frames(40, size=12).view(4, 10, 12, 12, 3))
        assert moments.shape == (4, 10, 16, 6)
        assert moments[3, 9] == pytest.approx(tokenizer.encode(frames(40, size=12)[39:])[0].numpy(), abs=1e-4)

    def test_the_latents_are_the_scaled_posterior_of_diffusers(self, folder):
        tokenizer, pictures = KLVAE(folder, image_size=8, scale=0.5), frames(2, size=8)
        posterior = tokenizer.vae.encode(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
        moments = tokenizer.encode(pictures)
        mean = posterior.mean.flatten(2).transpose(1, 2)
        assert torch.allclose(tokenizer.sample(moments), 0.5 * mean, atol=1e-6)

        normal = partial(Draws(0, 0, torch.arange(2000)).normal, "latents")
        drawn = tokenizer.sample(moments.expand(2000, 2, 16, 6), normal)
        std = posterior.std.flatten(2).transpose(1, 2)
        assert torch.allclose(drawn.std(dim=0), 0.5 * std, rtol=0.1)
        assert torch.allclose(drawn.mean(dim=0), 0.5 * mean, atol=0.1)

    def test_a_posterior_that_is_sampled_draws_anew_and_repeats_with_the_seed(self, folder):
        tokenizer, moments = KLVAE(folder, image_size=8, posterior="always"), torch.randn(2, 16, 6)
        torch.manual_seed(3)
        drawn = tokenizer.sample(moments)
        assert not tokenizer.sample(moments).equal(drawn)
        torch.manual_seed(3)
        assert tokenizer.sample(moments).equal(drawn)
        torch.manual_seed(3)
        assert drawn.equal(tokenizer.draw(moments, torch.randn(2, 16, 3)))
        assert KLVAE(folder, image_size=8).sample(moments).equal(tokenizer.draw(moments))

    def test_a_mean_posterior_is_the_mean_for_losses_too(self, folder):
        moments, normal = torch.randn(2, 16, 6), partial(Draws(0, 0, torch.arange(2)).normal, "latents")
        mean = KLVAE(folder, image_size=8, posterior="mean")
        assert mean.sample(moments, normal).equal(mean.draw(moments))
        assert not KLVAE(folder, image_size=8).sample(moments, normal).equal(mean.draw(moments))

    def test_extreme_variances_are_clamped(self, folder):
        moments = torch.tensor([[0.0, 0.0, 0.0, 100.0, -100.0, 20.0]])
        drawn = KLVAE(folder, image_size=8, scale=1.0).draw(moments, torch.ones(1, 3))
        assert drawn[0].tolist() == pytest.approx([torch.e**10, torch.e**-15, torch.e**10])

    def test_frames_are_resized_without_antialiasing(self, folder):
        tokenizer, pictures = KLVAE(folder, image_size=8), frames(2, size=20)
        resized = torch.nn.functional.interpolate(
            pictures.permute(0, 3, 1, 2).float(), (8, 8), mode="bilinear", align_corners=False, antialias=False
        )
        expected = tokenizer.vae.encode(resized / 127.5 - 1).latent_dist.parameters.flatten(2).transpose(1, 2)
        assert torch.allclose(tokenizer.encode(pictures), expected, atol=1e-5)

    def test_decoding_takes_the_latents_to_the_vaes_pictures(self, folder):
        tokenizer = KLVAE(folder, image_size=8, scale=0.5)
        latents = torch.randn(2, 20, 16, 3)
        pictures = tokenizer.decode(latents, tokenizer.image_size)
        assert pictures.shape == (2, 20, 8, 8, 3)
        z = (latents[1, 7] / 0.5).T.view(1, 3, 4, 4)
        expected = ((tokenizer.vae.decode(z).sample + 1) * 127.5).round().clamp(0, 255)[0].permute(1, 2, 0)
        assert (pictures[1, 7].float() - expected).abs().max() <= 1

    def test_no_weight_of_it_is_trained_or_stored(self, folder):
        tokenizer = KLVAE(folder, image_size=8)
        assert not any(p.requires_grad for p in tokenizer.vae.parameters())
        assert tokenizer.state() == {}

    def test_the_fingerprint_follows_weights_and_settings(self, folder):
        tokenizer, same, scaled = KLVAE(folder, 8), KLVAE(folder, 8), KLVAE(folder, 8, scale=1.0)
        assert tokenizer.fingerprint() == same.fingerprint() != scaled.fingerprint()
        same.vae.decoder.conv_in.bias.data += 1
        assert tokenizer.fingerprint() != same.fingerprint()

    def test_a_folder_without_one_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"is no autoencoder: config\.json is missing"):
            KLVAE(tmp_path / "nothing")

    def test_an_unknown_posterior_is_refused(self, folder):
        with pytest.raises(ValueError, match="posterior of the KLVAE is 'mode', expected 'sample', 'mean' or 'always'"):
            KLVAE(folder, posterior="mode")

    def test_a_size_that_does_not_divide_is_refused(self, folder):
        with pytest.raises(ValueError, match="image_size of the KLVAE is 9, expected a multiple of 2"):
            KLVAE(folder, image_size=9).grid(9)

"""The many-view network against the published program's numbers, and its own laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.network.many_view.backbone import Encoded, Masking
from dyn3r.network.many_view.many_view_network import Views
from dyn3r.network.many_view.reference_view import choose_reference
from dyn3r.network.many_view.view_cameras import (
    decode_cameras,
    encode_cameras,
    normalise_cameras,
)
from dyn3r.network.many_view.view_images import normalised, prepare_views

from .golden_many_view import GOLDEN, golden_many_view, golden_views, tiny_weights

PREPARED = [key.split("|")[1:4] for key in GOLDEN.files if key.endswith("|shape")]


def close(ours: torch.Tensor | np.ndarray, name: str, tolerance: float = 1e-4) -> None:
    """Relative, in the Frobenius norm."""
    golden, ours = GOLDEN[name], np.asarray(ours)
    assert ours.shape == golden.shape, name
    error = np.linalg.norm(ours - golden) / np.linalg.norm(golden)
    assert error < tolerance, (name, error)


def agrees(views: Views, prefix: str, size_hw: tuple[int, int]) -> None:
    """Compare everything that the golden file has of a case; its maps are every third pixel."""
    T, K = decode_cameras(views.code, size_hw)
    ours = {
        "depth": views.maps.depth[:, ::3, ::3],
        "depth_conf": views.maps.confidence[:, ::3, ::3],
        "ray": views.maps.rays[:, ::3, ::3],
        "ray_conf": views.maps.ray_confidence[:, ::3, ::3],
        "pose_enc": views.code,
        "extrinsics": torch.linalg.inv(T)[:, :3],
        "intrinsics": K,
    }
    there = [name for name in ours if f"{prefix}|{name}" in GOLDEN]
    assert {"depth", "pose_enc"} <= set(there)
    for name in there:
        close(ours[name], f"{prefix}|{name}")
    if f"{prefix}|reference" in GOLDEN:
        assert views.reference == int(GOLDEN[f"{prefix}|reference"][0])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_views_agree_with_golden(count: int) -> None:
    views = golden_many_view()(golden_views(count=count), rays=True)
    agrees(views, f"v{count}", (70, 98))


def test_tall_views_agree_with_golden() -> None:
    agrees(golden_many_view()(golden_views("images_tall"), rays=True), "tall", (84, 56))


@pytest.mark.parametrize("choice", ["first", "middle"])
def test_other_reference_views_agree_with_golden(choice: str) -> None:
    views = golden_many_view()(golden_views(), reference=choice, rays=True)
    agrees(views, f"v3_{choice}", (70, 98))


def test_given_cameras_agree_with_golden() -> None:
    E, K = (torch.from_numpy(GOLDEN[f"posed|input_{n}"]) for n in ("extrinsics", "intrinsics"))
    T = normalise_cameras(torch.linalg.inv(E))
    close(torch.linalg.inv(T), "posed|normalized_extrinsics")
    network, code = golden_many_view(), encode_cameras(T, K, (70, 98))
    close(code, "posed|camera_encoding")
    close(network.cam_enc(code), "posed|camera_token")
    agrees(network(golden_views(), camera_code=code, rays=True), "posed", (70, 98))


def test_small_numbers_show_the_epsilons() -> None:
    """The norms' epsilons change the output only where what they normalise is small."""

    def is_scaled(name: str) -> bool:
        of_backbone = ".backbone.pretrained." in name and ".attn.qkv." in name
        return name.endswith(("_token", "pos_embed")) or ".patch_embed." in name or of_backbone

    weights = {n: 0.002 * t if is_scaled(n) else t for n, t in tiny_weights().items()}
    views = golden_many_view(weights)(golden_views(), reference="first", rays=True)
    agrees(views, "eps", (70, 98))


@pytest.mark.parametrize("grid", [(5, 7), (20, 36), (36, 20), (37, 37), (27, 48)])
def test_position_codes_agree_with_golden(grid: tuple[int, int]) -> None:
    codes = golden_many_view().backbone.pretrained.position_codes(grid)[0]
    every = max(1, (grid[0] * grid[1] + 1) // 40)
    close(codes[::every], f"pos|{grid[0]}x{grid[1]}")


@pytest.mark.parametrize("choice", ["first", "middle", "saddle_balanced"])
def test_reference_views_agree_with_golden(choice: str) -> None:
    tokens = torch.from_numpy(GOLDEN["select|class_tokens"])
    found = [choose_reference(tokens[:count], choice) for count in (3, 5, 8, 12)]
    assert found == GOLDEN[f"select|{choice}"].tolist()


def test_an_unknown_reference_is_refused() -> None:
    with pytest.raises(InputError, match="saddle_balanced, middle, first"):
        choose_reference(torch.ones(3, 4), "last")


def test_camera_codes_agree_with_golden() -> None:
    """The last field of view is 0: its focal length is huge but finite."""
    T, K = decode_cameras(torch.from_numpy(GOLDEN["enc|pose_enc"]), (280, 504))
    close(T[:, :3], "enc|c2w")
    close(torch.linalg.inv(T)[:, :3], "enc|extrinsics")
    close(K, "enc|intrinsics")
    assert K[-1, 0, 0] > 1e7


def test_camera_codes_come_back() -> None:
    torch.manual_seed(0)
    code = torch.cat([torch.randn(9, 7), torch.rand(9, 2) + 0.2], dim=-1).double()
    T, K = decode_cameras(code, (280, 504))
    back = encode_cameras(T, K, (280, 504))
    assert (back[:, 6] >= 0).all()
    torch.testing.assert_close(back[:, 3:7].norm(dim=-1), torch.ones(9).double())
    T2, K2 = decode_cameras(back, (280, 504))
    torch.testing.assert_close(T2, T)
    torch.testing.assert_close(K2, K)


@pytest.mark.parametrize(("size", "method", "resolution"), PREPARED)
def test_prepared_images_agree_with_golden(size: str, method: str, resolution: str) -> None:
    prefix, (w, h) = f"prep|{size}|{method}|{resolution}", map(int, size.split("x"))
    seed = Image.fromarray(GOLDEN[f"prep|{size}|seed"])
    image = np.asarray(seed.resize((w, h), Image.Resampling.BICUBIC))
    views = prepare_views([image], int(resolution), method)  # type: ignore[arg-type]
    assert views.images.shape[1:3] == tuple(GOLDEN[f"{prefix}|shape"])
    close(normalised(views.images)[0, :, ::16, ::16], f"{prefix}|sub", 1e-3)
    K = np.array([[0.9 * w, 0, w / 2 + 3], [0, 0.95 * w, h / 2 - 2], [0, 0, 1]])
    close(views.K_from_source(K[None])[0], f"{prefix}|K", 1e-6)


def test_images_of_different_sizes_are_cropped_about_their_centres() -> None:
    wide, tall = np.zeros((280, 504, 3), np.uint8), np.zeros((504, 280, 3), np.uint8)
    wide[140, 252] = 255
    tall[252, 140] = 255
    views = prepare_views([wide, tall])
    assert views.images.shape == (2, 280, 280, 3)
    np.testing.assert_array_equal(views.images[:, 140, 140], 255)
    K = np.tile(np.array([[400.0, 0, 252], [0, 400, 140], [0, 0, 1]]), (2, 1, 1))
    np.testing.assert_array_equal(views.K_from_source(K)[0, :2, 2], [140, 140])
    with pytest.raises(InputError, match="at least one"):
        prepare_views([])
    with pytest.raises(InputError, match="too elongated"):
        prepare_views([np.zeros((10, 1000, 3), np.uint8)], method="upper_bound_crop")


def test_permuted_views_permute_the_outputs() -> None:
    """A law of the network with three or more views: the reference is found, wherever it is."""
    network, images, order = golden_many_view(), golden_views(), [1, 2, 0]
    plain, permuted = network(images), network(images[order])
    assert order[permuted.reference] == plain.reference
    depth = plain.maps.depth[order]
    torch.testing.assert_close(permuted.maps.depth, depth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(permuted.code, plain.code[order], rtol=1e-4, atol=1e-4)


def test_parts_processed_at_once_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = golden_many_view(), golden_views()
    whole = network(images, rays=True)
    monkeypatch.setattr("dyn3r.network.many_view.backbone.TOKENS_AT_ONCE", 50)
    parts = network(images, rays=True, views_at_once=1)
    torch.testing.assert_close(parts.maps.depth, whole.maps.depth, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.maps.rays, whole.maps.rays, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts.code, whole.code, rtol=1e-5, atol=1e-5)


def test_masked_tokens_reach_no_other_token() -> None:
    """Whatever a masked patch holds after the encoder, others are the same if it is never a key."""
    network, images = golden_many_view(), golden_views()
    keep = torch.ones(3, 36, dtype=torch.bool)
    keep[1, 1:9] = False
    encoded = network.encode(images, "first")
    tokens = torch.where(keep[..., None], encoded.tokens, 0.5)
    changed = replace(encoded, tokens=tokens)

    def last(state: Encoded, layers: tuple[int, ...]) -> torch.Tensor:
        masking = Masking(keep, layers)
        return network.features(images, "first", masking=masking, encoded=state).dense[3]

    plain, other = (last(state, tuple(range(10))) for state in (encoded, changed))
    others = keep[:, 1:]
    torch.testing.assert_close(other[others], plain[others], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(other[~others], plain[~others], rtol=1e-2)
    plain, other = (last(state, (2, 3)) for state in (encoded, changed))
    assert not torch.allclose(other[others], plain[others], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("reference", ["saddle_balanced", "first"])
def test_a_second_pass_from_the_kept_state_is_the_whole_pass(reference: str) -> None:
    network, images = golden_many_view(), golden_views()
    whole = network.features(images, reference)
    again = network.features(images, reference, encoded=network.encode(images, reference))
    assert again.reference == whole.reference
    for one, two in zip((*whole.dense, whole.camera), (*again.dense, again.camera)):
        assert torch.equal(one, two)


def test_nothing_masked_changes_nothing() -> None:
    network, images = golden_many_view(), golden_views()
    masking = Masking(torch.ones(3, 36, dtype=torch.bool), tuple(range(10)))
    plain = network.features(images, "saddle_balanced").dense[3]
    same = network.features(images, "saddle_balanced", masking=masking).dense[3]
    torch.testing.assert_close(same, plain, rtol=1e-5, atol=1e-5)

"""How many parameters every model has that somebody published or counted."""

from typing import Any

import pytest

from convmixer_jax.models.blocks import BLOCKS
from convmixer_jax.models.heads import HEADS
from convmixer_jax.models.norms import NORMS
from convmixer_jax.models.variants import VARIANTS
from convmixer_jax.presets import PRESETS
from tests.models.building import build, count

# Trainable parameters by image side and classes. The first three are timm's and the authors' README's, the fourth the
# project's plan's; those for CIFAR-10 were counted in timm's model of that shape.
PRESET_COUNTS = {
    "convmixer_1536_20": (224, 1000, 51_625_960),
    "convmixer_768_32": (224, 1000, 21_110_248),
    "convmixer_1024_20_ks9_p14": (224, 1000, 24_383_464),
    "convmixer_512_16": (224, 1000, 5_357_544),
    "convmixer_256_8_p1_k9": (32, 10, 706_570),
    "convmixer_256_8_p1_k7": (32, 10, 641_034),
    "convmixer_256_8_p1_k3": (32, 10, 559_114),
    "convmixer_256_8_p2_k5": (32, 10, 594_186),
    "convmixer_256_8_p2_k9": (32, 10, 708_874),
    "convmixer_256_8_p4_k9": (32, 10, 718_090),
    "convmixer_128_4_p1_k8": (32, 10, 103_434),
    "convmixer_128_8_p1_k8": (32, 10, 204_810),
    "convmixer_256_4_p1_k8": (32, 10, 337_930),
    "convmixer_256_16_p1_k8": (32, 10, 1_339_402),
}

REPORT_E: dict[str, Any] = {"dim": 128, "layer_scale": 1.0, "num_classes": 200}
# The other variants: settings, image side, then trainable parameters and statistics: those of the reports.
VARIANT_COUNTS: dict[str, tuple[dict[str, Any], int, int, int]] = {
    "staged": (REPORT_E, 64, 2_628_584, 16_128),  # report E: 2,644,712 in all
    "cnn": ({}, 32, 620_362, 0),  # report A's "about 620 K"
}

# Report B's model, 256/8 with patch 2 and kernel 5, and by hand what another choice adds to it.
REPORT_B: dict[str, Any] = {"dim": 256, "depth": 8, "patch_size": 2, "kernel_size": 5}
NORM = 2 * 256
CHANGES: list[tuple[dict[str, Any], int, int]] = [
    # Two norms and two layers of 256 to 256 before a classifier of the same size.
    ({"head": "representation"}, 2 * NORM + 2 * (256 * 256 + 256), 0),
    ({"head": "bn_dropout"}, NORM, NORM),
    # 256 to 128 and back with biases and norms, and a depthwise of half the channels: kernel, bias, norm.
    (
        {"block": "bottleneck"},
        8 * (256 * 128 + 3 * 128 + 128 * 256 + 3 * 256 - 128 * (25 + 3)),
        8 * (2 * 128 + NORM - 2 * 128),
    ),
    ({"block": "bottleneck", "bottleneck_factor": 4}, 8 * (2 * 256 * 64 + 3 * 64 + 3 * 256 - 192 * (25 + 3)), 8 * 256),
    ({"norm": "layer"}, 0, -17 * NORM),
    ({"layer_scale": 0.1}, 8 * 256, 0),
]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_published_count(name):
    side, classes, expected = PRESET_COUNTS[name]
    model = build(**PRESETS[name], num_classes=classes)
    assert count(model, (side, side, 3)) == expected
    # Two moments of every channel that is normalised: after the stem, and twice in a block.
    assert count(model, (side, side, 3), "batch_stats") == 2 * (1 + 2 * model.depth) * model.dim


@pytest.mark.parametrize("name", VARIANT_COUNTS)
def test_a_variant_has_the_reports_count(name):
    settings, side, parameters, statistics = VARIANT_COUNTS[name]
    model = build(name, **settings)
    assert count(model, (side, side, 3)) == parameters
    assert count(model, (side, side, 3), "batch_stats") == statistics


@pytest.mark.parametrize("settings, parameters, statistics", CHANGES, ids=lambda value: str(value))
def test_a_choice_adds_what_it_should(settings, parameters, statistics):
    model = build(**REPORT_B, **settings)
    assert count(model, (32, 32, 3)) == 594_186 + parameters
    assert count(model, (32, 32, 3), "batch_stats") == 17 * NORM + statistics


def test_every_row_of_the_tables_is_counted():
    assert set(VARIANT_COUNTS) | {"convmixer"} == set(VARIANTS)
    for field, table in {"head": HEADS, "block": BLOCKS, "norm": NORMS}.items():
        assert {build().__getattribute__(field)} | {change[field] for change, *_ in CHANGES if field in change} == set(
            table
        )

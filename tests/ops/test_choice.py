"""Which implementation runs: what choices.json says, the reference where that one cannot, one line for a mistake."""

import dataclasses
import json

import pytest

from convmixer_jax.config import get_base
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.errors import UserError
from convmixer_jax.ops import choice
from convmixer_jax.ops.channel_major import CPU_OPTIONS, ChannelMajor
from convmixer_jax.ops.channels_last import ChannelsLast
from convmixer_jax.ops.choice import (
    CHOICES,
    OPS,
    Case,
    choose,
    compiler_options,
    lacks,
    loops_well,
    quickest,
    read_choices,
)
from convmixer_jax.ops.depthwise.implementations import IMPLEMENTATIONS
from convmixer_jax.ops.native.layout import LARGEST_KERNEL
from convmixer_jax.ops.native.library import lacking
from convmixer_jax.training.assembly import choose_ops
from convmixer_jax.training.mesh import make_mesh

PLATFORMS = ("cpu", "gpu", "tpu")
CASE = Case("cpu", "float32", kernel_size=5, map_size=(16, 16))


@pytest.fixture
def table(monkeypatch):
    """Puts a table in the place of the measured one."""
    measured = {
        "cpu": {"float32": {"3": "shifted", "5": "channel_major", "9": "lax"}},
        "gpu": {"bfloat16": {"7": "pallas"}},
    }
    monkeypatch.setattr(choice, "read_choices", lambda: measured)


# Kernel size to what is taken: of sizes that are as near, the smaller.
NEAREST = {1: "shifted", 3: "shifted", 4: "shifted", 5: "channel_major", 7: "channel_major", 8: "lax", 31: "lax"}


@pytest.mark.parametrize("kernel_size, name", NEAREST.items())
def test_auto_takes_the_row_of_the_nearest_kernel(table, kernel_size, name):
    case = dataclasses.replace(CASE, kernel_size=kernel_size)
    assert quickest(case) == name
    assert choose("auto", case) == (name, None)


@pytest.mark.parametrize("changes", [{"platform": "tpu"}, {"dtype": "bfloat16"}, {"platform": "gpu"}])
def test_auto_takes_the_reference_where_nothing_was_measured(table, changes):
    assert choose("auto", dataclasses.replace(CASE, **changes)) == ("reference", None)


def test_what_a_shape_lacks_takes_the_reference_and_says_why(table):
    case = Case("gpu", "bfloat16", kernel_size=7, map_size=(32, 32))
    assert choose("auto", case) == choose("pallas", case) == ("pallas", None)
    large = dataclasses.replace(case, kernel_size=31)
    for wanted in ("auto", "pallas"):
        taken, why = choose(wanted, large)
        assert taken == "reference"
        assert why is not None
        assert why.startswith("pallas: a 31x31 kernel")
        assert "\n" not in why


def test_an_implementation_that_the_platform_lacks_is_a_mistake():
    with pytest.raises(UserError) as raised:
        choose("pallas", CASE)
    line = str(raised.value)
    assert line.startswith("config.model.ops is 'pallas': ")
    assert "this platform is cpu, take 'auto' or 'reference', which run everywhere" in line


def test_auto_never_is_one(monkeypatch):
    # A table from a machine with another release of a library may name what this one lacks.
    monkeypatch.setattr(choice, "read_choices", lambda: {"cpu": {"float32": {"5": "pallas"}}})
    taken, why = choose("auto", CASE)
    assert taken == "reference"
    assert why is not None
    assert why.startswith("pallas: ")


def test_an_unknown_name_is_a_mistake():
    with pytest.raises(UserError) as raised:
        choose("channel_mayor", CASE)
    line = str(raised.value)
    assert line.startswith("config.model.ops is 'channel_mayor' (did you mean channel_major?)")
    assert all(name in line for name in ("auto", *OPS))


def test_every_implementation_is_a_row():
    assert list(OPS)[:3] == ["reference", "channel_major", "native"]
    assert {name: row.convolution for name, row in OPS.items() if isinstance(row, ChannelsLast)} == IMPLEMENTATIONS
    assert [name for name, row in OPS.items() if isinstance(row, ChannelMajor)] == ["channel_major", "native"]


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", [name for name in OPS if name not in ("native", "pallas")])
def test_all_but_the_compiled_rows_can_do_every_shape(name, platform):
    assert lacks(name, Case(platform, "bfloat16", 31, (224, 224))) is None
    assert choose(name, Case(platform, "bfloat16", 31, (224, 224))) == (name, None)


def test_the_table_names_rows_that_the_platforms_have():
    written = json.loads(CHOICES.read_text())
    assert set(written) == {"note", "choices"}
    assert "benchmark ops --write" in written["note"]
    choices = read_choices()
    assert choices == written["choices"]
    assert set(choices) <= set(PLATFORMS)
    for platform, by_dtype in choices.items():
        for dtype, by_size in by_dtype.items():
            for size, name in by_size.items():
                # Whether there is a compiler is another matter.
                why = lacks(name, Case(platform, dtype, int(size), (32, 32)))
                assert why is None or (name == "native" and why == lacking())


def test_a_cpu_without_a_gpu_or_tpu_is_quick_in_both_dtypes():
    """Else a run of a CPU's users would be ten times slower without a word."""
    for dtype in ("float32", "bfloat16"):
        for kernel_size in range(1, 16):
            case = dataclasses.replace(CASE, dtype=dtype, kernel_size=kernel_size)
            taken, why = choose("auto", case)
            assert taken == ("native" if lacking() is None and kernel_size <= LARGEST_KERNEL else "channel_major")
            assert (why is None) == (taken == "native")


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_options_of_the_compiler_and_quick_loops_are_for_the_layout_of_one_platform(name, platform):
    for_cpus = name in ("channel_major", "native")
    wanted = CPU_OPTIONS if for_cpus and platform == "cpu" else {}
    assert compiler_options(name, platform) == wanted
    assert loops_well(name, platform) == (platform != "cpu" or for_cpus)


def test_the_case_of_a_run():
    """Images of 32 x 32 in patches of 2, and of 5, which leaves pixels over."""
    config = get_base()
    config.model.ops = "pallas"
    config.dtype = "bfloat16"
    seen = []

    def noted(name, case):
        seen.append((name, case))
        return "reference", None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convmixer_jax.models.variants.choose", noted)
        for patch_size in (2, 5):
            config.model.patch_size = patch_size
            choose_ops(config, DATASETS["cifar10"], make_mesh(1))
    case = Case("cpu", "bfloat16", config.model.kernel_size, (16, 16))
    assert seen == [("pallas", case), ("pallas", dataclasses.replace(case, map_size=(6, 6)))]

"""An update that does not fit is refused with changes that would make it fit, by hand-made numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.training.capacity import (
    Need,
    Request,
    check_fits,
    evaluation_mistakes,
    loading_mistakes,
    program_need,
    update_mistakes,
)

# 512 examples of 8 blocks, with maps of 0.1 GB for all of them: 40 maps are held for the backward pass.
NEED = Need(held=200_000_000, temporary=4_000_000_000)


def request(accumulate_steps: int = 1, per_device: int = 512, remat: bool | None = False) -> Request:
    return Request(
        batch_size=512,
        accumulate_steps=accumulate_steps,
        per_device=per_device,
        data_bytes=0,
        depth=8,
        params_bytes=100_000_000,
        map_bytes=100_000_000 // per_device,
        remat=remat,
    )


def refusal(need: Need, limit: int, request: Request) -> str:
    with pytest.raises(UserError) as refused:
        check_fits(need, limit, request)
    return str(refused.value)


@pytest.mark.parametrize("limit", [None, 4_200_000_000])
def test_what_fits_passes(limit):
    check_fits(NEED, limit, request())


def test_what_would_fit_is_told():
    # Half the examples: 0.2 + 2 GB; in parts the gradients' sums of 0.1 GB come to it. With remat 8 maps of 0.1 GB
    # and a block's share of 0.5 GB: 1.5 GB with what is held.
    assert refusal(NEED, 2_300_000_000, request()) == (
        "config.batch_size is 512: an update needs 4.20 GB on each device and there are 2.30 GB; about what would fit: "
        "config.batch_size=256 or config.accumulate_steps=2 or config.model.remat=True"
    )
    # One byte less than two parts take: four of them, 0.2 + 0.1 + 1 GB.
    line = refusal(NEED, 2_299_999_999, request())
    assert "config.batch_size=256 or config.accumulate_steps=4 or config.model.remat=True" in line


@pytest.mark.parametrize("remat", [None, True])
def test_what_saves_nothing_is_not_told(remat):
    assert "remat" not in refusal(NEED, 2_300_000_000, request(remat=remat))


def test_what_a_device_has_of_a_batch_decides():
    # 512 examples on 8 devices, in 32 parts: 2 of each part can be halved once.
    need = Need(held=0, temporary=400)
    line = refusal(need, 200, request(accumulate_steps=32, per_device=64, remat=None))
    assert "config.batch_size=256" in line
    assert "accumulate_steps" not in line.partition(";")[2]  # the sums of the gradients alone are too much
    assert refusal(need, 199, request(accumulate_steps=32, per_device=64, remat=None)).endswith("depth may fit")


# On four devices, with half of the memory that is needed: about half of each device's examples, in pairs for mixing;
# parts only where they come out even.
@pytest.mark.parametrize("per_device, accumulate_steps, ways", [
    (1437, 1, "config.batch_size=2872"),
    (1436, 1, "config.batch_size=2872 or config.accumulate_steps=2"),
    (1434, 1, "config.batch_size=2864 or config.accumulate_steps=2"),
    (15, 3, "config.batch_size=24"),
    (3, 1, "config.batch_size=4"),
])  # fmt: skip
def test_a_smaller_batch_need_not_divide_this_one(per_device, accumulate_steps, ways):
    odd = Request(
        batch_size=4 * per_device,
        accumulate_steps=accumulate_steps,
        per_device=per_device,
        data_bytes=0,
        depth=8,
        params_bytes=0,
        map_bytes=1,
        remat=None,
    )
    assert refusal(Need(held=0, temporary=400), 200, odd).endswith(f"fit: {ways}")
    with pytest.raises(UserError) as told, update_mistakes(odd):
        raise MemoryError
    assert str(told.value).endswith(f"; try {ways}")


def test_a_single_example_that_does_not_fit_wants_a_smaller_model():
    with pytest.raises(UserError, match="; try a smaller config.model.dim or depth$"):  # noqa: SIM117
        with update_mistakes(request(accumulate_steps=512, remat=None)):
            raise MemoryError


def test_remat_must_fit_too():
    assert "remat" in refusal(NEED, 1_500_000_000, request())
    assert "remat" not in refusal(NEED, 1_400_000_000, request())


def test_data_that_take_the_room_are_streamed():
    """Where nothing else leaves room; a batch that is too large as well must become smaller, too."""
    asked = dataclasses.replace(request(remat=None), data_bytes=3_000_000_000)
    need = Need(held=3_200_000_000, temporary=400_000_000)
    assert refusal(need, 3_100_000_000, asked) == (
        "config.batch_size is 512: an update needs 3.60 GB on each device, 3.00 GB of it training data, and there are "
        "3.10 GB; about what would fit: config.input=stream"
    )
    # 0.2 + 0.2 GB with half the examples, 0.1 GB more for sums of gradients.
    assert refusal(need, 400_000_000, asked).endswith(
        "fit: config.input=stream with config.batch_size=256 or config.input=stream with config.accumulate_steps=4"
    )
    # Half the examples fit beside the data, too, and a quarter of them with sums of gradients.
    assert refusal(need, 3_400_000_000, asked).endswith(
        "fit: config.batch_size=256 or config.accumulate_steps=4 or config.input=stream"
    )
    assert refusal(need, 100_000_000, asked).endswith("a smaller config.model.dim or depth may fit")


def test_the_need_of_a_program_counts_what_is_written_over_once():
    values = jnp.ones(1000)  # 4000 bytes
    both = jax.jit(lambda x: x + 1).lower(values).compile()
    over = jax.jit(lambda x: x + 1, donate_argnums=0).lower(values).compile()
    assert (program_need(both).held, program_need(over).held) == (8000, 4000)
    assert program_need(both).total == 8000 + program_need(both).temporary


MORE = "a machine with more memory"
# What failed, and what the line begins and ends with.
FAILED = {
    "updates": (
        update_mistakes(request(accumulate_steps=2)),
        "config.batch_size is 512",
        "config.batch_size=256 or config.accumulate_steps=4 or config.model.remat=True",
    ),
    "data": (loading_mistakes("resident"), "config.input is 'resident'", "config.input=stream"),
    "data that are streamed": (loading_mistakes("stream"), "config.input is 'stream'", MORE),
    "evaluation": (
        evaluation_mistakes(512, "resident"),
        "config.eval_batch_size is, in effect, 512",
        "config.eval_batch_size=256 or config.input=stream",
    ),
    "evaluation of single images": (evaluation_mistakes(1, "stream"), "config.eval_batch_size is, in effect, 1", MORE),
}


@pytest.mark.parametrize("mistakes, subject, ways", FAILED.values(), ids=FAILED)
def test_want_of_memory_becomes_one_line(mistakes, subject, ways):
    with pytest.raises(UserError) as told, mistakes:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory trying to allocate 9.0GiB.\nmore\nlines")
    assert str(told.value) == (
        f"{subject}: there is not enough memory (RESOURCE_EXHAUSTED: Out of memory trying to allocate 9.0GiB.); "
        f"try {ways}"
    )


def test_what_is_told_within_is_not_told_again():
    with pytest.raises(UserError, match="^config.input is 'resident'"), update_mistakes(request()):  # noqa: SIM117
        with loading_mistakes("resident"):
            raise MemoryError


def test_other_errors_stay():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), update_mistakes(request()):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

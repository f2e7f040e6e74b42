"""An update that does not fit is refused with changes that would make it fit, by hand-made numbers."""

import jax
import jax.numpy as jnp
import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.training.capacity import Need, Request, check_fits, memory_mistakes, program_need

# 512 examples of 8 blocks, with maps of 0.1 GB for all of them: 40 maps are held for the backward pass.
NEED = Need(held=200_000_000, temporary=4_000_000_000)


def request(accumulate_steps: int = 1, per_device: int = 512, remat: bool | None = False) -> Request:
    return Request(
        batch_size=512,
        accumulate_steps=accumulate_steps,
        per_device=per_device,
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


def test_remat_must_fit_too():
    assert "remat" in refusal(NEED, 1_500_000_000, request())
    assert "remat" not in refusal(NEED, 1_400_000_000, request())


def test_the_need_of_a_program_counts_what_is_written_over_once():
    values = jnp.ones(1000)  # 4000 bytes
    both = jax.jit(lambda x: x + 1).lower(values).compile()
    over = jax.jit(lambda x: x + 1, donate_argnums=0).lower(values).compile()
    assert (program_need(both).held, program_need(over).held) == (8000, 4000)
    assert program_need(both).total == 8000 + program_need(both).temporary


def test_the_runtimes_error_becomes_one_line():
    def fail(message: str) -> None:
        with memory_mistakes(request(accumulate_steps=2)):
            raise jax.errors.JaxRuntimeError(message)

    with pytest.raises(UserError) as told:
        fail("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9.0GiB.\nmore\nlines")
    assert str(told.value) == (
        "config.batch_size is 512: the devices have not enough memory (RESOURCE_EXHAUSTED: Out of memory while trying "
        "to allocate 9.0GiB.); try config.batch_size=256 or config.accumulate_steps=4 or config.model.remat=True"
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        fail("INTERNAL: something else")

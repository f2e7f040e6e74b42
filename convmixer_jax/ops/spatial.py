"""What a ConvMixer does between two products over channels, as operations with their own backward passes.

    y, moments = spatial(v, params, None, keep, layout, settings)
    pooled, moments = pooled_features(v, params, None, layout, settings)

A block (arXiv 2201.09792, section 2) is y = x + keep * norm(act(depthwise(x) + bias)), then norm(act(product(y) +
bias)). Its last norm is taken here as the beginning of the next block: then all but the product concerns each channel
alone, statistics and gradients included, and a map is written once where it would be written five times. Kept for the
backward pass are inputs of activations; what follows from them is computed again.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from convmixer_jax.ops.activations import Activation, wide
from convmixer_jax.ops.layout import Layout
from convmixer_jax.ops.sharing import Sharing


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is the same in every block of a model.

    activation: see activations.py. epsilon: added to the variance. sharing: which examples share statistics.
    """

    activation: Activation
    epsilon: float
    sharing: Sharing = dataclasses.field(default_factory=Sharing)


class Norm(NamedTuple):
    """Bias before an activation, then scale and bias of the BatchNorm after it: float32 [C] each."""

    bias_before: jax.Array
    scale: jax.Array
    bias: jax.Array


class SpatialParams(NamedTuple):
    """entry: of the product before. kernel: depthwise, in the layout's order of axes. norm: after the convolution."""

    entry: Norm
    kernel: jax.Array
    norm: Norm


class Moments(NamedTuple):
    """Mean and biased variance of each channel over what shares statistics, float32 [C].

    [C, B], those of each example, where a device's examples have different ones.
    """

    mean: jax.Array
    var: jax.Array


def moments_of(u: jax.Array, layout: Layout, settings: Settings) -> Moments:
    """Returns the moments of act(u).

    One pass, over differences from the mean at one position of all examples. That mean is off the true one by at most
    sqrt(H W) deviations, its values being 1 / (H W) of all: so what E[(a - shift)^2] - E[a - shift]^2 cancels is at
    most a factor of H W, whatever the mean. Without a shift it would be the squared mean over the variance.
    """
    act, sharing = settings.activation.value, settings.sharing
    part = layout.sample(u)
    (shift,) = sharing.total(sharing.sums([act(part, False)], layout))
    shift = shift / sharing.count(part, layout)
    away = act(u, False) - layout.channels(shift)
    count = sharing.count(u, layout)
    mean, square = (s / count for s in sharing.total(sharing.sums([away, away * away], layout)))
    # NaN must stay NaN, and a variance is not below 0 by more than rounding.
    return Moments(mean + shift, jnp.maximum(square - mean * mean, 0))


def normalise(
    u: jax.Array, norm: Norm, moments: Moments, layout: Layout, settings: Settings, again: bool = False
) -> jax.Array:
    """Returns scale * (act(u) - mean) / sqrt(var + epsilon) + bias, float32. again: in the backward pass."""
    factor = scaled(jax.lax.rsqrt(moments.var + settings.epsilon), norm)
    centred = settings.activation.value(u, again) - layout.channels(moments.mean)
    return centred * layout.channels(factor) + layout.channels(norm.bias)


def scaled(rstd: jax.Array, norm: Norm) -> jax.Array:
    """Returns scale / std, of the shape of rstd: [C] or [C, B]."""
    return (norm.scale * rstd.T).T


def normalise_grads(
    grad: jax.Array, u: jax.Array, norm: Norm, moments: Moments, layout: Layout, settings: Settings
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradient of u, and those of scale and bias from this device's part of the batch.

    With a = act(u), x = (a - mean) / std and g the gradient of scale * x + bias:
    da = scale / std * (g - E[g] - x * E[g * x]), from Ioffe & Szegedy, arXiv 1502.03167, section 3.
    """
    rstd = jax.lax.rsqrt(moments.var + settings.epsilon)
    value, slope = settings.activation.value_and_slope(u)
    centred = value - layout.channels(moments.mean)
    sharing = settings.sharing
    own_grad, own_product = sharing.sums([grad, grad * centred], layout)
    count = sharing.count(u, layout)
    of_grad, of_product = (s / count for s in sharing.total([own_grad, own_product]))
    factor = scaled(rstd, norm)
    value_grad = (
        layout.channels(factor) * grad
        - layout.channels(factor * of_grad)
        - layout.channels(factor * rstd * rstd * of_product) * centred
    )
    return slope * value_grad, sharing.over_examples(own_product * rstd), sharing.over_examples(own_grad)


def before_activation(v: jax.Array, norm: Norm, layout: Layout) -> jax.Array:
    """Returns v plus its bias, float32."""
    return wide(v) + layout.channels(norm.bias_before)


def spatial_group(
    v: jax.Array, params: SpatialParams, given: Any, keep: jax.Array | None, layout: Layout, settings: Settings
) -> tuple[jax.Array, jax.Array, Moments, Moments]:
    """Returns y, the convolved map u, and the moments, `given` ones where they are; see `spatial`."""
    entry = before_activation(v, params.entry, layout)
    first = given[0] if given else moments_of(entry, layout, settings)
    x = normalise(entry, params.entry, first, layout, settings).astype(v.dtype)
    convolved, x = layout.depthwise(x, params.kernel)
    u = layout.store((convolved + layout.channels(params.norm.bias_before)).astype(v.dtype), params.kernel)
    second = given[1] if given else moments_of(u, layout, settings)
    branch = normalise(u, params.norm, second, layout, settings)
    if keep is not None:
        branch = branch * layout.examples(keep)
    return (branch + wide(x)).astype(v.dtype), u, first, second


def spatial_grads_group(
    grad: jax.Array,
    v: jax.Array,
    u: jax.Array,
    params: SpatialParams,
    moments: tuple[Moments, Moments],
    keep: jax.Array | None,
    layout: Layout,
    settings: Settings,
) -> tuple[jax.Array, SpatialParams]:
    """Returns the gradients of v and of params."""
    first, second = moments
    y_grad = wide(grad)
    branch_grad = y_grad if keep is None else y_grad * layout.examples(keep)
    u_grad, scale, bias = normalise_grads(branch_grad, u, params.norm, second, layout, settings)
    entry = before_activation(v, params.entry, layout)
    x = normalise(entry, params.entry, first, layout, settings, again=True).astype(v.dtype)
    x_grad, kernel, bias_before = layout.depthwise_grads(x, params.kernel, u_grad.astype(v.dtype))
    x_grad = layout.store(x_grad + y_grad, params.kernel)
    v_grad, entry_grads = entry_grads_of(x_grad, v, params.entry, first, layout, settings)
    return v_grad, SpatialParams(entry_grads, kernel, Norm(bias_before, scale, bias))


def entry_grads_of(
    grad: jax.Array, v: jax.Array, norm: Norm, moments: Moments, layout: Layout, settings: Settings
) -> tuple[jax.Array, Norm]:
    """Returns the gradients of v, of its dtype, and of the norm that it enters."""
    entry = before_activation(v, norm, layout)
    v_grad, scale, bias = normalise_grads(grad, entry, norm, moments, layout, settings)
    v_grad = layout.store(v_grad.astype(v.dtype), norm.scale)
    (bias_before,) = layout.sums([v_grad])
    return v_grad, Norm(bias_before, scale, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def spatial(
    v: jax.Array,
    params: SpatialParams,
    given: tuple[Moments, Moments] | None,
    keep: jax.Array | None,
    layout: Layout,
    settings: Settings,
) -> tuple[jax.Array, tuple[Moments, Moments]]:
    """Returns (x + keep * norm(act(depthwise(x) + bias)), moments) with x = entry norm of act(v + bias).

    v and the result: maps. given: moments to normalise with (the running ones); None: those of the batch, which are
    returned. keep: [B], what each example's residual branch is multiplied with (stochastic depth); None: 1. Gradients
    flow to v and params; where moments are given, there are none.
    """

    fused = layout.fused(v, params, settings)
    if fused:
        y, _, moments = fused.forward(v, params, given, keep, with_u=False)
        return y, moments

    def group(v: jax.Array, params: SpatialParams, given: Any) -> tuple[jax.Array, tuple[Moments, Moments]]:
        y, _, first, second = spatial_group(v, params, given, keep, layout, settings)
        return y, (first, second)

    return layout.by_groups(group, v, params, given)


def spatial_forward(
    v: jax.Array, params: SpatialParams, given: Any, keep: Any, layout: Layout, settings: Settings
) -> Any:
    """See `spatial`."""
    if given is not None:
        raise TypeError("no gradient is defined where moments are given")
    fused = layout.fused(v, params, settings)
    if fused:
        y, u, moments = fused.forward(v, params, None, keep, with_u=True)
    else:
        y, u, *moments = layout.by_groups(
            lambda v, params: spatial_group(v, params, None, keep, layout, settings), v, params
        )
    return (y, tuple(moments)), (v, u, params, tuple(moments), keep)


def spatial_backward(layout: Layout, settings: Settings, kept: Any, grads: Any) -> Any:
    """See `spatial`."""
    v, u, params, moments, keep = kept
    fused = layout.fused(v, params, settings)
    if fused:
        v_grad, params_grad = fused.backward(grads[0], v, u, params, moments, keep)
    else:
        v_grad, params_grad = layout.by_groups(
            lambda grad, v, u, params, moments: spatial_grads_group(
                grad, v, u, params, moments, keep, layout, settings
            ),
            *(grads[0], v, u, params, moments),
        )
    return v_grad, params_grad, None, None if keep is None else jnp.zeros_like(keep)


spatial.defvjp(spatial_forward, spatial_backward)


def pooled_group(
    v: jax.Array, norm: Norm, given: Moments | None, layout: Layout, settings: Settings
) -> tuple[jax.Array, Moments]:
    """See `pooled_features`."""
    entry = before_activation(v, norm, layout)
    moments = given or moments_of(entry, layout, settings)
    return layout.pool(normalise(entry, norm, moments, layout, settings)), moments


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def pooled_features(
    v: jax.Array, norm: Norm, given: Moments | None, layout: Layout, settings: Settings
) -> tuple[jax.Array, Moments]:
    """Returns the mean over height and width of norm(act(v + bias)), as `layout.pool` gives it, and the moments."""
    return layout.by_groups(functools.partial(pooled_group, layout=layout, settings=settings), v, norm, given)


def pooled_forward(v: jax.Array, norm: Norm, given: Moments | None, layout: Layout, settings: Settings) -> Any:
    """See `pooled_features`."""
    if given is not None:
        raise TypeError("no gradient is defined where moments are given")
    pooled, moments = pooled_features(v, norm, None, layout, settings)
    return (pooled, moments), (v, norm, moments)


def pooled_backward(layout: Layout, settings: Settings, kept: Any, grads: Any) -> Any:
    """See `pooled_features`."""

    def group(grad: jax.Array, v: jax.Array, norm: Norm, moments: Moments) -> tuple[jax.Array, Norm]:
        positions = v.size // grad.size
        return entry_grads_of(layout.spread(grad / positions, v), v, norm, moments, layout, settings)

    return *layout.by_groups(group, grads[0], *kept), None


pooled_features.defvjp(pooled_forward, pooled_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: jax.Array, kernel: jax.Array, layout: Layout) -> jax.Array:
    """Returns the map x times kernel, [C in, C out], over channels: the pointwise convolution without its bias."""
    return layout.product(x, kernel)


product.defvjp(
    lambda x, kernel, layout: (layout.product(x, kernel), (x, kernel)),
    lambda layout, kept, grad: layout.product_grads(*kept, grad),
)

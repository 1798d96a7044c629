"""Per-row gradients of a layer, from the inputs of the layer and the gradients of its outputs.

The book-keeping of Bu et al. 2023: one forward and one backward pass over the whole batch, then for each layer the
squared norm of each row's gradient, and the sum of the gradients weighted by clipping factors. For linear layers, the
norm comes from the two Gram matrices of the row's places (the ghost norm of Li et al. 2022, section 4), or from the
row's gradient if that is cheaper, as for the convolutions of small networks (Bu et al. 2022, "mixed ghost clipping").

A batch may hold several consecutive entries for each row (noise multiplicity): a row's gradient is the sum over them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gristmill.records.errors import UserError

OTHER_ENGINE = 'set [privacy] engine = "opacus" for other networks'
LAYER_TYPES = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.Embedding)

Sum = Callable[[Tensor], Tensor]  # from clipping factors, (rows,), to the weighted sum, shaped as the parameter
OfRows = list[tuple[nn.Parameter, Tensor, Sum]]  # parameter, squared norms of the rows' gradients (rows,), their sum


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The layers that own the parameters of `module`. Raises UserError for other owners and for shared parameters."""
    layers = [m for m in module.modules() if isinstance(m, LAYER_TYPES)]
    parameter_ids = [id(p) for m in layers for p in m._parameters.values() if p is not None]
    if sorted(parameter_ids) != sorted(id(p) for p in module.parameters()):
        raise UserError(
            "ghost clipping covers Linear, Conv2d, GroupNorm and Embedding layers that share no weights; "
            f"{OTHER_ENGINE}"
        )
    for m in layers:
        if isinstance(m, nn.Conv2d) and (m.padding_mode != "zeros" or isinstance(m.padding, str)):
            raise UserError(f"ghost clipping covers Conv2d padded with a number of zeros; {OTHER_ENGINE}")
        if isinstance(m, nn.Embedding) and (m.padding_idx is not None or m.max_norm or m.scale_grad_by_freq):
            raise UserError(f"ghost clipping covers plain Embedding layers; {OTHER_ENGINE}")
    return layers


def of_rows(layer: nn.Module, inputs: Tensor, flow: Tensor, num_rows: int) -> OfRows:
    """For each parameter of `layer`: the squared norms of the rows' gradients, and a function that sums them.

    `inputs` are the inputs of the layer, `flow` the gradient of all losses with respect to its outputs. Both have a
    multiple of num_rows entries; the entries of a row are adjacent.
    """
    if isinstance(layer, nn.GroupNorm):
        normal = F.group_norm(inputs, layer.num_groups, eps=layer.eps)
        slopes = [_places(flow * normal, num_rows), _places(flow, num_rows)]
        return [_direct(p, s.sum(1)) for p, s in zip((layer.weight, layer.bias), slopes) if p is not None]
    if isinstance(layer, nn.Embedding):
        numbers = F.one_hot(inputs.reshape(num_rows, -1), layer.num_embeddings).to(flow)
        return [_outer(layer.weight, numbers, flow.reshape(num_rows, -1, layer.embedding_dim))]
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    if isinstance(layer, nn.Conv2d):
        output_gradients = _places(flow, num_rows)
        sums = [_direct(layer.weight, _of_windows(layer, inputs, flow, num_rows))]
    else:
        layer_inputs, output_gradients = (x.reshape(num_rows, -1, x.shape[-1]) for x in (inputs, flow))
        sums = [_outer(layer.weight, output_gradients, layer_inputs)]
    return sums if layer.bias is None else [*sums, _direct(layer.bias, output_gradients.sum(1))]


def _places(images: Tensor, num_rows: int) -> Tensor:
    """(entries, channels, ...) as (rows, places, channels)."""
    flat = images.flatten(2).transpose(1, 2)
    return flat.reshape(num_rows, -1, flat.shape[2])


def _of_windows(layer: nn.Conv2d, inputs: Tensor, flow: Tensor, num_rows: int) -> Tensor:
    """The rows' gradients of a convolution's weights, (rows, numbers), by one convolution with a group for each row and
    a row's entries as its batch (Rochette et al. 2019). Far faster than unfolding the windows."""
    layer_inputs, output_gradients = (
        x.unflatten(0, (num_rows, -1)).transpose(0, 1).reshape(-1, num_rows * x.shape[1], *x.shape[2:])
        for x in (inputs, flow)
    )
    shape = num_rows * layer.out_channels, *layer.weight.shape[1:]
    conv_options = layer.stride, layer.padding, layer.dilation, num_rows * layer.groups
    return torch.nn.grad.conv2d_weight(layer_inputs, shape, output_gradients, *conv_options).reshape(num_rows, -1)


def _direct(parameter: nn.Parameter, each: Tensor) -> tuple[nn.Parameter, Tensor, Sum]:
    """From the rows' gradients themselves: (rows, numbers)."""
    return parameter, each.square().sum(1), lambda factors: (each * factors[:, None]).sum(0).view(parameter.shape)


def _outer(parameter: nn.Parameter, output_gradients: Tensor, layer_inputs: Tensor) -> tuple[nn.Parameter, Tensor, Sum]:
    """For gradients that are sums over places of outer products: (rows, places, o) with (rows, places, i)."""
    places, o, i = output_gradients.shape[1], output_gradients.shape[2], layer_inputs.shape[2]
    if places > 1 and o * i < places * (o + i):
        return _direct(parameter, (output_gradients.transpose(1, 2) @ layer_inputs).flatten(1))
    if places == 1:
        squares = output_gradients[:, 0].square().sum(1) * layer_inputs[:, 0].square().sum(1)
    else:
        squares = (
            (output_gradients @ output_gradients.transpose(1, 2)) * (layer_inputs @ layer_inputs.transpose(1, 2))
        ).sum((1, 2))

    def total(factors: Tensor) -> Tensor:
        return ((output_gradients * factors[:, None, None]).flatten(0, 1).T @ layer_inputs.flatten(0, 1)).view(
            parameter.shape
        )

    return parameter, squares, total

"""Converts parameters to the authors' PyTorch networks and back.

The networks are those of pytorch-CycleGAN-and-pix2pix: ResnetGenerator and
UnetGenerator, NLayerDiscriminator and PixelDiscriminator.
"""

from collections.abc import Mapping, Sequence

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from cyclegan_jax.config import (
  DiscriminatorConfig,
  GeneratorConfig,
  size_multiple,
)
from cyclegan_jax.errors import WeightsError
from cyclegan_jax.interop.errors import shown
from cyclegan_jax.interop.torch_layers import list_layers, missing_in_torch
from cyclegan_jax.nets import make_discriminator, make_generator
from cyclegan_jax.types import Params

Tensors = Mapping[str, np.ndarray]
_Shape = tuple[int, ...]

_STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')
_TORCH_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}


def rename(
  tensors: Tensors, renames: Mapping[str, str | None] | None = None
) -> dict[str, np.ndarray]:
  """Returns the tensors under the authors' names.

  The prefixes 'state_dict.' of whole checkpoints and 'module.' of DataParallel
  are removed first.

  Args:
    tensors: arrays by any names.
    renames: the authors' name by the file's name. A key that ends in a dot is
      a prefix, and its value replaces it; the longest prefix applies. The
      value None leaves a tensor out, or all with the prefix.

  Raises:
    WeightsError: two tensors get the same name.
  """
  inner = _without_prefix(tensors, 'state_dict.')
  if inner:  # beside it there may be the state of an optimizer
    tensors = inner
  inner = _without_prefix(tensors, 'module.')
  if len(inner) == len(tensors):
    tensors = inner
  renamed: dict[str, np.ndarray] = {}
  for name, array in tensors.items():
    new_name = _new_name(name, renames or {})
    if new_name in renamed:
      raise WeightsError(
        f'two tensors get the name {shown(new_name)}. Correct the --map.'
      )
    if new_name is not None:
      renamed[new_name] = array
  return renamed


def _without_prefix(tensors: Tensors, prefix: str) -> dict[str, np.ndarray]:
  return {
    name.removeprefix(prefix): array
    for name, array in tensors.items()
    if name.startswith(prefix)
  }


def _new_name(name: str, renames: Mapping[str, str | None]) -> str | None:
  if name in renames:
    return renames[name]
  prefixes = [
    key for key in renames if key.endswith('.') and name.startswith(key)
  ]
  if not prefixes:
    return name
  longest = max(prefixes, key=len)
  replacement = renames[longest]
  return None if replacement is None else replacement + name[len(longest) :]


def params_from_torch(
  tensors: Tensors,
  config: GeneratorConfig | DiscriminatorConfig,
  *,
  channels_in: int = 3,
  channels_out: int = 3,
  source: str = 'the file',
) -> Params:
  """Converts the weights of one of the authors' networks.

  Running statistics are left out: norms here use those of the batch.

  Args:
    tensors: arrays by the authors' names.
    config: options of the network, as `torch_infer` returns them.
    channels_in: channels of the network's input.
    channels_out: channels of a generator's output.
    source: name of the file, for messages.

  Returns:
    float32 parameters for `make_generator` or `make_discriminator`.

  Raises:
    WeightsError: tensors are missing, unexpected, of other shapes or not
      finite. The message counts them and names the first.
  """
  shapes = _param_shapes(config, channels_in, channels_out)
  params: dict[tuple[str, ...], jax.Array] = {}
  missing, wrong = [], []
  known = set()
  for layer in list_layers(config):
    if layer.is_norm:
      known |= {f'{layer.torch_name}.{name}' for name in _STATISTICS}
    for leaf, torch_leaf in _TORCH_LEAVES.items():
      path, name = (*layer.path, leaf), f'{layer.torch_name}.{torch_leaf}'
      if path not in shapes:
        continue
      known.add(name)
      if name in tensors:
        array = _to_flax_axes(tensors[name])
        problem = _problem(array, shapes[path])
        if problem:
          wrong.append(f'{name}{problem}')
        else:
          params[path] = jnp.asarray(array, jnp.float32)
      elif leaf == 'bias' and config.norm == 'none':
        params[path] = jnp.zeros(shapes[path])  # the authors have no bias here
      else:
        missing.append(name)
  unexpected = [shown(name) for name in tensors if name not in known]
  problems = {'missing': missing, 'wrong': wrong, 'unexpected': unexpected}
  if any(problems.values()):
    text = '; '.join(
      _count(names, noun) for noun, names in problems.items() if names
    )
    raise WeightsError(
      f"{source} does not fit {config.name} of the authors' code: {text}. Give "
      'weights of that network alone, or --map for other names.'
    )
  return flax.traverse_util.unflatten_dict(params)


def _param_shapes(
  config: GeneratorConfig | DiscriminatorConfig,
  channels_in: int,
  channels_out: int,
) -> dict[tuple[str, ...], _Shape]:
  if isinstance(config, GeneratorConfig):
    network = make_generator(config, channels=channels_out)
    size = max(16, size_multiple(config))
  else:
    network = make_discriminator(config)
    size = 16 * 2**config.layers
  key = jax.random.key(0)
  image = jax.ShapeDtypeStruct((1, size, size, channels_in), jnp.float32)
  keys = {'params': key, 'dropout': key}
  params = jax.eval_shape(network.init, keys, image)['params']
  return {
    path: leaf.shape
    for path, leaf in flax.traverse_util.flatten_dict(params).items()
  }


def _problem(array: np.ndarray, shape: _Shape) -> str:
  """Says what is wrong with a parameter, in shapes of PyTorch; or ''."""
  if array.shape != shape:
    actual, expected = (
      tuple(sizes[axis] for axis in (3, 2, 0, 1)) if len(sizes) == 4 else sizes
      for sizes in (array.shape, shape)
    )
    return f' is {actual} instead of {expected}'
  if array.dtype.kind != 'f' or not np.isfinite(array).all():
    return ', whose numbers are not all finite'
  return ''


def _count(names: Sequence[str], noun: str) -> str:
  more = ', ...' if len(names) > 3 else ''
  return f'{len(names)} {noun} ({", ".join(names[:3])}{more})'


def _to_flax_axes(array: np.ndarray) -> np.ndarray:
  """[O, I, h, w] to [h, w, I, O], or [I, O, h, w] to [h, w, O, I]."""
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _to_torch_axes(array: np.ndarray) -> np.ndarray:
  return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def params_to_torch(
  params: Params, config: GeneratorConfig | DiscriminatorConfig
) -> dict[str, np.ndarray]:
  """Returns the state_dict of the authors' network with our parameters.

  Running statistics of batch norm are those of a new network, so it has to run
  with the statistics of the batch, like ours.

  Args:
    params: parameters of one network.
    config: options of that network.

  Raises:
    WeightsError: the authors' code has no such network.
  """
  missing = missing_in_torch(config)
  if missing:
    raise WeightsError(
      f"the authors' code has no {missing}, so its weights cannot be written "
      'for it. Choose another format.'
    )
  flat = flax.traverse_util.flatten_dict(params)
  tensors: dict[str, np.ndarray] = {}
  for layer in list_layers(config):
    for leaf, torch_leaf in _TORCH_LEAVES.items():
      if (*layer.path, leaf) in flat:
        array = np.asarray(flat[*layer.path, leaf], np.float32)
        tensors[f'{layer.torch_name}.{torch_leaf}'] = _to_torch_axes(array)
    if layer.is_norm and config.norm == 'batch':
      shape = tensors[f'{layer.torch_name}.bias'].shape
      new = np.zeros(shape, np.float32), np.ones(shape, np.float32), np.array(0)
      for name, array in zip(_STATISTICS, new, strict=True):
        tensors[f'{layer.torch_name}.{name}'] = array
  return tensors

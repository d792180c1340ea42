"""Our parameters from the authors' PyTorch weights, and back.

The networks are those of pytorch-CycleGAN-and-pix2pix: ResnetGenerator and
UnetGenerator, NLayerDiscriminator and PixelDiscriminator.
"""

from collections.abc import Collection, Mapping

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

_WRAPPERS = ('state_dict.', 'module.')  # of checkpoints, of DataParallel
_STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')
_THEIR_LEAF = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}


def rename(
  tensors: Tensors, renames: Mapping[str, str | None] | None = None
) -> dict[str, np.ndarray]:
  """The tensors under the authors' names.

  'module.' and 'state_dict.', which stand before names in files of whole
  runs, are taken off first.

  Args:
    tensors: by any names.
    renames: the authors' name by a name of the file, and the authors' start
      of names by the file's where both end in a dot. None or null leaves a
      tensor out, or all that begin so.

  Raises:
    WeightsError: two tensors come to one name.
  """
  for wrapper in _WRAPPERS:
    inner = {
      name.removeprefix(wrapper): each
      for name, each in tensors.items()
      if name.startswith(wrapper)
    }
    # Beside a state_dict there may be an optimizer's.
    if inner and (wrapper == 'state_dict.' or len(inner) == len(tensors)):
      tensors = inner
  renamed: dict[str, np.ndarray] = {}
  for name, each in tensors.items():
    new = _new_name(name, renames or {})
    if new in renamed:
      raise WeightsError(
        f'two tensors come to the name {shown(new)}: mend the map of names'
      )
    if new is not None:
      renamed[new] = each
  return renamed


def _new_name(name: str, renames: Mapping[str, str | None]) -> str | None:
  if name in renames:
    return renames[name]
  starts = [key for key in renames if key[-1:] == '.' and name.startswith(key)]
  if not starts:
    return name
  longest = max(starts, key=len)
  start = renames[longest]
  return None if start is None else start + name[len(longest) :]


def params_from_torch(
  tensors: Tensors,
  config: GeneratorConfig | DiscriminatorConfig,
  *,
  channels_in: int = 3,
  channels_out: int = 3,
  source: str = 'the file',
) -> Params:
  """Our parameters of a network of the authors' code.

  Running statistics are left out, as norms here use those of the batch.

  Args:
    tensors: by the authors' names.
    config: of the network, as inferred.
    channels_in: of the images that it takes.
    channels_out: of those it makes; of no meaning to a discriminator.
    source: of the tensors, for messages.

  Returns:
    float32 parameters, for `make_generator` or `make_discriminator`.

  Raises:
    WeightsError: tensors are missing, unexpected, of other shapes or not
      finite; all are counted, and the first are named.
  """
  expected = _expected_shapes(config, channels_in, channels_out)
  params: dict[tuple[str, ...], jax.Array] = {}
  missing, wrong = [], []
  known = set()
  for layer in list_layers(config):
    if layer.is_norm:
      known |= {f'{layer.theirs}.{each}' for each in _STATISTICS}
    for leaf, theirs in _THEIR_LEAF.items():
      path, name = (*layer.ours, leaf), f'{layer.theirs}.{theirs}'
      if path not in expected:
        continue
      known.add(name)
      shape = expected[path]
      if name in tensors:
        array = _to_ours(tensors[name])
        if array.shape != shape:
          wrong.append(_wrong_shape(name, array.shape, shape))
        elif array.dtype.kind != 'f' or not np.isfinite(array).all():
          wrong.append(f'{name}, whose numbers are not all finite')
        else:
          params[path] = jnp.asarray(array, jnp.float32)
      elif leaf == 'bias' and config.norm == 'none':
        params[path] = jnp.zeros(shape)  # the authors have none here
      else:
        missing.append(name)
  unexpected = [name for name in tensors if name not in known]
  problems = [
    text
    for names, noun in (
      (missing, 'missing'),
      (wrong, 'wrong'),
      ([shown(name) for name in unexpected], 'unexpected'),
    )
    if (text := _counted(names, noun))
  ]
  if problems:
    raise WeightsError(
      f"{source} does not fit {config.name} of the authors' code: "
      f'{"; ".join(problems)}: give weights of that network alone, or --map '
      'for other names'
    )
  return flax.traverse_util.unflatten_dict(params)


def _expected_shapes(
  config: GeneratorConfig | DiscriminatorConfig, channels: int, out: int
) -> dict[tuple[str, ...], tuple[int, ...]]:
  if isinstance(config, GeneratorConfig):
    network = make_generator(config, channels=out)
    size = max(16, size_multiple(config))
  else:
    network = make_discriminator(config)
    size = 16 * 2**config.layers
  key = jax.random.key(0)
  image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
  keys = {'params': key, 'dropout': key}
  params = jax.eval_shape(network.init, keys, image)['params']
  return {
    path: leaf.shape
    for path, leaf in flax.traverse_util.flatten_dict(params).items()
  }


def _counted(names: Collection[str], noun: str) -> str:
  if not names:
    return ''
  named = ', '.join(list(names)[:3])
  more = ', ...' if len(names) > 3 else ''
  return f'{len(names)} {noun} ({named}{more})'


def _wrong_shape(
  name: str, found: tuple[int, ...], expected: tuple[int, ...]
) -> str:
  theirs = [
    tuple(shape[axis] for axis in (3, 2, 0, 1)) if len(shape) == 4 else shape
    for shape in (found, expected)
  ]
  return f'{name} is {theirs[0]} instead of {theirs[1]}'


def _to_ours(array: np.ndarray) -> np.ndarray:
  """[O, I, h, w] to [h, w, I, O]; a transposed one's [I, O, h, w] alike."""
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _to_theirs(array: np.ndarray) -> np.ndarray:
  return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def params_to_torch(
  params: Params, config: GeneratorConfig | DiscriminatorConfig
) -> dict[str, np.ndarray]:
  """The state_dict of the authors' network with our parameters.

  Where it has batch norm, its running statistics are those of a new network:
  like ours, it has to be used with those of the batch.

  Args:
    params: of one network.
    config: of that network.

  Raises:
    WeightsError: the authors' code has no such network.
  """
  lacking = missing_in_torch(config)
  if lacking:
    raise WeightsError(
      f"{lacking} is nothing that the authors' code has, so its weights can "
      'not be written for it: choose another format'
    )
  flat = flax.traverse_util.flatten_dict(params)
  tensors: dict[str, np.ndarray] = {}
  for layer in list_layers(config):
    for leaf, theirs in _THEIR_LEAF.items():
      if (*layer.ours, leaf) in flat:
        array = np.asarray(flat[*layer.ours, leaf], np.float32)
        tensors[f'{layer.theirs}.{theirs}'] = _to_theirs(array)
    if layer.is_norm and config.norm == 'batch':
      count = tensors[f'{layer.theirs}.bias'].shape
      statistics = np.zeros(count, np.float32), np.ones(count, np.float32)
      tensors |= {
        f'{layer.theirs}.{name}': each
        for name, each in zip(
          _STATISTICS, (*statistics, np.array(0)), strict=True
        )
      }
  return tensors

"""Makes the config of a checkpoint from the networks that it imports."""

import dataclasses
import pathlib
from collections.abc import Mapping

from cyclegan_jax.config import Config, Direction, DiscriminatorConfig, Section
from cyclegan_jax.errors import WeightsError
from cyclegan_jax.interop.weight_files import Discriminator, Generator

_AUTHORS_SIZE = 256


def make_import_config(
  generators: Mapping[Direction, Generator],
  discriminators: Mapping[str, Discriminator],
  size: int | None,
) -> Config:
  """Returns the config of the generators' run, or the paper's recipe for them.

  Args:
    generators: one or two, by direction.
    discriminators: up to two, by the domain of the images that they classify.
    size: height and width of training images; None for the default.

  Raises:
    WeightsError: the networks do not belong together.
  """
  _check_alike([(gen.path, gen.network.config) for gen in generators.values()])
  _check_alike([(disc.path, disc.config) for disc in discriminators.values()])
  _check_inverse(list(generators.values()))
  direction, generator = next(iter(generators.items()))
  disc = next((disc.config for disc in discriminators.values()), None)
  if generator.config:
    config = _adapt(generator.config, disc, size)
  else:
    config = _paper_config(generator, direction, disc, size)
  for domain, discriminator in discriminators.items():
    if discriminator.channels != config.channels(domain):
      raise WeightsError(
        f'{discriminator.path} classifies images of {discriminator.channels} '
        f'channels, but those of {domain} have {config.channels(domain)}. Give '
        'discriminators of the same run.'
      )
  return config


def _check_alike(networks: list[tuple[pathlib.Path, Section]]) -> None:
  """Checks that options are equal: a config holds them once for both."""
  for path, config in networks[1:]:
    first_path, first_config = networks[0]
    first, second = dataclasses.asdict(first_config), dataclasses.asdict(config)
    differences = [
      f'{name} {first[name]!r} and {second[name]!r}'
      for name in first
      if first[name] != second[name]
    ]
    if differences:
      raise WeightsError(
        f'{first_path} and {path} are different networks '
        f'({"; ".join(differences)}). Import each into a checkpoint of its own.'
      )


def _check_inverse(generators: list[Generator]) -> None:
  """Checks that the second generator maps back what the first one makes."""
  if len(generators) < 2:
    return
  (path, there, *_), (other_path, back, *_) = generators
  if (there.channels_in, there.channels_out) != (
    back.channels_out,
    back.channels_in,
  ):
    raise WeightsError(
      f'{other_path} maps {back.channels_in} channels to {back.channels_out}, '
      f'but {path} maps {there.channels_in} to {there.channels_out}. Give two '
      'generators of one run.'
    )


def _adapt(
  config: Config, disc: DiscriminatorConfig | None, size: int | None
) -> Config:
  if disc:
    config = config.replace(discriminator=dataclasses.asdict(disc))
  if size:
    config = config.replace(data={'size': size, 'load_size': size})
  return config


def _paper_config(
  generator: Generator,
  direction: str,
  disc: DiscriminatorConfig | None,
  size: int | None,
) -> Config:
  network = generator.network
  disc = disc or DiscriminatorConfig(
    name='patchgan',
    filters=network.config.filters,
    norm='instance',
    affine=False,
    init='normal',
  )
  is_unet = network.config.name == 'torch_unet'
  size = size or max(_AUTHORS_SIZE, network.config.isize if is_unet else 0)
  data = {'name': 'folder', 'size': size, 'load_size': size * 143 // 128}
  channels = network.channels_in, network.channels_out
  for domain, count in zip(direction, channels, strict=True):
    data |= {
      f'channels_{domain}': count,
      f'dtype_{domain}': 'uint8',
      f'high_{domain}': 255.0,
    }
  return Config().replace(
    batch_size=1,
    epochs=200,
    pool_size=50,
    data=data,
    generator=dataclasses.asdict(network.config),
    discriminator=dataclasses.asdict(disc),
    loss={
      'adversarial': 'lsgan',
      'discriminator': 0.5,
      'identity_a': 5.0,
      'identity_b': 5.0,
    },
    optimizer={'learning_rate': 2e-4},
    schedule={'name': 'linear', 'decay_epochs': 100},
  )

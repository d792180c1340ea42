"""Every option of a run: its default, its range and what it means.

This is the only place of defaults. `Config()` is the default recipe; the
files in `configs/` edit it. A config is frozen and hashable, so it can be a
static argument of `jax.jit`: an equal config does not retrace.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

import ml_collections

from cyclegan_jax.errors import ConfigError

T = TypeVar('T')

Direction = Literal['ab', 'ba']


def option(
  default: T,
  help: str,
  *,
  choices: tuple[T, ...] | None = None,
  low: float | None = None,
  high: float | None = None,
) -> T:
  """A dataclass field with its documentation and its range (inclusive)."""
  return dataclasses.field(
    default=default,
    metadata={'help': help, 'choices': choices, 'low': low, 'high': high},
  )


@dataclasses.dataclass(frozen=True)
class Section:
  """A group of options that checks itself when it is made."""

  _path: ClassVar[str] = 'config'

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      if 'help' in field.metadata:
        path = f'{self._path}.{field.name}'
        value = _checked(path, getattr(self, field.name), field)
        object.__setattr__(self, field.name, value)


def _checked(path: str, value: Any, field: dataclasses.Field[Any]) -> Any:
  """Returns the value in the field's type, or raises ConfigError."""
  kind: Any = type(field.default)
  if kind is float and type(value) is int and abs(value) < 2**53:
    value = float(value)
  if type(value) is not kind:
    raise ConfigError(wrong_type(path, value, field.default))
  choices = field.metadata['choices']
  if choices and value not in choices:
    known = ', '.join(str(choice) for choice in choices)
    raise ConfigError(f'{path}={value!r} is unknown: choose from {known}')
  low, high = field.metadata['low'], field.metadata['high']
  if kind is float and not math.isfinite(float(value)):
    raise ConfigError(f'{path}={value!r} is not a finite number')
  if low is not None and value < low:
    raise ConfigError(f'{path}={value!r} is too small: at least {low}')
  if high is not None and value > high:
    raise ConfigError(f'{path}={value!r} is too large: at most {high}')
  return value


def wrong_type(path: str, value: Any, default: Any) -> str:
  """The message for a value that is not of its option's type."""
  noun = type(default).__name__
  article = 'an' if noun[0] in 'aeiou' else 'a'
  return f'{path}={value!r} is not {article} {noun}, such as {default!r}'


# How the values of image files are stored.
DTYPES = ('uint8', 'uint16', 'int16', 'float32')


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
  """Which images, and how they become batches."""

  _path: ClassVar[str] = 'config.data'

  name: str = option(
    'embedded',
    'where images come from: drawn by code, your folders, or TFDS',
    choices=('embedded', 'folder', 'tfds'),
  )
  path: str = option(
    '',
    'folder: holds trainA, trainB, testA, testB, or is a .zip of them; tfds: '
    'its data_dir',
  )
  train_a: str = option(
    '', "folder: a's images, a folder or a .zip, in place of path/trainA"
  )
  train_b: str = option(
    '', "folder: b's images, a folder or a .zip, in place of path/trainB"
  )
  test_a: str = option(
    '', "folder: a's test images, a folder or a .zip (optional)"
  )
  test_b: str = option(
    '', "folder: b's test images, a folder or a .zip (optional)"
  )
  dataset: str = option(
    '', "tfds: one data set with both, such as 'cycle_gan/horse2zebra'"
  )
  dataset_a: str = option('', "tfds: a data set of images for a: 'mnist'")
  dataset_b: str = option('', 'tfds: a data set of images for b')
  num_train: int = option(400, 'embedded: drawings a side to train on', low=1)
  num_test: int = option(64, 'embedded: drawings a side to test on', low=1)
  size: int = option(64, 'height and width that the networks see', low=8)
  load_size: int = option(
    64, 'size before the crop; equal to size for no crop', low=8
  )
  preprocess: str = option(
    'resize_and_crop',
    'resize_and_crop: to load_size squared, then a random crop; crop: a '
    'random crop of the image as it is; scale_and_crop: the shorter side to '
    'load_size, then a random crop; resize_and_center_crop: to load_size '
    'squared, then the centre (the Keras note)',
    choices=(
      'resize_and_crop',
      'crop',
      'scale_and_crop',
      'resize_and_center_crop',
    ),
  )
  interpolation: str = option(
    'bicubic', 'of the resize', choices=('bilinear', 'bicubic', 'lanczos')
  )
  flip: bool = option(True, 'mirror half of the training images')
  paired_share: float = option(
    0.5,
    'folder, with loss.paired_weight: share of the examples that are pairs, '
    'images of one name in both folders; all others are drawn apart',
    low=0.001,
    high=1,
  )
  channels_a: int = option(3, "channels of a's images", low=1)
  channels_b: int = option(3, "channels of b's images", low=1)
  dtype_a: str = option(
    '',
    "how a's images are stored: uint8, uint16, int16, float32, or '' for as "
    'the first training image is; files of uint8 and uint16 are scaled',
  )
  dtype_b: str = option('', "how b's images are stored, likewise")
  low_a: float = option(
    0.0,
    "value in a's files that is black; low and high both 0: the full range of "
    "uint8 and uint16; of int16 and floats the training images' own, measured "
    'before step 1',
  )
  high_a: float = option(0.0, "value in a's files that is white")
  low_b: float = option(0.0, "value in b's files that is black")
  high_b: float = option(0.0, "value in b's files that is white")
  num_workers: int = option(
    2,
    'decoding threads; 0 decodes in the loop, which then can not tell that it '
    'waits',
    low=0,
    high=256,
  )
  prefetch_batches: int = option(4, 'batches decoded ahead', low=1, high=1024)
  cache_gib: float = option(
    2.0, 'memory for decoded images; the rest is read again', low=0
  )
  max_pixels: int = option(
    100_000_000, 'a file with more pixels is not decoded', low=1
  )
  max_corrupt: int = option(
    10, 'unreadable images that are skipped before the run gives up', low=0
  )
  strict: bool = option(
    False, 'images that changed since the run began end it, not just warn'
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    for domain in 'ab':
      dtype = getattr(self, f'dtype_{domain}')
      if dtype not in ('', *DTYPES):
        raise ConfigError(
          f'config.data.dtype_{domain}={dtype!r} is unknown: choose from '
          f"{', '.join(DTYPES)}, or '' for the first training image's"
        )
      low, high = (
        getattr(self, f'low_{domain}'),
        getattr(self, f'high_{domain}'),
      )
      if low > high or low == high != 0:
        raise ConfigError(
          f'config.data.low_{domain}={low} is not below config.data.'
          f'high_{domain}={high}: set both, or both to 0 for the full range'
        )


@dataclasses.dataclass(frozen=True)
class GeneratorConfig(Section):
  """The network that translates, built twice."""

  _path: ClassVar[str] = 'config.generator'

  name: str = option(
    'keras_unet',
    "the Keras note's U-Net, the paper's ResNet, the U-Net of the authors' "
    "PyTorch code, or UVCGAN's U-Net around a transformer (arXiv:2203.02557)",
    choices=('keras_unet', 'resnet', 'torch_unet', 'vit_unet'),
  )
  filters: int = option(24, 'filters of the first layer', low=1)
  isize: int = option(
    64,
    'keras_unet, torch_unet: a power of two; log2 of it is the depth',
    low=4,
    high=4096,
  )
  fixed_input_size: bool = option(
    True, 'keras_unet: accept isize alone, not its multiples'
  )
  blocks: int = option(
    9,
    'resnet: residual blocks; vit_unet: transformer blocks',
    low=1,
    high=64,
  )
  heads: int = option(
    8, 'vit_unet: of attention; a divisor of 8 * filters', low=1
  )
  norm: str = option(
    'batch',
    "always by the batch's own statistics",
    choices=('batch', 'instance', 'none'),
  )
  affine: bool = option(True, 'the norm learns a scale and a shift')
  dropout: float = option(
    0.5,
    'share of activations dropped, in training and translation alike: '
    'keras_unet where size <= 8, torch_unet in its inner blocks, resnet and '
    'vit_unet inside each block',
    low=0,
    high=0.95,
  )
  upsample: str = option(
    'transpose',
    'transposed convolution, or nearest resize and a 3x3 convolution',
    choices=('transpose', 'resize'),
  )
  padding: str = option(
    'zero', 'what lies beyond the border', choices=('zero', 'reflect')
  )
  init: str = option(
    'glorot_uniform',
    "Keras's defaults as in the Keras note, or N(0, 0.02) as in the paper",
    choices=('glorot_uniform', 'normal'),
  )
  dtype: str = option(
    'float32',
    'of the computation; parameters stay float32 (float64 is for checks of '
    'the algebra and needs jax_enable_x64)',
    choices=('float32', 'bfloat16', 'float64'),
  )


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig(Section):
  """The network that judges patches, built twice."""

  _path: ClassVar[str] = 'config.discriminator'

  name: str = option(
    'keras_patchgan',
    "the Keras note's, the paper's n-layer PatchGAN, or one that judges pixels",
    choices=('keras_patchgan', 'patchgan', 'pixelgan'),
  )
  filters: int = option(24, 'filters of the first layer', low=1)
  layers: int = option(
    3,
    'strided layers: max_layers in the Keras note, n_layers in the paper',
    low=1,
    high=16,
  )
  last_layers: str = option(
    'same',
    'keras_patchgan: pad the last two as the Keras note lists them, or by one '
    'pixel and valid as the notebook it came from',
    choices=('same', 'valid'),
  )
  norm: str = option(
    'batch',
    "always by the batch's own statistics",
    choices=('batch', 'instance', 'none'),
  )
  affine: bool = option(True, 'the norm learns a scale and a shift')
  spectral_norm: bool = option(
    False,
    'divide each kernel by its greatest singular value (arXiv:1802.05957); '
    "with norm='none', as a norm behind a convolution undoes it",
  )
  init: str = option(
    'glorot_uniform',
    "Keras's defaults as in the Keras note, or N(0, 0.02) as in the paper",
    choices=('glorot_uniform', 'normal'),
  )
  dtype: str = option(
    'float32',
    'of the computation; parameters stay float32',
    choices=('float32', 'bfloat16', 'float64'),
  )


@dataclasses.dataclass(frozen=True)
class LossConfig(Section):
  """The objective; weights are absolute, not relative to each other."""

  _path: ClassVar[str] = 'config.loss'

  adversarial: str = option(
    'vanilla',
    "minimax is the Keras note's formula as written; vanilla trains the "
    'generator on -log D',
    choices=('minimax', 'vanilla', 'lsgan', 'hinge', 'wgan_gp'),
  )
  cycle_a: float = option(10.0, 'weight of |G_ba(G_ab(a)) - a|', low=0)
  cycle_b: float = option(10.0, 'weight of |G_ab(G_ba(b)) - b|', low=0)
  cycle_blur: float = option(
    0.0,
    'share of the cycle that compares blurred images, which leaves textures '
    'free (after arXiv:1704.02470)',
    low=0,
    high=1,
  )
  cycle_blur_sigma: float = option(
    3.0, 'of that blur, in pixels', low=0.1, high=1000
  )
  identity_a: float = option(0.0, 'weight of |G_ba(a) - a|', low=0)
  identity_b: float = option(0.0, 'weight of |G_ab(b) - b|', low=0)
  paired_weight: float = option(
    0.0,
    'weight of |G_ab(a) - b| + |G_ba(b) - a| where a and b are a pair; 0: no '
    'pairs are looked for',
    low=0,
  )
  discriminator: float = option(
    1.0, "weight of the discriminators' loss; the paper halves it", low=0
  )
  gradient_penalty: float = option(
    10.0, 'wgan_gp: weight of (|grad D| - 1)^2', low=0
  )
  r1: float = option(
    0.0,
    'weight of the zero-centred penalty |grad D(real)|^2 / 2 '
    '(arXiv:1801.04406)',
    low=0,
  )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Section):
  """How gradients become updates, for generators and discriminators."""

  _path: ClassVar[str] = 'config.optimizer'

  name: str = option(
    'adam', 'the update rule', choices=('adam', 'adamw', 'rmsprop', 'sgd')
  )
  learning_rate: float = option(5e-4, "of the schedule's start", low=0)
  disc_learning_rate_ratio: float = option(
    1.0,
    "the discriminators' learning rate over the generators' (two time scales, "
    'arXiv:1706.08500)',
    low=0,
  )
  b1: float = option(
    0.5, 'decay of the first moment (sgd: momentum)', low=0, high=0.9999
  )
  b2: float = option(0.999, 'decay of the second moment', low=0, high=0.999999)
  eps: float = option(1e-8, 'added to the denominator', low=1e-16)
  weight_decay: float = option(0.0, 'adamw only', low=0)


@dataclasses.dataclass(frozen=True)
class ScheduleConfig(Section):
  """How learning rate and cycle go over a run; rates by epochs, mostly."""

  _path: ClassVar[str] = 'config.schedule'

  name: str = option(
    'constant',
    'linear holds, then falls to 1 / (decay_epochs + 1) at the end',
    choices=('constant', 'linear', 'cosine', 'step'),
  )
  decay_epochs: int = option(
    100, 'linear: the last epochs, over which it falls', low=0
  )
  step_epochs: int = option(50, 'step: epochs between two falls', low=1)
  step_factor: float = option(0.1, 'step: factor of a fall', low=0, high=1)
  cycle_end: float = option(
    1.0,
    "factor that the cycle's weights come to by the end of the run, linearly "
    'by steps; 1: they stay (Better Cycles, arXiv:2408.15374)',
    low=0,
  )


@dataclasses.dataclass(frozen=True)
class LogConfig(Section):
  """What a run writes, and how often."""

  _path: ClassVar[str] = 'config.log'

  metrics_every_steps: int = option(10, 'metrics.jsonl, TensorBoard', low=1)
  samples_every_steps: int = option(
    0, 'sample sheets; 0 makes about sixteen over the run', low=0
  )
  num_samples: int = option(
    6, 'test images of each side on a sample sheet', low=1, high=64
  )
  checkpoint_every_steps: int = option(
    0, 'checkpoints; 0 makes about ten over the run', low=0
  )
  keep_checkpoints: int = option(3, 'older ones are deleted', low=1)
  best_metric: str = option(
    '',
    "keep the best checkpoint too, by this metric: 'generator/loss', "
    "'evaluation/ab/kid'",
  )
  best_mode: str = option(
    'auto',
    'whether a lower or a higher value is better; auto: as is known of the '
    'metric',
    choices=('auto', 'min', 'max'),
  )
  evaluate_every_steps: int = option(
    0,
    'scores of the test images, also at the last step; they are metrics and '
    'make the checkpoint of their step; 0: none while it trains',
    low=0,
  )
  evaluate_features: str = option(
    'none',
    'the network of FID and KID, or of fd_effnet and kd_effnet, in these '
    'scores; auto: inception where its weights are found, else effnet where '
    'it is installed',
    choices=('none', 'auto', 'inception', 'effnet'),
  )
  evaluate_images: int = option(
    200, 'test images of each side for these scores, at most', low=2
  )
  evaluate_pairs: str = option(
    'auto',
    'auto: test images of one name in both folders are pairs, and compared; '
    'none: they are not',
    choices=('auto', 'none'),
  )
  evaluate_palette: str = option(
    '', "colours of label maps: 'cityscapes', or a file of them; '' for none"
  )
  on_save_error: str = option(
    'retry',
    'when a checkpoint can not be written: go on and try again at the next, '
    'or end the run',
    choices=('retry', 'stop'),
  )
  doctor: bool = option(
    True, 'watch for the usual diseases of training, and say so'
  )


@dataclasses.dataclass(frozen=True)
class DistributedConfig(Section):
  """Several processes of one run, started alike, each with devices of its own.

  It differs from process to process, so it is no part of what a run records.
  """

  _path: ClassVar[str] = 'config.distributed'

  initialize: bool = option(
    False,
    'one of several processes: calls jax.distributed.initialize',
  )
  coordinator_address: str = option(
    '', "address:port of the first process; '': as the cluster tells"
  )
  num_processes: int = option(0, 'of them; 0: as the cluster tells', low=0)
  process_id: int = option(
    -1, 'which of them this is, from 0; -1: as the cluster tells', low=-1
  )


# What DiffAugment may do to an image, in the order in which it does.
AUGMENTATIONS = ('color', 'translation', 'cutout')


@dataclasses.dataclass(frozen=True)
class Config(Section):
  """A whole run. Sections are in the order in which a run uses them."""

  seed: int = option(
    0, "of the run's key and of the data's order", low=0, high=2**63 - 1
  )
  batch_size: int = option(4, 'pairs a step, over all devices', low=1)
  epochs: int = option(9, "passes over the larger side's images", low=1)
  steps: int = option(0, 'steps in all, in place of epochs; 0: epochs', low=0)
  steps_per_epoch: int = option(
    0, 'for the schedule; 0: from the number of images', low=0
  )
  pool_size: int = option(
    0, 'past fakes kept for the discriminators; the paper has 50', low=0
  )
  diff_augment: str = option(
    '',
    'changes to all that the discriminators see, for small sets: '
    "'color,translation,cutout' or some of them; '' for none (DiffAugment, "
    'arXiv:2006.10738)',
  )
  ema_decay: float = option(
    0.0,
    "of the generators' running average, which then translates; 0 keeps none "
    '(arXiv:1806.04498)',
    low=0,
    high=0.99999,
  )
  init_from: str = option(
    '',
    "begin with another run's networks: the folder of a run or a checkpoint, "
    "or what cyclegan import made; '': with fresh ones",
  )
  init_discriminators: bool = option(
    True, 'with its discriminators too, if they were trained'
  )
  init_sha256: str = option(
    '',
    "of the networks in init_from; '': of those that are there when the run "
    'begins',
  )
  warmup_steps: int = option(
    0,
    'first steps in which the discriminators learn alone, so that fresh ones '
    'do not spoil trained generators',
    low=0,
  )
  num_devices: int = option(0, 'accelerators to use; 0: all', low=0)
  deterministic: bool = option(
    False, 'the same bits in two runs on a GPU too, at some cost of speed'
  )
  remat: bool = option(
    False,
    "compute the generators' activations again for the gradient, in place of "
    'keeping them: less memory for more time on GPUs and TPUs; on CPUs XLA '
    'keeps them all the same',
  )
  accumulate: int = option(
    1,
    "parts of a device's batch that are computed one after another, for less "
    'memory; on CPUs it takes about three times as long; batch norm then takes '
    'its statistics over a part',
    low=1,
  )
  profile: bool = option(
    False, "a trace of five steps by JAX's profiler, in the run's profile/"
  )
  max_skipped_steps: int = option(
    10, 'steps skipped for a loss that is not finite before the run ends', low=0
  )
  data: DataConfig = DataConfig()
  generator: GeneratorConfig = GeneratorConfig()
  discriminator: DiscriminatorConfig = DiscriminatorConfig()
  loss: LossConfig = LossConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  schedule: ScheduleConfig = ScheduleConfig()
  log: LogConfig = LogConfig()
  distributed: DistributedConfig = DistributedConfig()

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in self.diff_augment.split(',') if self.diff_augment else ():
      if name not in AUGMENTATIONS:
        raise ConfigError(
          f'config.diff_augment={self.diff_augment!r} has {name!r}: give some '
          f"of {', '.join(AUGMENTATIONS)} with commas between, or '' for none"
        )
    _check_sizes(self)

  def channels(self, domain: str) -> int:
    """Channels of the images of domain 'a' or 'b'."""
    return {'a': self.data.channels_a, 'b': self.data.channels_b}[domain]

  @property
  def uses_identity(self) -> bool:
    """Whether channels are equal and the identity loss has some weight."""
    same = self.data.channels_a == self.data.channels_b
    return same and max(self.loss.identity_a, self.loss.identity_b) > 0

  def replace(self, **changes: Any) -> Self:
    """A copy with some options changed; `data={'size': 128}` goes inside."""
    for name, value in changes.items():
      section = getattr(self, name, None)
      if isinstance(section, Section) and isinstance(value, Mapping):
        changes[name] = dataclasses.replace(section, **value)
    return dataclasses.replace(self, **changes)


def _check_sizes(config: Config) -> None:
  """Raises ConfigError where image size, crop and networks don't fit."""
  data, gen = config.data, config.generator
  if data.preprocess != 'crop' and data.load_size < data.size:
    raise ConfigError(
      f'config.data.load_size={data.load_size} is smaller than the crop '
      f'config.data.size={data.size}: raise one or lower the other'
    )
  multiple = size_multiple(gen)
  if gen.name == 'vit_unet' and 8 * gen.filters % gen.heads:
    raise ConfigError(
      f'config.generator.heads={gen.heads} does not divide 8 * config.'
      f'generator.filters={8 * gen.filters}: take a number that does'
    )
  if gen.name in ('keras_unet', 'torch_unet') and gen.isize & (gen.isize - 1):
    raise ConfigError(
      f'config.generator.isize={gen.isize} is not a power of two'
    )
  if gen.name == 'keras_unet' and gen.fixed_input_size:
    if data.size != gen.isize:
      raise ConfigError(
        f'config.data.size={data.size} does not fit the network, which takes '
        f'{gen.isize}: make config.generator.isize, a power of two, equal to '
        'it, or set config.generator.fixed_input_size=False for multiples'
      )
  elif data.size % multiple:
    raise ConfigError(
      f'config.data.size={data.size} does not fit {gen.name}, which takes '
      f'multiples of {multiple}: the nearest is '
      f'{max(1, round(data.size / multiple)) * multiple}'
    )
  disc = config.discriminator
  if logits_size(disc, data.size) < 1:
    layers = disc.layers
    while (
      layers
      and logits_size(dataclasses.replace(disc, layers=layers), data.size) < 1
    ):
      layers -= 1
    raise ConfigError(
      f'config.data.size={data.size} is too small for '
      f'config.discriminator.layers={disc.layers}: '
      + (f'lower it to {layers}' if layers else 'raise the size')
    )


def logits_size(discriminator: DiscriminatorConfig, size: int) -> int:
  """Height and width of the logits for a square image; below 1 is none."""
  if discriminator.name == 'pixelgan':
    return size
  is_keras = discriminator.name == 'keras_patchgan'
  for _ in range(discriminator.layers):
    size = (size + is_keras) // 2
  is_same = is_keras and discriminator.last_layers == 'same'
  return size if is_same else size - 2


def size_multiple(generator: GeneratorConfig) -> int:
  """The number that divides any height and width the generator takes."""
  return {'resnet': 4, 'vit_unet': 16}.get(generator.name, generator.isize)


S = TypeVar('S', bound=Section)


def to_config_dict(config: Section) -> ml_collections.ConfigDict:
  """The config as an editable ConfigDict, for files in configs/."""
  return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: Mapping[str, Any]) -> Config:
  """The config of a ConfigDict or of nested dicts, as read from JSON.

  Options that are left out have their defaults.

  Raises:
    ConfigError: an option is unknown, of a wrong type or out of range; the
      message holds its dotted path.
  """
  return _section_from(Config, values, 'config')


def _section_from(kind: type[S], values: Any, path: str) -> S:
  fields = {field.name: field for field in dataclasses.fields(kind)}
  if not isinstance(values, Mapping | ml_collections.ConfigDict):
    raise ConfigError(
      f'{path}={values!r} is a single value: {path} is a group of options, '
      f'such as {path}.{next(iter(fields))}'
    )
  built = {}
  for name, value in values.items():
    if name not in fields:
      raise ConfigError(unknown_option(f'{path}.{name}'))
    default = fields[name].default
    if isinstance(default, Section):
      value = _section_from(type(default), value, f'{path}.{name}')
    built[name] = value
  return kind(**built)


def option_paths() -> list[str]:
  """Every option's dotted path, 'config.seed' to 'config.log...'."""
  paths = []
  for field in dataclasses.fields(Config):
    if isinstance(field.default, Section):
      inner = dataclasses.fields(field.default)
      paths += [f'config.{field.name}.{each.name}' for each in inner]
    else:
      paths.append(f'config.{field.name}')
  return paths


def option_at(path: str) -> dataclasses.Field[Any]:
  """The field of an option's dotted path, with its default and range."""
  kind: Any = Config
  for name in path.split('.')[1:]:
    field = {each.name: each for each in dataclasses.fields(kind)}[name]
    kind = type(field.default)
  return field


def unknown_option(path: str) -> str:
  """The message for an option that does not exist, with the nearest one."""
  *_, group, leaf = path.split('.')
  known = option_paths()
  names = {each: each.split('.')[-1] for each in known}
  siblings = [each for each in known if each.split('.')[-2] == group]
  # The right name in the wrong group, an abbreviation, part of a name, ...
  guesses = [
    *(each for each in known if names[each] == leaf),
    *(each for each in known if _initials(names[each]) == leaf),
    *difflib.get_close_matches(path, siblings, n=1, cutoff=0.8),
    *(each for each in siblings if leaf in names[each]),
    *difflib.get_close_matches(path, known, n=1, cutoff=0.0),
  ]
  shown = path if path.isprintable() else repr(path)
  return f'{shown} does not exist: did you mean {guesses[0]}?'


def _initials(name: str) -> str:
  return ''.join(word[0] for word in name.split('_'))


def differences(old: Config, new: Config) -> list[str]:
  """The options in which two configs differ, as 'path: old -> new'."""
  flat_old, flat_new = _flat(old), _flat(new)
  return [
    f'{path}: {flat_old[path]!r} -> {flat_new[path]!r}'
    for path in flat_old
    if flat_old[path] != flat_new[path]
  ]


def _flat(config: Config) -> dict[str, Any]:
  flat = {}
  for path in option_paths():
    value: Any = config
    for name in path.split('.')[1:]:
      value = getattr(value, name)
    flat[path] = value
  return flat

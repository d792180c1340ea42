"""Every option of a run: default, range, meaning, and what depends on it.

All defaults are here. `Config()` is the default recipe; the files in
`configs/` edit it. A config is frozen and hashable, so it can be a static
argument of `jax.jit`: equal configs do not retrace.
"""

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

import ml_collections

from cyclegan_jax import register
from cyclegan_jax.errors import ConfigError

T = TypeVar('T')

Direction = Literal['ab', 'ba']


def option(
  default: T,
  help: str,
  *,
  choices: tuple[T, ...] | None = None,
  part: str = '',
  low: float | None = None,
  high: float | None = None,
  used_by: tuple[str, ...] = (),
  needs: str = '',
  is_source: bool = False,
  is_path: bool = False,
  may_change: bool = False,
  keeps_shapes: bool = False,
) -> T:
  """Declares an option: a dataclass field with everything known about it.

  Args:
    default: the default; its type is the option's type.
    help: what the option does, complete on its own.
    choices: the allowed values, if they can be listed.
    part: kind of the parts in `register` that are also allowed.
    low: least allowed value.
    high: largest allowed value.
    used_by: values of the section's selector, its `name`, for which the option
      has an effect; empty for all.
    needs: path of another option that must be set for an effect.
    is_source: whether it says where the images come from.
    is_path: whether it names a file or a folder.
    may_change: whether a run may be resumed with another value, since it has
      no effect on what is learned.
    keeps_shapes: whether it makes another network of the same parameters.
  """
  return dataclasses.field(
    default=default,
    metadata={
      'help': help,
      'choices': choices,
      'part': part,
      'low': low,
      'high': high,
      'used_by': used_by,
      'needs': needs,
      'is_source': is_source,
      'is_path': is_path,
      'may_change': may_change,
      'keeps_shapes': keeps_shapes,
    },
  )


@dataclasses.dataclass(frozen=True)
class Section:
  """A group of options that checks itself when it is made."""

  _path: ClassVar[str] = 'config'
  _selector: ClassVar[str] = 'name'

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
  choices, part = field.metadata['choices'], field.metadata['part']
  if choices and value not in choices:
    if not part:
      known = ', '.join(str(choice) for choice in choices)
      raise ConfigError(f'{path}={value!r} is unknown: choose from {known}')
    if not register.is_known(part, value):
      known = ', '.join([*choices, *register.names(part)])
      raise ConfigError(
        f'{path}={value!r} is unknown: choose from {known}, or pass the '
        '--plugin=FILE.py that registers it'
      )
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


# Ranges of Hounsfield units, by what they show.
WINDOWS = {
  'ct_full': (-1024.0, 3071.0),
  'ct_bone': (-500.0, 1300.0),
  'ct_lung': (-1350.0, 150.0),
  'ct_soft': (-160.0, 240.0),
  'ct_brain': (0.0, 80.0),
}
# Sample sheets and checkpoints of a run, about, by default.
DEFAULT_SHEETS = 16
DEFAULT_CHECKPOINTS = 10
# How the values of image files are stored.
DTYPES = ('uint8', 'uint16', 'int16', 'float32')
DICOM_CODE = re.compile('[A-Z0-9_]{1,16}')
_MAX_NAME = 40  # characters of a domain's name


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
  """Which images, and how they become batches."""

  _path: ClassVar[str] = 'config.data'

  name: str = option(
    'embedded',
    'where images come from: drawn by code, your folders, TFDS, or sequences '
    'that a program passes to train()',
    choices=register.BUILT_IN['source'],
    part='source',
    is_source=True,
  )
  path: str = option(
    '',
    'folder: holds trainA, trainB, testA, testB, or is a .zip of them; tfds: '
    'its data_dir',
    used_by=('folder', 'tfds'),
    is_source=True,
    is_path=True,
  )
  train_a: str = option(
    '',
    'training images of domain a, a folder or a .zip, instead of path/trainA',
    used_by=('folder',),
    is_source=True,
    is_path=True,
  )
  train_b: str = option(
    '',
    'training images of domain b, a folder or a .zip, instead of path/trainB',
    used_by=('folder',),
    is_source=True,
    is_path=True,
  )
  test_a: str = option(
    '',
    'test images of domain a, a folder or a .zip (optional)',
    used_by=('folder',),
    is_source=True,
    is_path=True,
  )
  test_b: str = option(
    '',
    'test images of domain b, a folder or a .zip (optional)',
    used_by=('folder',),
    is_source=True,
    is_path=True,
  )
  dataset: str = option(
    '',
    "one data set with both domains, such as 'cycle_gan/horse2zebra'",
    used_by=('tfds',),
    is_source=True,
  )
  dataset_a: str = option(
    '',
    "a data set with the images of domain a, such as 'mnist'",
    used_by=('tfds',),
    is_source=True,
  )
  dataset_b: str = option(
    '',
    'a data set with the images of domain b',
    used_by=('tfds',),
    is_source=True,
  )
  name_a: str = option(
    '',
    "what a's images show, such as horse, for people: on pages and sample "
    "sheets, in tables, messages and names of exported files; '' is horse for "
    'drawings, else a',
    may_change=True,
  )
  name_b: str = option(
    '', "what b's images show, such as zebra, likewise", may_change=True
  )
  num_train: int = option(
    400, 'training drawings per domain', low=1, used_by=('embedded',)
  )
  num_test: int = option(
    64, 'test drawings per domain', low=1, used_by=('embedded',)
  )
  size: int = option(64, 'height and width that the networks see', low=8)
  load_size: int = option(
    0,
    'size before the crop; equal to size for no crop; 0 takes size for '
    "drawings, and for other images 143/128 of it, as the authors' code does",
    low=0,
  )
  preprocess: str = option(
    'resize_and_crop',
    'resize_and_crop: to load_size squared, then a random crop; crop: a '
    'random crop of the image as it is; scale_and_crop: the shorter side to '
    'load_size, then a random crop; resize_and_center_crop: to load_size '
    'squared, then a center crop (the Keras note)',
    choices=(
      'resize_and_crop',
      'crop',
      'scale_and_crop',
      'resize_and_center_crop',
    ),
  )
  interpolation: str = option(
    'bicubic', 'resampling filter', choices=('bilinear', 'bicubic', 'lanczos')
  )
  flip: bool = option(True, 'mirror half of the training images')
  paired_share: float = option(
    0.5,
    'with loss.paired_weight: share of the examples that are pairs, images of '
    'the same name in both folders; the rest are sampled independently',
    low=0.001,
    high=1,
    used_by=('folder',),
    needs='config.loss.paired_weight',
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
  window_a: str = option(
    'none',
    'sets low_a and high_a to a common range of Hounsfield units: '
    + ', '.join(
      f'{name} {low:g} to {high:g}' for name, (low, high) in WINDOWS.items()
    ),
    choices=('none', *WINDOWS),
  )
  window_b: str = option(
    'none', 'sets low_b and high_b, likewise', choices=('none', *WINDOWS)
  )
  modality_a: str = option(
    '',
    "modality of DICOM translations into a, such as MR; '' is that of a's "
    'DICOM training files if all are of one, CT with a window, else OT (other)',
    may_change=True,
  )
  modality_b: str = option(
    '', 'modality of DICOM translations into b, likewise', may_change=True
  )
  rescale_type_a: str = option(
    '',
    "units that DICOM translations into a name; '' is those of a's DICOM "
    'training files if all are of one, HU with a window, else US (unspecified)',
    may_change=True,
  )
  rescale_type_b: str = option(
    '', 'units that DICOM translations into b name, likewise', may_change=True
  )
  pages: str = option(
    'first',
    'pages of a TIFF file: the first, or all of its size, each as an image of '
    'its own; translate then writes stacks',
    choices=('first', 'all'),
    used_by=('folder',),
  )
  slice_axis: int = option(
    2,
    'axis of NIfTI volumes along which their slices lie, the last of three by '
    'default',
    low=0,
    high=2,
    used_by=('folder',),
  )
  num_workers: int = option(
    2,
    'decoding threads; 0 decodes in the training loop, which then cannot '
    'report that it waits for data',
    low=0,
    high=256,
    may_change=True,
  )
  prefetch_batches: int = option(
    4, 'batches decoded ahead', low=1, high=1024, may_change=True
  )
  cache_gib: float = option(
    2.0,
    'memory for decoded images, in GiB; others are decoded again each epoch',
    low=0,
    may_change=True,
  )
  max_pixels: int = option(
    100_000_000, 'a file with more pixels is not decoded', low=1
  )
  max_corrupt: int = option(
    10,
    'unreadable images that are skipped before the run ends; a volume counts '
    'once',
    low=0,
    may_change=True,
  )
  strict: bool = option(
    False,
    'end the run, instead of warning, when images changed since it began',
    may_change=True,
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
      window = getattr(self, f'window_{domain}')
      if window != 'none':
        if low == high == 0:
          low, high = WINDOWS[window]
          object.__setattr__(self, f'low_{domain}', low)
          object.__setattr__(self, f'high_{domain}', high)
        elif (low, high) != WINDOWS[window]:
          raise ConfigError(
            f'config.data.window_{domain}={window!r} is {WINDOWS[window][0]:g} '
            f'to {WINDOWS[window][1]:g}, but config.data.low_{domain}={low:g} '
            f'and config.data.high_{domain}={high:g}: set the window, or low '
            'and high'
          )
        for name, code in (('modality', 'CT'), ('rescale_type', 'HU')):
          if not getattr(self, f'{name}_{domain}'):
            object.__setattr__(self, f'{name}_{domain}', code)
      for name in (f'modality_{domain}', f'rescale_type_{domain}'):
        if getattr(self, name) and not DICOM_CODE.fullmatch(
          getattr(self, name)
        ):
          raise ConfigError(
            f'config.data.{name}={getattr(self, name)!r} is no code of DICOM: '
            'give up to 16 capital letters, digits and underscores'
          )
      if low > high or low == high != 0:
        raise ConfigError(
          f'config.data.low_{domain}={low} is not below config.data.'
          f'high_{domain}={high}: set both, or both to 0 for the full range'
        )
      name = getattr(self, f'name_{domain}')
      if len(name) > _MAX_NAME or not name.isprintable():
        raise ConfigError(
          f'config.data.name_{domain}={name!r} is not a name: give up to '
          f'{_MAX_NAME} visible characters'
        )
    if self.name_of('a') == self.name_of('b'):
      raise ConfigError(
        f'config.data.name_a={self.name_a!r} and config.data.name_b='
        f'{self.name_b!r} are both shown as {self.name_of("a")!r}: give '
        'different names'
      )

  def name_of(self, domain: str) -> str:
    """Name of a domain that is shown to people."""
    name = {'a': self.name_a, 'b': self.name_b}[domain]
    if not name and self.name == 'embedded':
      name = {'a': 'horse', 'b': 'zebra'}[domain]
    return name or domain

  def way(self, direction: str, arrow: str = ' → ') -> str:
    """Name of a direction that is shown to people: 'horse → zebra'."""
    return arrow.join(self.name_of(domain) for domain in direction)

  @property
  def size_before_crop(self) -> int:
    """Load_size, or what it is by default for this size."""
    if self.load_size:
      return self.load_size
    return self.size if self.name == 'embedded' else self.size * 143 // 128


@dataclasses.dataclass(frozen=True)
class GeneratorConfig(Section):
  """The network that translates images, built twice."""

  _path: ClassVar[str] = 'config.generator'

  name: str = option(
    'keras_unet',
    "the Keras note's U-Net, the paper's ResNet, the U-Net of the authors' "
    "PyTorch code, or UVCGAN's U-Net around a transformer (arXiv:2203.02557)",
    choices=register.BUILT_IN['generator'],
    part='generator',
    keeps_shapes=True,
  )
  filters: int = option(24, 'filters of the first layer', low=1)
  isize: int = option(
    64,
    'input size of the U-Net, a power of two; its depth is log2(isize)',
    low=4,
    high=4096,
    used_by=('keras_unet', 'torch_unet'),
  )
  fixed_input_size: bool = option(
    True,
    'accept isize only, not its multiples',
    used_by=('keras_unet',),
  )
  blocks: int = option(
    9,
    'residual blocks (resnet) or transformer blocks (vit_unet)',
    low=1,
    high=64,
    used_by=('resnet', 'vit_unet'),
  )
  heads: int = option(
    8,
    'attention heads; a divisor of 8 * filters',
    low=1,
    used_by=('vit_unet',),
  )
  norm: str = option(
    'batch',
    "normalization, always by the batch's own statistics",
    choices=('batch', 'instance', 'none'),
    keeps_shapes=True,
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
    keeps_shapes=True,
  )
  padding: str = option(
    'zero',
    'padding at the border',
    choices=('zero', 'reflect'),
    keeps_shapes=True,
  )
  init: str = option(
    'glorot_uniform',
    "initialization: Keras's default, as in the Keras note, or N(0, 0.02), as "
    'in the paper',
    choices=('glorot_uniform', 'normal'),
  )
  dtype: str = option(
    'float32',
    'type of the computation; parameters stay float32 (float64 is for checking '
    'the algebra and needs jax_enable_x64)',
    choices=('float32', 'bfloat16', 'float64'),
  )


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig(Section):
  """The network that classifies patches as real or fake, built twice."""

  _path: ClassVar[str] = 'config.discriminator'

  name: str = option(
    'keras_patchgan',
    "the Keras note's PatchGAN, the paper's n-layer PatchGAN, or the paper's "
    'PixelGAN',
    choices=register.BUILT_IN['discriminator'],
    part='discriminator',
    keeps_shapes=True,
  )
  filters: int = option(24, 'filters of the first layer', low=1)
  layers: int = option(
    3,
    'strided layers: max_layers in the Keras note, n_layers in the paper',
    low=1,
    high=16,
    used_by=('keras_patchgan', 'patchgan'),
  )
  last_layers: str = option(
    'same',
    "padding of the last two layers: 'same' as the Keras note lists them, or "
    'one pixel and valid as in the notebook that the note came from',
    choices=('same', 'valid'),
    used_by=('keras_patchgan',),
    keeps_shapes=True,
  )
  norm: str = option(
    'batch',
    "normalization, always by the batch's own statistics",
    choices=('batch', 'instance', 'none'),
    keeps_shapes=True,
  )
  affine: bool = option(True, 'the norm learns a scale and a shift')
  spectral_norm: bool = option(
    False,
    'divide each kernel by its greatest singular value (arXiv:1802.05957); '
    "with norm='none', as a norm behind a convolution undoes it",
  )
  init: str = option(
    'glorot_uniform',
    "initialization: Keras's default, as in the Keras note, or N(0, 0.02), as "
    'in the paper',
    choices=('glorot_uniform', 'normal'),
  )
  dtype: str = option(
    'float32',
    'type of the computation; parameters stay float32',
    choices=('float32', 'bfloat16', 'float64'),
  )


@dataclasses.dataclass(frozen=True)
class LossConfig(Section):
  """The objective; weights are absolute, not relative to each other."""

  _path: ClassVar[str] = 'config.loss'
  _selector: ClassVar[str] = 'adversarial'

  adversarial: str = option(
    'vanilla',
    "minimax is the Keras note's formula as written; vanilla trains the "
    'generator on -log D; wgan_gp makes one update of the critic per update of '
    'the generator, where the paper makes five',
    choices=register.BUILT_IN['adversarial_loss'],
    part='adversarial_loss',
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
    3.0,
    'standard deviation of that blur, in pixels',
    low=0.1,
    high=1000,
    needs='config.loss.cycle_blur',
  )
  identity_a: float = option(0.0, 'weight of |G_ba(a) - a|', low=0)
  identity_b: float = option(0.0, 'weight of |G_ab(b) - b|', low=0)
  paired_weight: float = option(
    0.0,
    'weight of |G_ab(a) - b| + |G_ba(b) - a| for paired examples; 0 ignores '
    'pairs',
    low=0,
  )
  terms: str = option(
    '',
    "further terms of the generators' loss, registered by a plugin, with "
    "their weights: 'total_variation=0.1,perceptual=1'",
  )
  discriminator: float = option(
    1.0, "weight of the discriminators' loss; the paper halves it", low=0
  )
  gradient_penalty: float = option(
    10.0, 'weight of (|grad D| - 1)^2', low=0, used_by=('wgan_gp',)
  )
  r1: float = option(
    0.0,
    'weight of the zero-centered penalty |grad D(real)|^2 / 2 '
    '(arXiv:1801.04406)',
    low=0,
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in self.term_weights:
      if not register.is_known('loss_term', name):
        raise ConfigError(
          f'config.loss.terms={self.terms!r} has {name!r}, which is not '
          'registered: pass the --plugin=FILE.py that registers it'
        )

  @property
  def term_weights(self) -> dict[str, float]:
    """Weights of the registered terms, by name."""
    weights = {}
    for text in filter(None, self.terms.split(',')):
      name, _, weight = (part.strip() for part in text.partition('='))
      try:
        weights[name] = float(weight)
      except ValueError:
        weights[name] = math.nan
      if not math.isfinite(weights[name]):
        raise ConfigError(
          f'config.loss.terms={self.terms!r}: {text!r} is not a name and a '
          'weight, such as total_variation=0.1'
        )
    return weights


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Section):
  """How gradients become updates, for generators and discriminators."""

  _path: ClassVar[str] = 'config.optimizer'

  name: str = option(
    'adam', 'the update rule', choices=('adam', 'adamw', 'rmsprop', 'sgd')
  )
  learning_rate: float = option(
    5e-4, 'learning rate at the start of the schedule', low=0
  )
  disc_learning_rate_ratio: float = option(
    1.0,
    "the discriminators' learning rate over the generators' (two time scales, "
    'arXiv:1706.08500)',
    low=0,
  )
  b1: float = option(
    0.5,
    'decay of the first moment (sgd: momentum)',
    low=0,
    high=0.9999,
    used_by=('adam', 'adamw', 'sgd'),
  )
  b2: float = option(
    0.999,
    'decay of the second moment',
    low=0,
    high=0.999999,
    used_by=('adam', 'adamw', 'rmsprop'),
  )
  eps: float = option(
    1e-8,
    'added to the denominator',
    low=1e-16,
    used_by=('adam', 'adamw', 'rmsprop'),
  )
  weight_decay: float = option(
    0.0, 'decoupled weight decay', low=0, used_by=('adamw',)
  )


@dataclasses.dataclass(frozen=True)
class ScheduleConfig(Section):
  """Schedules of the learning rate and of the cycle weight."""

  _path: ClassVar[str] = 'config.schedule'

  name: str = option(
    'constant',
    'learning-rate schedule; linear is constant, then falls to '
    '1 / (decay_epochs + 1) of the rate in the last epoch',
    choices=('constant', 'linear', 'cosine', 'step'),
  )
  decay_epochs: int = option(
    -1,
    'epochs at the end of the run over which the rate falls; -1 takes the '
    'second half of the run',
    low=-1,
    used_by=('linear',),
  )
  step_epochs: int = option(
    50, 'epochs between two drops of the rate', low=1, used_by=('step',)
  )
  step_factor: float = option(
    0.1, 'factor of each drop', low=0, high=1, used_by=('step',)
  )
  max_rate: float = option(
    0.0,
    "upper limit of the generators' learning rate; 0 for none. Set when a "
    'finished run is extended, so that its rate does not rise again',
    low=0,
  )
  cycle_end: float = option(
    1.0,
    'factor of the cycle weights at the end of the run, approached linearly; '
    '1 keeps them constant (Better Cycles, arXiv:2408.15374)',
    low=0,
  )


@dataclasses.dataclass(frozen=True)
class LogConfig(Section):
  """Metrics and sample sheets of a run."""

  _path: ClassVar[str] = 'config.log'

  metrics_every_steps: int = option(
    10,
    'steps between two records in metrics.jsonl and TensorBoard',
    low=1,
    may_change=True,
  )
  samples_every_steps: int = option(
    0,
    'steps between two sample sheets; 0 makes about sixteen over the run',
    low=0,
    may_change=True,
  )
  num_samples: int = option(
    6,
    'test images of each domain on a sample sheet',
    low=1,
    high=64,
    may_change=True,
  )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Section):
  """When checkpoints are saved, and which are kept."""

  _path: ClassVar[str] = 'config.checkpoint'

  every_steps: int = option(
    0,
    'steps between two checkpoints; 0 saves about ten over the run',
    low=0,
    may_change=True,
  )
  keep: int = option(
    3, 'newest checkpoints that are kept', low=1, may_change=True
  )
  best_metric: str = option(
    '',
    'also keep the best checkpoint by this metric, such as '
    "'generator/loss' or 'evaluation/ab/kid'",
    may_change=True,
  )
  best_mode: str = option(
    'auto',
    'whether a lower or a higher value of best_metric is better; auto uses '
    'what is known about the metric',
    choices=('auto', 'min', 'max'),
    needs='config.checkpoint.best_metric',
    may_change=True,
  )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(Section):
  """Scores of the test images during training."""

  _path: ClassVar[str] = 'config.evaluation'

  every_steps: int = option(
    0,
    'steps between two evaluations, which are recorded as metrics and save a '
    'checkpoint; the last step is also evaluated; 0 evaluates never',
    low=0,
    may_change=True,
  )
  features: str = option(
    'none',
    'feature network: inception for FID and KID, effnet for fd_effnet and '
    'kd_effnet; auto takes inception if its weights are found, else effnet if '
    'it is installed',
    choices=('none', 'auto', 'inception', 'effnet'),
    needs='config.evaluation.every_steps',
    may_change=True,
  )
  max_images: int = option(
    200,
    'test images of each domain, at most',
    low=2,
    needs='config.evaluation.every_steps',
    may_change=True,
  )
  pairs: str = option(
    'auto',
    'auto compares test images of the same name in both folders as pairs; none '
    'ignores matching names',
    choices=('auto', 'none'),
    may_change=True,
  )
  palette: str = option(
    '',
    "colors of label maps: 'cityscapes', a file, or '' for no label maps",
    is_path=True,
    may_change=True,
  )


@dataclasses.dataclass(frozen=True)
class DiagnosticsConfig(Section):
  """Warnings about common failures of GAN training."""

  _path: ClassVar[str] = 'config.diagnostics'

  enabled: bool = option(
    True,
    'check samples and losses for common failures, and warn with advice',
    may_change=True,
  )


@dataclasses.dataclass(frozen=True)
class FaultsConfig(Section):
  """What a run does when something fails."""

  _path: ClassVar[str] = 'config.faults'

  on_save_error: str = option(
    'retry',
    'when a checkpoint cannot be written: continue and retry at the next one, '
    'or stop the run',
    choices=('retry', 'stop'),
    may_change=True,
  )
  max_skipped_steps: int = option(
    10,
    'steps that are skipped for a non-finite loss before the run ends',
    low=0,
    may_change=True,
  )


@dataclasses.dataclass(frozen=True)
class DistributedConfig(Section):
  """Several processes that train one run, each with its own devices.

  These options differ between processes, so a run does not record them.
  """

  _path: ClassVar[str] = 'config.distributed'

  initialize: bool = option(
    False,
    'this is one of several processes: calls jax.distributed.initialize',
  )
  coordinator_address: str = option(
    '', "address:port of the first process; '' asks the cluster"
  )
  num_processes: int = option(
    0, 'number of processes; 0 asks the cluster', low=0
  )
  process_id: int = option(
    -1, 'index of this process, from 0; -1 asks the cluster', low=-1
  )


# What DiffAugment may do to an image, in the order in which it does.
AUGMENTATIONS = ('color', 'translation', 'cutout')


@dataclasses.dataclass(frozen=True)
class Config(Section):
  """A whole run. Sections are in the order in which a run uses them."""

  seed: int = option(
    0, 'random seed of weights, dropout and data order', low=0, high=2**63 - 1
  )
  batch_size: int = option(4, 'pairs per step, over all devices', low=1)
  epochs: int = option(9, 'passes over the larger domain', low=1)
  steps: int = option(0, 'steps of the run; 0 takes epochs instead', low=0)
  steps_per_epoch: int = option(
    0,
    'steps per epoch; 0 computes it from the number of images; a resumed run '
    'keeps it, unless --change gives it other images or another batch size',
    low=0,
  )
  pool_size: int = option(
    0, 'past fakes kept for the discriminators; the paper has 50', low=0
  )
  diff_augment: str = option(
    '',
    'augmentation of all images that the discriminators see, for small data '
    "sets: some of 'color,translation,cutout'; '' for none (DiffAugment, "
    'arXiv:2006.10738)',
  )
  ema_decay: float = option(
    0.0,
    "decay of the generators' running average, which is then used to "
    'translate; 0 keeps none (arXiv:1806.04498)',
    low=0,
    high=0.99999,
  )
  init_from: str = option(
    '',
    'start from trained networks: a run, a checkpoint, the output of cyclegan '
    'import or of cyclegan export --format hub, or hf:owner/name for one on a '
    "hub; '' starts from random weights; on the command line, options of the "
    'networks that are not given are taken from there',
    is_path=True,
  )
  init_discriminators: bool = option(
    True,
    'with init_from: also start from its discriminators, if trained',
    needs='config.init_from',
  )
  init_sha256: str = option(
    '',
    'required checksum of the networks in init_from; recorded when the run '
    'begins',
    needs='config.init_from',
  )
  warmup_steps: int = option(
    0,
    'first steps, in which only the discriminators are trained, so that '
    'untrained ones do not spoil trained generators',
    low=0,
  )
  num_devices: int = option(
    0, 'devices to use; 0 uses all', low=0, may_change=True
  )
  deterministic: bool = option(
    False, 'make GPU runs reproducible bit by bit, at some cost of speed'
  )
  remat: bool = option(
    False,
    "recompute the generators' activations in the backward pass: less memory "
    'for more time on GPUs and TPUs; no effect on CPUs, where XLA keeps them',
  )
  accumulate: int = option(
    1,
    "parts of a device's batch that are computed one after another, to save "
    'memory; batch norm then uses the statistics of each part',
    low=1,
  )
  plugins: str = option(
    '',
    'plugins of the run, PATH@SHA256 with commas between; recorded when the '
    'run starts',
    may_change=True,
  )
  profile: bool = option(
    False,
    "trace five steps with JAX's profiler into the run's profile/",
    may_change=True,
  )
  data: DataConfig = DataConfig()
  generator: GeneratorConfig = GeneratorConfig()
  discriminator: DiscriminatorConfig = DiscriminatorConfig()
  loss: LossConfig = LossConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  schedule: ScheduleConfig = ScheduleConfig()
  log: LogConfig = LogConfig()
  checkpoint: CheckpointConfig = CheckpointConfig()
  evaluation: EvaluationConfig = EvaluationConfig()
  diagnostics: DiagnosticsConfig = DiagnosticsConfig()
  faults: FaultsConfig = FaultsConfig()
  distributed: DistributedConfig = DistributedConfig()

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in self.diff_augment.split(',') if self.diff_augment else ():
      if name not in AUGMENTATIONS:
        raise ConfigError(
          f'config.diff_augment={self.diff_augment!r} has {name!r}: give some '
          f"of {', '.join(AUGMENTATIONS)} with commas between, or '' for none"
        )
    _check_load_size(self)
    if not self.init_from:  # else the networks' options are not final
      check_sizes(self)

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


def _check_load_size(config: Config) -> None:
  data = config.data
  if data.preprocess != 'crop' and data.size_before_crop < data.size:
    raise ConfigError(
      f'config.data.load_size={data.load_size} is smaller than the crop '
      f'config.data.size={data.size}: raise one or lower the other'
    )


def check_sizes(config: Config) -> None:
  """Checks that the networks take images of config.data.size.

  A config checks itself, unless it has init_from: a run takes the options of
  the networks from there, and then calls this.

  Raises:
    ConfigError: they do not.
  """
  data, gen = config.data, config.generator
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
  if discriminator.name not in ('keras_patchgan', 'patchgan'):
    return size  # a registered one's is not known
  is_keras = discriminator.name == 'keras_patchgan'
  for _ in range(discriminator.layers):
    size = (size + is_keras) // 2
  is_same = is_keras and discriminator.last_layers == 'same'
  return size if is_same else size - 2


def size_multiple(generator: GeneratorConfig) -> int:
  """The number that divides any height and width the generator takes."""
  if generator.name in ('keras_unet', 'torch_unet'):
    return generator.isize
  known = {'resnet': 4, 'vit_unet': 16}
  return known.get(generator.name) or register.size_multiple(generator.name)


# Names that other trainers have for our options.
_OTHER_NAMES = {
  'batch': 'config.batch_size',
  'n_epochs': 'config.epochs',
  'num_epochs': 'config.epochs',
  'max_steps': 'config.steps',
  'dataroot': 'config.data.path',
  'data_dir': 'config.data.path',
  'data_path': 'config.data.path',
  'image_size': 'config.data.size',
  'img_size': 'config.data.size',
  'crop_size': 'config.data.size',
  'input_nc': 'config.data.channels_a',
  'output_nc': 'config.data.channels_b',
  'num_threads': 'config.data.num_workers',
  'netG': 'config.generator.name',
  'netD': 'config.discriminator.name',
  'ngf': 'config.generator.filters',
  'ndf': 'config.discriminator.filters',
  'gan_mode': 'config.loss.adversarial',
  'lambda_A': 'config.loss.cycle_a',
  'lambda_B': 'config.loss.cycle_b',
  'lambda_identity': 'config.loss.identity_a',
  'beta1': 'config.optimizer.b1',
  'beta2': 'config.optimizer.b2',
  'lr_policy': 'config.schedule.name',
  'n_epochs_decay': 'config.schedule.decay_epochs',
  'save_epoch_freq': 'config.checkpoint.every_steps',
  'gpus': 'config.num_devices',
  'gpu_ids': 'config.num_devices',
}

# Options that have moved.
FORMER_NAMES = {
  'log.checkpoint_every_steps': 'checkpoint.every_steps',
  'log.keep_checkpoints': 'checkpoint.keep',
  'log.best_metric': 'checkpoint.best_metric',
  'log.best_mode': 'checkpoint.best_mode',
  'log.evaluate_every_steps': 'evaluation.every_steps',
  'log.evaluate_features': 'evaluation.features',
  'log.evaluate_images': 'evaluation.max_images',
  'log.evaluate_pairs': 'evaluation.pairs',
  'log.evaluate_palette': 'evaluation.palette',
  'log.doctor': 'diagnostics.enabled',
  'log.on_save_error': 'faults.on_save_error',
  'max_skipped_steps': 'faults.max_skipped_steps',
}

S = TypeVar('S', bound=Section)


def to_config_dict(config: Section) -> ml_collections.ConfigDict:
  """The config as an editable ConfigDict, for files in configs/."""
  return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: Mapping[str, Any]) -> Config:
  """The config of a ConfigDict or of nested dicts, as read from JSON.

  Options that are left out have their defaults. Former names are accepted, as
  older runs and recipes have them.

  Raises:
    ConfigError: an option is unknown, of a wrong type or out of range; the
      message holds its dotted path.
  """
  values = _with_present_names(values)
  _expect_parts(values)
  return _section_from(Config, values, 'config')


def _with_present_names(values: Any) -> Any:
  if not isinstance(values, Mapping | ml_collections.ConfigDict):
    return values
  values = {
    name: dict(value)
    if isinstance(value, Mapping | ml_collections.ConfigDict)
    else value
    for name, value in values.items()
  }
  for former, present in FORMER_NAMES.items():
    *group, name = former.split('.')
    old = values.get(group[0]) if group else values
    if isinstance(old, dict) and name in old:
      section, new_name = present.split('.')
      new = values.setdefault(section, {})
      if isinstance(new, dict):
        new[new_name] = old.pop(name)
  return values


def _expect_parts(values: Mapping[str, Any]) -> None:
  """Accepts the names that the plugins of a recorded run registered."""
  plugins = values.get('plugins') if hasattr(values, 'get') else None
  if not isinstance(plugins, str) or not plugins:
    return
  for path in option_paths():
    *_, section, name = path.split('.')
    kind = option_at(path).metadata['part']
    if kind and isinstance(values.get(section), Mapping):
      value = values[section].get(name)
      if isinstance(value, str):
        register.expect(kind, value, plugins)
  loss = values.get('loss')
  terms = loss.get('terms') if isinstance(loss, Mapping) else None
  for text in terms.split(',') if isinstance(terms, str) else ():
    register.expect('loss_term', text.partition('=')[0].strip(), plugins)


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


def expand_paths(config: Config) -> Config:
  """Applies `expand_path` to the options that are paths.

  Raises:
    ConfigError: an option is a URL.
  """
  for path in option_paths():
    if option_at(path).metadata['is_path']:
      try:
        value = expand_path(value_at(config, path))
      except ValueError as error:
        raise ConfigError(f'{path}: {error}') from error
      *_, section, name = path.split('.')
      changes = {name: value}
      config = config.replace(
        **(changes if section == 'config' else {section: changes})
      )
  return config


def expand_path(text: str) -> str:
  """Replaces '~' and environment variables in a path.

  Shells leave both alone in a quoted path, and '~' also in --workdir=~/run.
  What exists by the name as it is stays: shells pass such names, too. So a
  folder with a '$' in its name can be used once it exists, and also what is
  to be written into it.

  Raises:
    ValueError: it is a URL, which would become a folder of that name; or it
      names a variable that is not set, or a user that does not exist.
  """
  # One letter is a drive of Windows; pathlib makes one slash of two.
  if re.match(r'[A-Za-z][A-Za-z0-9+.-]+:/', text):
    scheme = text.partition(':')[0]
    raise ValueError(
      f'{text!r} is a URL, and only local files can be used: copy the data to '
      f'a local disk, or mount {scheme}:// as a folder'
    )
  if os.path.lexists(text):
    return text
  expanded = os.path.expandvars(os.path.expanduser(text))
  for found in re.finditer(r'\$(\w+|\{[^}]*\})', text, re.ASCII):
    name = found[1].strip('{}')
    if name not in os.environ and not _is_in_existing(found[0], expanded):
      raise ValueError(
        f'{text!r}: the environment variable {name or found[0]!r} is not set: '
        'set it, or give the path without it'
      )
  if text.startswith('~') and expanded.startswith('~'):
    user = re.split(r'[/\\]', text)[0]
    if not _is_in_existing(user, expanded):
      raise ValueError(
        f'{text!r}: {user} is the home folder of no user: give another path, '
        f'or ./{user} for a folder of that name'
      )
  if text and not expanded:
    raise ValueError(f'{text!r} is empty: set the variable, or give a path')
  return expanded


def _is_in_existing(part: str, path: str) -> bool:
  """Whether the first name in a path with this part is of an existing file."""
  before, _, after = path.partition(part)
  return os.path.lexists(before + part + re.split(r'[/\\]', after)[0])


def source_options() -> tuple[str, ...]:
  """The options of config.data that say where the images come from."""
  return tuple(
    field.name
    for field in dataclasses.fields(DataConfig)
    if field.metadata['is_source']
  )


def source_of(config: DataConfig) -> str:
  """The data source for which the given source options have an effect.

  Returns:
    The source's name: 'folder' for a path, 'tfds' for a data set; that of the
    config if nothing is given, or options that no source has in common.
  """
  sources = [
    option_at(f'config.data.{name}').metadata['used_by']
    for name in source_options()
    if name != 'name' and getattr(config, name)
  ]
  common = [
    name for name in sum(sources, ()) if all(name in s for s in sources)
  ]
  return common[0] if common else config.name


def options_without_effect(
  config: Config, paths: Iterable[str]
) -> dict[str, str]:
  """Finds options that have no effect because of the value of another.

  Args:
    config: the options.
    paths: dotted paths of the options to check. An option that is '', 0 or
      False is not expected to have an effect.

  Returns:
    By path, the option that would make it count, with its value.
  """
  remedies = {}
  for path in paths:
    field, group = option_at(path), path.rpartition('.')[0]
    used_by, needs = field.metadata['used_by'], field.metadata['needs']
    if not value_at(config, path):
      continue
    section: Section = value_at(config, group)
    selector = f'{group}.{section._selector}'
    chosen = value_at(config, selector) if used_by else ''
    # A registered part may use any option.
    if used_by and chosen not in used_by and _is_built_in(selector, chosen):
      remedies[path] = f'{selector}={" or ".join(used_by)}'
    elif needs and not value_at(config, needs):
      remedies[path] = needs
    elif path == 'config.epochs' and config.steps:
      remedies[path] = 'config.steps=0'
  return remedies


def _is_built_in(path: str, value: Any) -> bool:
  return value in (option_at(path).metadata['choices'] or ())


def same_shape_options(section: type[Section]) -> list[str]:
  """The options of a network that change it, but not its parameters' shapes."""
  return [
    field.name
    for field in dataclasses.fields(section)
    if field.metadata['keeps_shapes']
  ]


def option_at(path: str) -> dataclasses.Field[Any]:
  """The field of an option's dotted path, with its default and range."""
  kind: Any = Config
  for name in path.split('.')[1:]:
    field = {each.name: each for each in dataclasses.fields(kind)}[name]
    kind = type(field.default)
  return field


def unknown_option(path: str) -> str:
  """The message for an option that does not exist, with the nearest one."""
  shown = path if path.isprintable() else repr(path)
  return f'{shown} does not exist: did you mean {similar_options(path)[0]}?'


def similar_options(path: str, *, cutoff: float = 0.0) -> list[str]:
  """The options that a wrong path may stand for, the likeliest first.

  Args:
    path: dotted path, 'config.lr'.
    cutoff: the least similarity, from 0 to 1, of an option that merely looks
      alike; with 0, there is always one.
  """
  path = path.replace('-', '_')
  *_, group, leaf = path.split('.')
  known = option_paths()
  names = {each: each.split('.')[-1] for each in known}
  siblings = [each for each in known if each.split('.')[-2] == group]
  # The right name in the wrong group, an abbreviation, part of a name, ...
  return [
    *(each for each in known if each == path),
    *(each for each in known if names[each] == leaf),
    *(each for each in known if each == _OTHER_NAMES.get(leaf)),
    *(each for each in known if _initials(names[each]) == leaf),
    *difflib.get_close_matches(path, siblings, n=1, cutoff=0.8),
    *(each for each in siblings if leaf in names[each]),
    *difflib.get_close_matches(path, known, n=1, cutoff=cutoff),
  ]


def _initials(name: str) -> str:
  return ''.join(word[0] for word in name.split('_'))


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
  """The options in which two configs differ: path -> (old, new)."""
  return {
    path: (value_at(old, path), value_at(new, path))
    for path in option_paths()
    if value_at(old, path) != value_at(new, path)
  }


def value_at(config: Config, path: str) -> Any:
  """The value of an option by its dotted path, as in `option_paths`."""
  value: Any = config
  for name in path.split('.')[1:]:
    value = getattr(value, name)
  return value

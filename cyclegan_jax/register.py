"""Registers networks, losses, data sources and metrics by name::

  import cyclegan_jax as cg

  @cg.register.loss_term('total_variation')
  def total_variation(real, fake, cycled):
    rows = jnp.abs(jnp.diff(fake, axis=1)).mean()
    return rows + jnp.abs(jnp.diff(fake, axis=2)).mean()

A file with such lines is a plugin: `--plugin=FILE.py`. A registered part is
chosen by its name, like a built-in one: `config.loss.adversarial='softplus'`.
"""

import contextlib
import hashlib
import importlib.util
import inspect
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from cyclegan_jax.errors import ConfigError, MissingPartError, one_line

T = TypeVar('T')

# Names that a plugin cannot take, since runs record parts by their names.
BUILT_IN = {
  'generator': ('keras_unet', 'resnet', 'torch_unet', 'vit_unet'),
  'discriminator': ('keras_patchgan', 'patchgan', 'pixelgan'),
  'adversarial_loss': ('minimax', 'vanilla', 'lsgan', 'hinge', 'wgan_gp'),
  'loss_term': ('adversarial', 'cycle', 'identity', 'paired', 'loss'),
  'source': ('embedded', 'folder', 'tfds', 'sequences'),
  'metric': (),
}


class _Part(NamedTuple):
  value: Any
  file: str  # that registered it, '' for an interactive session
  size_multiple: int


_parts: dict[str, dict[str, _Part]] = {kind: {} for kind in BUILT_IN}
# Files of the parts that recorded runs name: kind -> name -> files.
_recorded: dict[str, dict[str, str]] = {kind: {} for kind in BUILT_IN}
_loaded: dict[str, str] = {}  # absolute path of a plugin -> SHA-256
_loading: list[str] = []


def generator(
  name: str, *, size_multiple: int = 1
) -> Callable[[Callable[..., T]], Callable[..., T]]:
  """Registers a generator, for config.generator.name.

  The decorated function, or Flax module, takes `config` (GeneratorConfig),
  `channels` of the output and `axis_name` by keyword, and returns a module
  that maps [B, H, W, C] in [-1, 1] to [B, H, W, channels] in [-1, 1].

  Args:
    name: value of the option.
    size_multiple: number that divides every height and width it takes.
  """
  return _decorator('generator', name, size_multiple)


def discriminator(
  name: str,
) -> Callable[[Callable[..., T]], Callable[..., T]]:
  """Registers a discriminator, for config.discriminator.name.

  The decorated function, or Flax module, takes `config` (DiscriminatorConfig)
  and `axis_name` by keyword, and returns a module that maps [B, H, W, C] in
  [-1, 1] to logits [B, h, w, 1].
  """
  return _decorator('discriminator', name)


def adversarial_loss(name: str) -> Callable[[T], T]:
  """Registers an adversarial loss, for config.loss.adversarial.

  The decorated class, or object, has two functions: `generator(fake_logits)`
  and `discriminator(real_logits, fake_logits)`, from logits [B, h, w, 1] to a
  scalar that each side minimizes.
  """
  return _decorator('adversarial_loss', name)


def loss_term(
  name: str,
) -> Callable[[Callable[..., T]], Callable[..., T]]:
  """Registers a term of the generators' loss, for config.loss.terms.

  The decorated function `(real, fake, cycled) -> scalar` is called once for
  each direction: with images [B, H, W, C] in [-1, 1], their translations, and
  the translations of these back.
  """
  return _decorator('loss_term', name)


def source(name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
  """Registers a data source, for config.data.name.

  The decorated function takes the DataConfig and returns the images of
  'train_a' and 'train_b', and optionally 'test_a' and 'test_b': sequences
  (`__len__` and `__getitem__`) of arrays [h, w, C], uint8, uint16, int16 or
  float32, whose range is that of files: config.data.low_a and so on.
  `__getitem__` is called from several threads.
  """
  return _decorator('source', name)


def metric(name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
  """Registers a metric, which every evaluation then computes.

  The decorated function `(real, fake) -> [B]` takes float32 arrays
  [B, H, W, C] in [-1, 1]: test images and their translations. The score is
  the mean over all images.
  """
  return _decorator('metric', name)


def load_plugin(path: str) -> None:
  """Runs a Python file that registers parts; a second time does nothing.

  Raises:
    ConfigError: it cannot be read, or fails.
  """
  file = pathlib.Path(path).absolute()
  if str(file) in _loaded:
    return
  spec = importlib.util.spec_from_file_location(f'plugin_{file.stem}', file)
  if spec is None or spec.loader is None or not file.is_file():
    raise ConfigError(f'plugin {path} is not a Python file: pass a .py file')
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # dataclasses and pickle look it up
  # As for a config file, which may be passed as a plugin: its folder and the
  # one above come first, and `from configs import default` works anywhere.
  package = pathlib.Path(__file__).absolute().parents[1]
  old = sys.path.copy()
  sys.path[:] = [
    str(file.parent),
    str(file.parent.parent),
    *old,
    str(pathlib.Path.cwd()),
    str(package),
  ]
  with registering(file):
    try:
      spec.loader.exec_module(module)
    except ConfigError:
      raise
    except (Exception, SystemExit) as error:
      raise ConfigError(
        f'plugin {path} failed: {type(error).__name__}: {one_line(error)}'
      ) from error
    finally:
      sys.path[:] = old


@contextlib.contextmanager
def registering(file: pathlib.Path) -> Iterator[None]:
  """Records a file as the plugin of the parts registered meanwhile."""
  path = str(file.absolute())
  _loading.append(path)
  try:
    yield
  finally:
    _loading.pop()
  if any(
    part.file == path for kind in _parts.values() for part in kind.values()
  ):
    _loaded[path] = _sha256(path)


def find(kind: str, name: str) -> Any:
  """A registered part.

  Raises:
    MissingPartError: it is not registered.
  """
  if name not in _parts[kind]:
    raise MissingPartError(missing_message(kind, name))
  return _parts[kind][name].value


def size_multiple(name: str) -> int:
  """The size_multiple of a registered generator."""
  part = _parts['generator'].get(name)
  return part.size_multiple if part else 1


def names(kind: str) -> list[str]:
  """Names of the registered parts of a kind."""
  return list(_parts[kind])


def is_known(kind: str, name: str) -> bool:
  """Whether a part is built in, registered, or named by a recorded run."""
  return (
    name in BUILT_IN[kind] or name in _parts[kind] or name in _recorded[kind]
  )


def expect(kind: str, name: str, plugins: str) -> None:
  """Accepts a name that a recorded run has, for as long as it is not used.

  Args:
    kind: such as 'generator'.
    name: of the part.
    plugins: the run's config.plugins.
  """
  _recorded[kind][name] = plugins


def missing_message(kind: str, name: str) -> str:
  """The message about a part that is needed and not loaded."""
  noun = kind.replace('_', ' ')
  files = [path for path, _ in parse_plugins(_recorded[kind].get(name, ''))]
  if not files:
    return f'the {noun} {name!r} is not registered: pass --plugin=FILE.py'
  flags = ' '.join(f'--plugin={path}' for path in files)
  return f'the {noun} {name!r} is not loaded: pass {flags}'


def loaded_plugins() -> str:
  """The loaded plugins as config.plugins records them."""
  return ','.join(f'{path}@{sha}' for path, sha in sorted(_loaded.items()))


def parse_plugins(plugins: str) -> list[tuple[str, str]]:
  """The (path, SHA-256) of each plugin in config.plugins."""
  found = []
  for text in filter(None, plugins.split(',')):
    path, _, sha = text.rpartition('@')
    found.append((path, sha))
  return found


def _decorator(kind: str, name: str, multiple: int = 1) -> Callable[[T], T]:
  if not name.isidentifier():
    raise ConfigError(f'{kind} {name!r}: give a name such as my_{kind}')
  if name in BUILT_IN[kind]:
    raise ConfigError(f'{kind} {name!r} is built in: give another name')

  def register(value: T) -> T:
    file = _loading[-1] if _loading else _source_file(value)
    known = _parts[kind].get(name)
    if known and known.file != file:
      raise ConfigError(
        f'{kind} {name!r} is registered by {known.file} and by {file}: give '
        'one of them another name'
      )
    if known:
      import jax  # not above: it takes a second

      jax.clear_caches()  # of what was traced with the part of before
    _parts[kind][name] = _Part(value, file, multiple)
    if file and not _loading:
      _loaded[file] = _sha256(file)
    return value

  return register


def _source_file(value: Any) -> str:
  """Path of the file that defines a function or a class; '' for none."""
  try:
    path = inspect.getsourcefile(value)
  except (TypeError, OSError):  # of a notebook, or an interactive session
    return ''
  return (
    str(pathlib.Path(path).absolute())
    if path and pathlib.Path(path).is_file()
    else ''
  )


def _sha256(path: str) -> str:
  return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()

"""What several test files share."""

import gc
import importlib
import os
import pathlib
import signal
import tempfile
from collections.abc import Callable, Iterator

import filelock
import hypothesis
import jax
import pytest

from cyclegan_jax import cli
from cyclegan_jax.config import Config, from_config_dict

ROOT = pathlib.Path(__file__).parent.parent

# A shell's background jobs ignore SIGINT, and so would the processes that tests
# start and send signals to.
for _name in ('SIGINT', 'SIGHUP', 'SIGTERM'):
  _signal = getattr(signal, _name, None)
  if _signal and signal.getsignal(_signal) is signal.SIG_IGN:
    signal.signal(_signal, signal.default_int_handler)

# Flags for tiny arrays, where compiling takes longer than running: LLVM would
# unroll whole loops, and the fusion emitters (gone from newer XLA) double the
# compile time of a training step. They are set before JAX starts, and the
# processes that tests start inherit them.
_XLA_FLAGS = [
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
]
if jax.__version_info__ < (0, 11):
  _XLA_FLAGS.append('--xla_cpu_use_fusion_emitters=false')
os.environ['XLA_FLAGS'] = ' '.join(_XLA_FLAGS)
# 8 devices on one CPU stand in for 8 accelerators.
jax.config.update('jax_num_cpu_devices', 8)
# Workers and the processes that tests start share one folder of compiled
# programs. It is the user's own, mode 0700, and is deleted with the session.
if 'PYTEST_XDIST_WORKER' not in os.environ:
  _COMPILED = tempfile.TemporaryDirectory(prefix='cyclegan_jax_tests_')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _COMPILED.name
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'
jax.config.update(
  'jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR']
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)

# The first example of a shape compiles, which takes longer than the others;
# the same examples each time, as a suite that fails at random is ignored.
hypothesis.settings.register_profile(
  'cyclegan_jax',
  deadline=None,
  derandomize=True,
  database=None,
  max_examples=30,
)
hypothesis.settings.load_profile('cyclegan_jax')


@pytest.fixture(scope='module', autouse=True)
def few_programs() -> Iterator[None]:
  """Forgets a file's compiled programs at its end.

  Each maps memory, of which a process of Linux has 65,530 pieces; with one
  more, XLA crashes.
  """
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture(scope='module')
def strict() -> Iterator[None]:
  """No mixed dtypes and no operands of different rank.

  For whole files, by `pytestmark = pytest.mark.usefixtures('strict')`. The
  networks add [C] to [B, H, W, C], so theirs is `strict_dtypes`; Optax's
  Adam raises a float to an integer, so the optimizers' tests have neither.
  """
  with (
    jax.numpy_dtype_promotion('strict'),
    jax.numpy_rank_promotion('raise'),
  ):
    yield


@pytest.fixture(scope='module')
def strict_dtypes() -> Iterator[None]:
  """No mixed dtypes."""
  with jax.numpy_dtype_promotion('strict'):
    yield


@pytest.fixture
def hangup() -> Iterator[None]:
  """Lets SIGHUP work in the processes of a test, also under nohup."""
  old = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  yield
  signal.signal(signal.SIGHUP, old)


@pytest.fixture
def tiny_config() -> Config:
  """A run of seconds: 16 pixels, a few filters, eight drawings a side."""
  return Config().replace(
    batch_size=2,
    epochs=1,
    data={
      'num_train': 8,
      'num_test': 4,
      'size': 16,
      'load_size': 16,
      'num_workers': 0,
      'prefetch_batches': 1,
    },
    generator={'filters': 2, 'isize': 16, 'blocks': 1},
    discriminator={'filters': 2, 'layers': 2},
    log={'num_samples': 2},
  )


@pytest.fixture(scope='session')
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A finished run of configs/tiny.py, trained once for all workers.

  Tests only read it: one that writes to the folder takes a copy.
  """
  folder = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    folder = folder.parent
  run = folder / 'trained_run'
  with filelock.FileLock(folder / 'trained_run.lock'):
    if not (run / 'checkpoints' / '8').exists():
      argv = ['train', f'--config={ROOT}/configs/tiny.py', f'--workdir={run}']
      assert cli.main(argv) == 0
  return run


@pytest.fixture
def load_preset(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Config]:
  """The config of a file in configs/, by its name."""
  monkeypatch.syspath_prepend(ROOT)

  def load(name: str) -> Config:
    module = importlib.import_module(f'configs.{name}')
    return from_config_dict(module.get_config())

  return load

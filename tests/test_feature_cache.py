"""Features that are read from the cache, or computed."""

import threading

import numpy as np
import pytest

from cyclegan_jax.evaluation.feature_cache import cached_features


class Extractor:
  name = 'two'
  dim = 2
  digest = 'version 1'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  return tmp_path / 'cyclegan_jax' / 'features'


DIGESTS = [bytes([n]) * 32 for n in range(3)]
FEATURES = np.arange(6, dtype=np.float32).reshape(3, 2)


def cached(features=FEATURES, digests=DIGESTS, *, batch_size=2):
  return cached_features(
    Extractor(), digests, lambda: features, batch_size=batch_size
  )


def test_features_are_computed_once(folder):
  np.testing.assert_array_equal(cached(), FEATURES)
  np.testing.assert_array_equal(cached(FEATURES + 1), FEATURES)
  # Another batch size may change the last bits.
  np.testing.assert_array_equal(
    cached(FEATURES + 1, batch_size=3), FEATURES + 1
  )
  assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
  'damage',
  [
    lambda data: data[: len(data) // 2],
    lambda data: b'',
    lambda data: data[:120] + bytes([data[120] ^ 1]) + data[121:],
    lambda data: b'not an archive at all',
  ],
)
def test_a_damaged_file_is_replaced(damage, folder):
  cached()
  (path,) = folder.iterdir()
  good = path.read_bytes()
  path.write_bytes(damage(good))
  np.testing.assert_array_equal(cached(), FEATURES)
  assert path.read_bytes() == good


@pytest.mark.fuzz
def test_flipped_bits_are_noticed_or_harmless(folder):
  cached()
  (path,) = folder.iterdir()
  good = path.read_bytes()
  for at in range(0, len(good), 7):
    path.write_bytes(good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
    np.testing.assert_array_equal(cached(), FEATURES)


def test_a_file_of_other_images_is_not_used(folder):
  cached()
  (path,) = folder.iterdir()
  cached(FEATURES + 1, [bytes(32)] * 3)
  (other,) = set(folder.iterdir()) - {path}
  path.write_bytes(other.read_bytes())
  np.testing.assert_array_equal(cached(), FEATURES)


def test_threads_may_write_the_same_file(folder):
  results = []

  def work():
    for _ in range(5):
      results.append(cached())

  threads = [threading.Thread(target=work) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(results) == 20
  for result in results:
    np.testing.assert_array_equal(result, FEATURES)
  assert len(list(folder.iterdir())) == 1


def test_a_cache_that_cannot_be_written(folder, caplog):
  folder.parent.write_text('')
  np.testing.assert_array_equal(cached(), FEATURES)
  (message,) = caplog.messages
  assert str(folder) in message

"""Scores of a run's translators on its test images, beside two baselines."""

import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jax
import numpy as np

from cyclegan_jax import images as pixels
from cyclegan_jax.config import Config, Direction
from cyclegan_jax.data.sources import Images
from cyclegan_jax.evaluation.feature_cache import (
  Extractor,
  default_cache,
  extract,
  real_features,
)
from cyclegan_jax.evaluation.image_set import (
  ImageSet,
  find_pairs,
  padded,
  spread,
)
from cyclegan_jax.evaluation.pair_scores import (
  LABEL_METRICS,
  PairScores,
  find_label_domain,
  paired_metrics,
)
from cyclegan_jax.evaluation.real_baseline import compare_halves
from cyclegan_jax.evaluation.set_distances import SetDistances
from cyclegan_jax.evaluation.synthetic_scores import (
  EmbeddedScore,
  coat_rows,
  score_embedded,
  true_translation,
)
from cyclegan_jax.evaluation.table import (
  Evaluation,
  Figure,
  Row,
  describe_images,
)
from cyclegan_jax.inference import make_translator
from cyclegan_jax.metrics import paired
from cyclegan_jax.metrics.label_maps import Palette
from cyclegan_jax.types import Params

DIRECTIONS: tuple[Direction, Direction] = ('ab', 'ba')

_MAX_BATCH_SIZE = 32
_BATCH_PIXELS = 2**19  # of images that are translated at once

OnProgress = Callable[[str, int, int], None]
Cache = pathlib.Path | Literal['default'] | None


def evaluate(
  config: Config,
  gen_params: Mapping[str, Params],
  images: Mapping[str, Images],
  *,
  extractor: Extractor | None = None,
  cache: Cache = 'default',
  seed: int = 0,
  max_images: int | None = None,
  pairs: str = 'auto',
  palette: Palette | None = None,
  directions: Sequence[Direction] = DIRECTIONS,
  on_progress: OnProgress = lambda what, done, total: None,
) -> Evaluation:
  """Evaluates generators once: see `Evaluator` for the arguments."""
  evaluator = Evaluator(
    config,
    images,
    extractor=extractor,
    cache=cache,
    seed=seed,
    max_images=max_images,
    pairs=pairs,
    palette=palette,
    directions=directions,
    on_progress=on_progress,
  )
  return evaluator(gen_params)


class Evaluator:
  """Judges generators, again and again, on the same test images.

  What does not depend on the generators, above all the features of the real
  images, is computed once. All figures follow from config, images and
  parameters: they are the same in every process on one kind of device.
  """

  def __init__(
    self,
    config: Config,
    images: Mapping[str, Images],
    *,
    extractor: Extractor | None = None,
    cache: Cache = 'default',
    seed: int = 0,
    max_images: int | None = None,
    pairs: str = 'auto',
    palette: Palette | None = None,
    directions: Sequence[Direction] = DIRECTIONS,
    on_progress: OnProgress = lambda what, done, total: None,
  ):
    """Reads the images, and takes the features of the real ones.

    Args:
      config: of the run.
      images: 'test_a' and 'test_b'.
      extractor: of features; without one there are no distances of sets.
      cache: the folder for features of real images; 'default' for the user's
        own, None for none.
      seed: of dropout, of the halves and of the subsets.
      max_images: at most that many of each domain, spread over all.
      pairs: 'auto' takes files of equal names for pairs, 'none' does not.
      palette: of `metrics.label_maps`, where one domain is label maps.
      directions: whose generators know anything; cycles take both.
      on_progress: is called with what is done, how far, and out of how many.

    Raises:
      DataError: a domain has no image that can be read.
    """
    if pairs not in ('auto', 'none'):
      raise ValueError(f"pairs={pairs!r} is unknown: 'auto' or 'none'")
    self._config = config
    self._extractor = extractor
    self._seed = seed
    self._palette = palette
    self._directions = tuple(directions)
    self._on_progress = on_progress
    total = sum(len(spread(len(images[f'test_{d}']), max_images)) for d in 'ab')
    count = _Counter(on_progress, 'reading', total)
    self._sets = {
      d: ImageSet(config, images, d, max_images=max_images, on_image=count)
      for d in 'ab'
    }
    largest = max(map(len, self._sets.values()))
    fitting = max(1, _BATCH_PIXELS // config.data.size**2)
    self._batch_size = min(_MAX_BATCH_SIZE, fitting, largest)
    self._pairs = {d: self._find_pairs(d, pairs) for d in self._directions}
    self._label_domain = palette and find_label_domain(palette, self._sets)
    self._reals = {d: self._compare_reals(d) for d in 'ab'}
    self._distances: SetDistances | None = None
    if extractor is not None:
      folder = default_cache() if cache == 'default' else cache
      features = self._real_features(extractor, folder)
      self._distances = SetDistances(extractor, features, seed=seed)

  @property
  def counts(self) -> tuple[int, int]:
    """The number of images of a and of b."""
    return len(self._sets['a']), len(self._sets['b'])

  @property
  def names(self) -> list[str]:
    """The names that `Evaluation.flat` will have."""
    names = []
    for direction in self._directions:
      metrics = [*self._distances.names] if self._distances else []
      if self._pairs[direction]:
        metrics += paired_metrics(self._config.data.size)
        if self._label_domain == direction[1]:
          metrics += LABEL_METRICS
      if self._is_embedded and self._has_cycles:
        metrics += ['stripes', 'background_l1']
      if self._has_cycles:
        metrics.append('cycle_l1')
      names += [f'evaluation/{direction}/{name}' for name in metrics]
    return names

  def __call__(self, gen_params: Mapping[str, Params]) -> Evaluation:
    """Evaluates generators.

    Args:
      gen_params: 'ab' and 'ba'.

    Raises:
      DataError: an image can't be read any more.
    """
    # Wherever training has put them, of one kind: compiled once.
    gen = jax.device_put(dict(gen_params), jax.local_devices()[0])
    coat = None
    if self._is_embedded and self._has_cycles:
      coat = score_embedded(self._config, gen)
    total = sum(len(self._sets[d[0]]) for d in self._directions)
    count = _Counter(self._on_progress, 'translating', total)
    rows = []
    for direction in self._directions:
      found = self._evaluate(gen, direction, count)
      if coat is not None:
        found += self._coat_rows(coat, direction)
      rows += found
    return Evaluation(
      rows=tuple(rows),
      images={
        domain: describe_images(each) for domain, each in self._sets.items()
      },
      notes=tuple(self._explain()),
      facts={
        'features': self._extractor
        and {'name': self._extractor.name, 'digest': self._extractor.digest},
        'seed': self._seed,
        'size': self._config.data.size,
        'pairs': {d: len(found) for d, found in self._pairs.items()},
        'label_maps': self._label_domain,
        'palette': self._palette and _digest(self._palette),
      },
    )

  @property
  def _has_cycles(self) -> bool:
    return set(self._directions) == set(DIRECTIONS)

  @property
  def _is_embedded(self) -> bool:
    return self._config.data.name == 'embedded'

  def _evaluate(
    self, gen: dict[str, Params], direction: Direction, count: '_Counter'
  ) -> list[Row]:
    """All but the coat's rows of one direction."""
    source, target = (self._sets[domain].split for domain in direction)
    key = jax.random.key(self._seed)
    forth, back = (
      make_translator(self._config, gen, each, key=key)
      for each in (direction, direction[::-1])
    )
    is_labels = self._label_domain == direction[1]
    scores = PairScores(palette=self._palette if is_labels else None)
    features, errors = [], []
    for indices, real in self._sets[direction[0]].batches(self._batch_size):
      number = len(indices)
      # Always of one shape: compiled once, and an image's bits do not depend
      # on how many others there are.
      made = forth(padded(real, self._batch_size))
      if self._has_cycles:
        again = np.asarray(back(made))[:number]
        errors.extend(paired.l1(again, real).tolist())
      fake = np.asarray(made)[:number]
      if self._extractor is not None:
        features.append(extract(self._extractor, fake, self._batch_size))
      found = [self._truth_of(direction, index) for index in indices]
      kept = [place for place, true in enumerate(found) if true is not None]
      if kept:
        truths = np.stack([true for true in found if true is not None])
        scores.add(real[kept], fake[kept], truths)
      count(number)
    rows = []
    if self._distances is not None:
      sources = f'{source} translated, {target}'
      translated = np.concatenate(features)
      rows += self._distances.rows(direction, translated, sources)
    truth = 'true counterparts' if self._is_embedded else f'pairs in {target}'
    reals = self._reals[direction[1]]
    rows += [
      row._replace(real=reals.get(row.metric))
      for row in scores.rows(direction, f'{source} translated, {truth}')
    ]
    if errors:
      cycle = Figure(float(np.mean(errors)), (len(errors),))
      copy = Figure(0.0, (len(errors),))  # which is there and back at once
      apart = self._reals[direction[0]].get('l1')
      there = f'{source} there and back'
      rows.append(Row(direction, 'cycle_l1', cycle, copy, apart, there))
    return rows

  def _coat_rows(self, coat: EmbeddedScore, direction: Direction) -> list[Row]:
    source, rows = self._sets[direction[0]], coat_rows(coat, direction)
    if len(source) == source.num_all:
      return rows
    # They cost little, so all drawings are scored, however few are asked for.
    sources = f'all {source.num_all:,} of {source.split} translated'
    return [row._replace(sources=sources) for row in rows]

  def _find_pairs(self, direction: Direction, pairs: str) -> dict[int, int]:
    """From images of the source's split to those of the target's."""
    source, target = (self._sets[domain] for domain in direction)
    if self._is_embedded:
      return {index: index for index in source.indices}
    return find_pairs(source, target) if pairs == 'auto' else {}

  def _compare_reals(self, domain: str) -> dict[str, Figure]:
    """Real images of a domain against each other, where that is shown."""
    has_pairs = any(pairs for d, pairs in self._pairs.items() if d[1] == domain)
    if not (has_pairs or self._has_cycles):
      return {}
    is_labels = has_pairs and self._label_domain == domain
    return compare_halves(
      self._sets[domain],
      paired_metrics(self._config.data.size) if has_pairs else ['l1'],
      seed=self._seed,
      palette=self._palette if is_labels else None,
    )

  def _truth_of(self, direction: Direction, index: int) -> np.ndarray | None:
    """What an image's translation should be, float32 [H, W, C]."""
    if index not in self._pairs[direction]:
      return None
    if self._is_embedded:
      # No drawing of the other domain shows the same scene.
      truth = true_translation(self._config.data, direction, index)
      return pixels.to_float(truth)
    return self._sets[direction[1]].read(self._pairs[direction][index])

  def _real_features(
    self, extractor: Extractor, cache: pathlib.Path | None
  ) -> dict[str, np.ndarray]:
    features = {}
    for domain, each in self._sets.items():
      count = _Counter(
        self._on_progress, f'features of {each.split}', len(each)
      )
      features[domain] = real_features(
        extractor,
        each,
        batch_size=self._batch_size,
        cache=cache,
        on_images=count,
      )
    return features

  def _explain(self) -> list[str]:
    """What a reader of the table has to know."""
    notes = [
      'copy: the images as they are, untranslated; in brackets the number of '
      'images'
    ]
    if self._distances is None:
      notes.append('without features there are no distances between sets')
    else:
      notes += self._distances.explain()
    if self._has_cycles or any(self._pairs.values()):
      notes += [
        'l1 and cycle_l1 are shares of the range of values',
        'real vs real, of figures of single images: each of one random half '
        "of the target's images (of cycle_l1, the source's) against one of "
        'the other, so what unrelated images have',
      ]
    if not any(self._pairs.values()) and self._palette is not None:
      notes.append('label maps are not scored, as there are no pairs')
    if self._is_embedded:
      notes.append(
        'stripes on the coat: 1 is a zebra; of these and of background_l1 the '
        'column real vs real has those of the true counterparts'
      )
    return notes


def _digest(palette: Palette) -> str:
  """Changes with what a palette makes of images."""
  hashed = hashlib.sha256(palette.colours.tobytes())
  hashed.update(palette.is_void.tobytes())
  return hashed.hexdigest()


class _Counter:
  """Counts up, and tells."""

  def __init__(self, on_progress: OnProgress, what: str, total: int):
    self._tell = on_progress
    self._what, self._total, self._done = what, total, 0

  def __call__(self, number: int = 1) -> None:
    self._done += number
    self._tell(self._what, self._done, self._total)

"""Scores of a run's generators on its test images, next to two baselines."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from cyclegan_jax import images as pixels
from cyclegan_jax import register
from cyclegan_jax.config import Config, Direction
from cyclegan_jax.data.image_list import Images
from cyclegan_jax.evaluation.feature_cache import cached_features
from cyclegan_jax.evaluation.image_set import (
  ImageSet,
  find_pairs,
  pad_batch,
  spread,
)
from cyclegan_jax.evaluation.own_metric import OwnMetric
from cyclegan_jax.evaluation.pair_scores import (
  LABEL_METRICS,
  PairScores,
  compare_halves,
  find_label_domain,
  paired_metrics,
)
from cyclegan_jax.evaluation.results import (
  Evaluation,
  Figure,
  Row,
  describe_images,
)
from cyclegan_jax.evaluation.set_distances import SetDistances
from cyclegan_jax.evaluation.synthetic_scores import (
  score_drawings,
  true_translation,
)
from cyclegan_jax.inference import make_translator
from cyclegan_jax.metrics.feature_network import FeatureExtractor
from cyclegan_jax.metrics.label_maps import Palette
from cyclegan_jax.types import Params

_MAX_BATCH_SIZE = 32
_BATCH_PIXELS = 2**19  # limit on the pixels of a batch

OnProgress = Callable[[str, int, int], None]


class Evaluator:
  """Evaluates generators repeatedly on the same test images.

  Everything that does not depend on the generators, above all the features of
  real images, is computed once. All scores are a function of config, images
  and parameters: equal in every process on the same kind of device.
  """

  def __init__(
    self,
    config: Config,
    images: Mapping[str, Images],
    *,
    extractor: FeatureExtractor | None = None,
    seed: int = 0,
    max_images: int | None = None,
    pairs: str = 'auto',
    palette: Palette | None = None,
    directions: Sequence[Direction] = ('ab', 'ba'),
    on_progress: OnProgress = lambda name, done, total: None,
  ):
    """Reads the test images and computes the features of the real ones.

    Args:
      config: config of the run.
      images: 'test_a' and 'test_b'. Without one of them, the other domain is
        translated and scored without a target.
      extractor: feature network; None leaves out distances between sets.
      seed: random seed of dropout, halves and subsets.
      max_images: limit for each domain; more images are thinned out evenly.
      pairs: 'auto' pairs files of equal names, 'none' does not.
      palette: colors of the classes, if one domain consists of label maps.
      directions: directions with trained generators; cycles need both.
      on_progress: called with the name of the current task, the number of
        images done and their total.

    Raises:
      DataError: a domain has no readable image.
    """
    self._config = config
    self._extractor = extractor
    self._seed = seed
    self._palette = palette
    domains = [domain for domain in 'ab' if f'test_{domain}' in images]
    self._directions = tuple(d for d in directions if d[0] in domains)
    self._has_cycles = set(directions) == {'ab', 'ba'}
    self._on_progress = on_progress
    total = sum(
      len(spread(len(images[f'test_{d}']), max_images)) for d in domains
    )
    count = self._progress('reading', total)
    self._sets = {
      d: ImageSet(config, images, d, max_images=max_images, on_image=count)
      for d in domains
    }
    largest = max(map(len, self._sets.values()))
    fitting = max(1, _BATCH_PIXELS // config.data.size**2)
    self._batch_size = min(_MAX_BATCH_SIZE, fitting, largest)
    self._pairs = {
      direction: self._find_pairs(direction, pairs)
      for direction in self._directions
    }
    self._label_domain = None
    if palette and self._has_both:
      self._label_domain = find_label_domain(palette, self._sets)
    self._reals = {domain: self._compare_reals(domain) for domain in domains}
    self._distances: SetDistances | None = None
    if extractor is not None and self._has_both:
      features = {
        domain: self._real_features(extractor, domain) for domain in domains
      }
      self._distances = SetDistances(extractor, features, seed=seed)

  @property
  def counts(self) -> tuple[int, int]:
    """Numbers of test images of a and of b."""
    return len(self._sets['a']), len(self._sets['b'])

  @property
  def names(self) -> list[str]:
    """Names of the metrics, as in `Evaluation.metrics`."""
    names = []
    for direction in self._directions:
      metrics = [*self._distances.names] if self._distances else []
      if self._pairs[direction]:
        metrics += paired_metrics(self._config.data.size)
        if self._label_domain == direction[1]:
          metrics += LABEL_METRICS
      if self._has_cycles:
        metrics.append('cycle_l1')
        if self._has_drawings:
          metrics += ['stripes', 'background_l1']
      metrics += register.names('metric')
      names += [f'evaluation/{direction}/{name}' for name in metrics]
    return names

  def __call__(self, gen_params: Mapping[str, Params]) -> Evaluation:
    """Evaluates generators.

    Args:
      gen_params: parameters by direction, 'ab' and 'ba'.

    Raises:
      DataError: an image is no longer readable.
    """
    # Training may have placed them on several devices; as copies on the first
    # they are always compiled for once.
    gen = jax.device_put(dict(gen_params), jax.local_devices()[0])
    drawing_scores = None
    if self._has_drawings and self._has_cycles:
      drawing_scores = score_drawings(self._config, gen)
    total = sum(len(self._sets[d[0]]) for d in self._directions)
    count = self._progress('translating', total)
    rows = []
    for direction in self._directions:
      rows += self._evaluate(gen, direction, count)
      if drawing_scores is not None:
        # Scoring a drawing is cheap, so `max_images` does not apply.
        rows += drawing_scores.rows(direction)
    return Evaluation(
      rows=tuple(rows),
      images={
        domain: describe_images(images) for domain, images in self._sets.items()
      },
      notes=tuple(self._notes()),
      facts={
        'features': self._extractor
        and {'name': self._extractor.name, 'digest': self._extractor.digest},
        'seed': self._seed,
        'size': self._config.data.size,
        'pairs': {d: len(pairs) for d, pairs in self._pairs.items()},
        'label_maps': self._label_domain,
        'palette': self._palette and _digest(self._palette),
      },
      data=self._config.data,
    )

  @property
  def _has_both(self) -> bool:
    return len(self._sets) == 2

  @property
  def _has_drawings(self) -> bool:
    return self._config.data.name == 'embedded'

  def _evaluate(
    self,
    gen: dict[str, Params],
    direction: Direction,
    count: Callable[[int], None],
  ) -> list[Row]:
    """One direction's rows, without the scores of drawings."""
    source, target = (self._sets.get(domain) for domain in direction)
    assert source is not None
    key = jax.random.key(self._seed)
    translate, reconstruct = (
      make_translator(self._config, gen, way, key=key)
      for way in (direction, direction[::-1])
    )
    is_labels = self._label_domain == direction[1]
    metrics = paired_metrics(self._config.data.size)
    translated, copied = (
      PairScores(metrics, palette=self._palette if is_labels else None)
      for _ in range(2)
    )
    cycles = PairScores(['l1'])
    own = {name: OwnMetric(name) for name in register.names('metric')}
    features = []
    for indices, real in source.batches(self._batch_size):
      number = len(indices)
      # Padded to one shape: compiled once, and the bits of a translation do
      # not depend on the number of images.
      padded = translate(pad_batch(real, self._batch_size))
      fake = np.asarray(padded)[:number]
      if self._has_cycles:
        cycles.add(np.asarray(reconstruct(padded))[:number], real)
      for metric in own.values():
        metric.add(real, fake)
      if self._extractor is not None and self._distances is not None:
        features.append(self._extract(self._extractor, fake))
      paired = [
        place
        for place, index in enumerate(indices)
        if index in self._pairs[direction]
      ]
      if paired:
        truths = [self._truth(direction, indices[place]) for place in paired]
        translated.add(fake[paired], np.stack(truths))
        copied.add(real[paired], np.stack(truths))
      count(number)
    rows = []
    if self._distances is not None and target is not None:
      rows += self._distances.rows(
        direction,
        np.concatenate(features),
        f'{source.split} translated, {target.split}',
      )
    truth = 'true counterparts'
    if target is not None and not self._has_drawings:
      truth = f'pairs in {target.split}'
    copies, reals = copied.figures(), self._reals.get(direction[1], {})
    rows += [
      Row(
        direction,
        name,
        figure,
        copies.get(name),
        reals.get(name),
        f'{source.split} translated, {truth}',
      )
      for name, figure in translated.figures().items()
    ]
    for figure in cycles.figures().values():
      copy = Figure(0.0, figure.images)  # its reconstruction is exact
      apart = self._reals[direction[0]].get('l1')
      sources = f'{source.split} reconstructed'
      rows.append(Row(direction, 'cycle_l1', figure, copy, apart, sources))
    sources = f'{source.split} translated'
    rows += [
      Row(direction, name, metric.figure(), metric.copy(), None, sources)
      for name, metric in own.items()
    ]
    return rows

  def _extract(
    self, extractor: FeatureExtractor, images: np.ndarray
  ) -> np.ndarray:
    """Features float32 [n, D] of float images [n, H, W, C] in [-1, 1].

    The network sees what a PNG file of each image would hold.
    """
    padded = pad_batch(pixels.to_rgb(images), self._batch_size)
    return np.asarray(extractor(padded), np.float32)[: len(images)]

  def _real_features(
    self, extractor: FeatureExtractor, domain: str
  ) -> np.ndarray:
    """Features float32 [N, D] of all images of a domain."""
    images = self._sets[domain]
    count = self._progress(f'features of {images.split}', len(images))

    def compute() -> np.ndarray:
      features = []
      for indices, batch in images.batches(self._batch_size):
        features.append(self._extract(extractor, batch))
        count(len(indices))
      return np.concatenate(features)

    return cached_features(
      extractor, images.digests, compute, batch_size=self._batch_size
    )

  def _find_pairs(self, direction: Direction, pairs: str) -> dict[int, int]:
    """Indices of the source's images to those of their targets."""
    if not self._has_both:
      return {}
    source, target = (self._sets[domain] for domain in direction)
    if self._has_drawings:
      return {index: index for index in source.indices}
    return find_pairs(source, target) if pairs == 'auto' else {}

  def _compare_reals(self, domain: str) -> dict[str, Figure]:
    """Scores between real images of a domain, where the table shows them."""
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

  def _truth(self, direction: Direction, index: int) -> np.ndarray:
    """The target of a paired image, float32 [H, W, C]."""
    if self._has_drawings:
      # No drawing of the other domain shows the same scene.
      truth = true_translation(self._config.data, direction, index)
      return pixels.to_float(truth)
    return self._sets[direction[1]].read(self._pairs[direction][index])

  def _notes(self) -> list[str]:
    """Sentences that explain the table."""
    notes = ['copy: the untranslated images; in brackets the number of images']
    if not self._has_both:
      (present,) = self._sets
      (missing,) = {*'ab'} - {present}
      notes.append(
        f'there are no images of {missing}: translations of {present} are not '
        'compared with real images'
      )
    elif self._distances is None:
      notes.append('without features there are no distances between sets')
    else:
      notes += self._distances.notes()
    has_pairs = any(self._pairs.values())
    if self._has_cycles or has_pairs:
      notes += [
        'l1 and cycle_l1 are fractions of the range of values',
        'real vs real, for scores of single images: one random half of the '
        "target's images (for cycle_l1, the source's) against the other, as a "
        'score of unrelated images',
      ]
    if not has_pairs and self._palette is not None:
      notes.append('label maps are not scored, as there are no pairs')
    if self._has_drawings:
      notes.append(
        'stripes: 1 is a zebra; for stripes and background_l1 the column real '
        'vs real holds the scores of the true counterparts'
      )
    return notes

  def _progress(self, name: str, total: int) -> Callable[[int], None]:
    """A function that adds a number of images to those done."""
    done = 0

    def count(number: int) -> None:
      nonlocal done
      done += number
      self._on_progress(name, done, total)

    return count


def _digest(palette: Palette) -> str:
  """Changes with the scores of a palette."""
  digest = hashlib.sha256(palette.colors.tobytes())
  digest.update(palette.is_void.tobytes())
  return digest.hexdigest()

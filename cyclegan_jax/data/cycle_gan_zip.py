"""The data sets of the CycleGAN paper, from their zip files.

TFDS's own builder unpacks and lists files by TensorFlow. This one reads the
archive in memory and writes the same records.
"""

import functools
import os
import posixpath
from collections.abc import Iterator
from typing import Any

from cyclegan_jax.data.archive import Member, open_archive, read_member
from cyclegan_jax.errors import DataError

SPLITS = ('trainA', 'trainB', 'testA', 'testB')


@functools.cache
def cycle_gan_builder_class() -> Any:
  """A subclass of TFDS's CycleGAN that does without TensorFlow.

  Its files lie where TFDS's own lie, `<data_dir>/cycle_gan/<config>`, and
  either builder reads them. A zip file in `<data_dir>/downloads/manual` is
  used in place of a download; TFDS compares its checksum either way.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import registered
  from tensorflow_datasets.image_classification import cycle_gan

  with registered.skip_registration():

    class ZippedCycleGAN(cycle_gan.CycleGAN):
      """CycleGAN by `archive`."""

      name = 'cycle_gan'
      # TFDS would look for the checksums beside this file.
      url_infos = cycle_gan.CycleGAN.url_infos

      def _split_generators(self, dl_manager: Any) -> list[Any]:
        url = cycle_gan._DL_URLS[self.builder_config.name]
        path = _downloaded(dl_manager, url)
        return [
          tfds.core.SplitGenerator(
            name=split, gen_kwargs={'path': path, 'members': members}
          )
          for split, members in _members_by_split(path).items()
        ]

      def _generate_examples(
        self, path: str, members: list[Member]
      ) -> Iterator[tuple[str, dict[str, Any]]]:
        for member in members:
          folder, name = posixpath.split(member.name)
          data = read_member(path, member)
          yield name, {'image': data, 'label': folder[-1]}

  return ZippedCycleGAN


def _downloaded(dl_manager: Any, url: str) -> str:
  """The path of the zip file, downloaded if it isn't there."""
  name = posixpath.basename(url)
  manual = os.path.join(os.fspath(dl_manager.download_dir), 'manual')
  try:
    return os.fspath(dl_manager.download(url))
  except Exception as error:  # of requests, of urllib3 and TFDS's own
    if type(error).__name__ == 'NonMatchingChecksumError':
      placed = os.path.join(manual, name)
      source = placed if os.path.exists(placed) else url
      raise DataError(
        f'{source} is not the {name} that TFDS knows, by its checksum: get '
        "it anew, or unpack it and set config.data.name='folder'"
      ) from error
    raise DataError(
      f"{url} can't be downloaded ({type(error).__name__}): get {name} by "
      f'other means and put it into {manual}'
    ) from error


def _members_by_split(path: str) -> dict[str, list[Member]]:
  """The images in the archive, by the folders they lie in."""
  images = open_archive(path).images
  members: dict[str, list[Member]] = {}
  for split in SPLITS:
    found = [
      image
      for image in images
      if posixpath.basename(posixpath.dirname(image.name)) == split
    ]
    if found:
      members[split] = found
  for split in ('trainA', 'trainB'):
    if split not in members:
      raise DataError(f'{path} has no images in a folder {split}')
  return members

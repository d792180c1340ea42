"""Prepares the CycleGAN paper's data sets from their zip files.

TFDS's own builder unpacks and lists files by TensorFlow. This one reads the
archive in place and writes the same records.
"""

import functools
import os
import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any

from cyclegan_jax.data.archive import Archive
from cyclegan_jax.errors import DataError

SPLITS = ('trainA', 'trainB', 'testA', 'testB')


@functools.cache
def cycle_gan_builder_class() -> Any:
  """A subclass of TFDS's CycleGAN that works without TensorFlow.

  Its files lie where TFDS's own lie, `<data_dir>/cycle_gan/<config>`, and
  either builder reads them. A zip file in `<data_dir>/downloads/manual` is
  used in place of a download; TFDS compares its checksum either way.
  """
  from tensorflow_datasets.core import registered
  from tensorflow_datasets.image_classification import CycleGAN

  with registered.skip_registration():

    class ZippedCycleGAN(CycleGAN):
      """CycleGAN, read by `Archive`."""

      name = 'cycle_gan'
      # TFDS would look for the checksums beside this file.
      url_infos = CycleGAN.url_infos

      def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        file_name = f'{self.builder_config.name}.zip'
        (url,) = (
          url for url in self.url_infos if posixpath.basename(url) == file_name
        )
        archive = Archive(_downloaded(dl_manager, url))
        return {
          split: self._generate_examples(archive, images)
          for split, images in _images_by_split(archive).items()
        }

      def _generate_examples(
        self, archive: Archive, images: list[zipfile.ZipInfo]
      ) -> Iterator[tuple[str, dict[str, Any]]]:
        for image in images:
          folder, name = posixpath.split(image.filename)
          yield name, {'image': archive.read(image), 'label': folder[-1]}

  return ZippedCycleGAN


def _downloaded(dl_manager: Any, url: str) -> str:
  """Downloads the zip file, unless it is there; returns its path."""
  name = posixpath.basename(url)
  manual = os.path.join(os.fspath(dl_manager.download_dir), 'manual')
  try:
    return os.fspath(dl_manager.download(url))
  except Exception as error:  # of requests, of urllib3 and TFDS's own
    if type(error).__name__ == 'NonMatchingChecksumError':
      placed = os.path.join(manual, name)
      source = placed if os.path.exists(placed) else url
      raise DataError(
        f'{source} does not have the checksum of the {name} that TFDS knows: '
        "get it again, or unpack it and set config.data.name='folder'"
      ) from error
    raise DataError(
      f'{url} cannot be downloaded ({type(error).__name__}): get {name} by '
      f'other means and put it into {manual}'
    ) from error


def _images_by_split(archive: Archive) -> dict[str, list[zipfile.ZipInfo]]:
  """The images of each split that has any, by the names of their folders."""
  images_by_split: dict[str, list[zipfile.ZipInfo]] = {}
  for split in SPLITS:
    images = [
      image
      for image in archive.images
      if posixpath.dirname(image.filename).split('/')[-1] == split
    ]
    if images:
      images_by_split[split] = images
    elif split.startswith('train'):
      raise DataError(f'{archive.path} has no images in a folder {split}')
  return images_by_split

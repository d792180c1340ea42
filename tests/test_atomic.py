"""Files that are written whole or not at all."""

import os
import time

import pytest

from cyclegan_jax.storage.atomic import (
  filling,
  remove_abandoned,
  replace_text,
  replacing,
)


def names_in(folder):
  return sorted(path.name for path in folder.iterdir())


def test_text_is_replaced_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'config.json'
  replace_text(path, 'old é')
  with pytest.raises(UnicodeEncodeError):
    replace_text(path, 'new \udcff')
  assert path.read_text(encoding='utf-8') == 'old é'
  assert names_in(tmp_path) == ['config.json']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_nothing_is_left_of_a_failed_write(tmp_path, error):
  path = tmp_path / 'a.png'
  path.write_text('old')

  def fail():
    with replacing(path) as temporary:
      temporary.write_text('half of the n')
      assert names_in(tmp_path) == sorted(['a.png', temporary.name])
      raise error

  with pytest.raises(error):
    fail()
  assert names_in(tmp_path) == ['a.png']
  assert path.read_text() == 'old'


def test_temporary_names_are_not_taken_for_the_file(tmp_path):
  # TensorBoard reads all names with 'tfevents'.
  with replacing(tmp_path / 'events.out.tfevents.1') as temporary:
    temporary.touch()
    assert temporary.name.startswith('.')
    assert 'events' not in temporary.name


def test_two_writers_of_one_file(tmp_path):
  path = tmp_path / 'a.png'
  with replacing(path) as first, replacing(path) as second:
    first.write_text('first')
    second.write_text('second')
  assert path.read_text() == 'first'  # which was the last to end
  assert names_in(tmp_path) == ['a.png']


@pytest.mark.parametrize('name', ['x' * 255, 'é' * 127])
def test_the_longest_names(tmp_path, name):
  replace_text(tmp_path / name, 'text')
  assert names_in(tmp_path) == [name]


def test_the_last_file_of_a_folder_is_replaced_last(tmp_path, monkeypatch):
  folder = tmp_path / 'page'
  replaced = []
  real_replace = os.replace

  def replace(source, target):
    replaced.append(target.name)
    real_replace(source, target)

  monkeypatch.setattr(os, 'replace', replace)
  for text in ('old', 'new'):
    with filling(folder, last='a.html') as temporary:
      for name in ('a.html', 'b.js'):
        (temporary / name).write_text(text)
    if text == 'old':
      (folder / 'mine').touch()
  assert replaced == ['b.js', 'a.html']
  assert (folder / 'a.html').read_text() == 'new'
  assert names_in(folder) == ['a.html', 'b.js', 'mine']
  assert names_in(tmp_path) == ['page']


def test_files_of_killed_processes_are_removed_after_an_hour(tmp_path):
  inner = tmp_path / 'inner'
  inner.mkdir()
  (tmp_path / 'c.tmp').touch()  # a file of the user
  for folder in (tmp_path, inner):
    for name in ('.0123456701234567.tmp', '.89abcdef89abcdef.tmp'):
      (folder / name).touch()
    old = time.time() - 3700
    os.utime(folder / '.0123456701234567.tmp', (old, old))
  os.utime(tmp_path / 'c.tmp', (old, old))
  remove_abandoned(tmp_path)
  assert names_in(inner) == ['.89abcdef89abcdef.tmp']
  assert names_in(tmp_path) == ['.89abcdef89abcdef.tmp', 'c.tmp', 'inner']
  remove_abandoned(tmp_path, seconds=0)
  assert names_in(inner) == []
  assert names_in(tmp_path) == ['c.tmp', 'inner']

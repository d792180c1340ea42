import os
import time

import pytest

from cyclegan_jax.storage.atomic import (
  remove_abandoned,
  replace_text,
  replacing,
)


def names_in(folder):
  return sorted(each.name for each in folder.iterdir())


def test_text_is_replaced_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'config.json'
  replace_text(path, 'old é')
  with pytest.raises(UnicodeEncodeError):
    replace_text(path, 'new \udcff')
  assert path.read_text(encoding='utf-8') == 'old é'
  assert names_in(tmp_path) == ['config.json']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_what_fails(tmp_path, error):
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


def test_the_other_name_is_not_taken_for_the_file(tmp_path):
  # TensorBoard reads whatever has 'tfevents' in its name.
  with replacing(tmp_path / 'events.out.tfevents.1') as temporary:
    temporary.touch()
    assert temporary.name.startswith('.')
    assert 'events' not in temporary.name


def test_two_writers_of_one_file_do_not_meet(tmp_path):
  path = tmp_path / 'a.png'
  with replacing(path) as first, replacing(path) as second:
    first.write_text('first')
    second.write_text('second')
  assert path.read_text() == 'first'  # which was the last to end
  assert names_in(tmp_path) == ['a.png']


@pytest.mark.parametrize('name', ['x' * 255, 'é' * 127])
def test_the_longest_name(tmp_path, name):
  replace_text(tmp_path / name, 'text')
  assert names_in(tmp_path) == [name]


def test_what_killed_processes_left_is_removed_after_an_hour(tmp_path):
  inner = tmp_path / 'inner'
  inner.mkdir()
  (tmp_path / 'c.tmp').touch()  # somebody's own
  for folder in (tmp_path, inner):
    for name in ('.01234567.tmp', '.89abcdef.tmp'):
      (folder / name).touch()
    old = time.time() - 3700
    os.utime(folder / '.01234567.tmp', (old, old))
  os.utime(tmp_path / 'c.tmp', (old, old))
  remove_abandoned(tmp_path)
  assert names_in(inner) == ['.89abcdef.tmp']
  assert names_in(tmp_path) == ['.89abcdef.tmp', 'c.tmp', 'inner']
  remove_abandoned(tmp_path, seconds=0)
  assert names_in(inner) == []
  assert names_in(tmp_path) == ['c.tmp', 'inner']

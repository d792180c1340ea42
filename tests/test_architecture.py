"""A file imports from lower floors only, and heavy packages have one home."""

import ast
import pathlib

import pytest

import cyclegan_jax

ROOT = pathlib.Path(cyclegan_jax.__file__).parent

# From the ground up: a file may import what stands above it in this table,
# and nothing of its own row. Ground and roof have steps of their own.
FLOORS = (
  ('errors', 'manifest', 'types'),
  ('atomic', 'cache', 'config', 'exported'),
  (
    'hosts',
    'images',
    'losses',
    'ops',
    'parallel',
    'pool',
    'ranking',
    'schedules',
    'signals',
    'workdir',
  ),
  ('diff_augment', 'nets', 'optimizers'),
  ('inference', 'state'),
  ('checkpoint', 'data', 'report', 'step', 'tiling'),
  ('initial', 'interop'),
  ('metrics', 'pictures', 'preflight', 'translator', 'update'),
  ('compare', 'evaluate', 'export', 'loop', 'serve', 'translate'),
  ('interim',),
  ('train',),
  ('flags',),
  ('commands',),
  ('cli',),
  ('__main__',),
  ('__init__',),
)

# Inside a folder, likewise. A file that is not named imports no sibling.
SHELVES = {
  'commands': (
    ('parser',),
    (
      'compare',
      'evaluate',
      'export',
      'import_weights',
      'serve',
      'train',
      'translate',
    ),
  ),
  'data': (
    (
      'animation_files',
      'canvas',
      'frames',
      'headers',
      'values',
      'video_headers',
    ),
    ('animal', 'decoding', 'tiff_writer', 'tiffs'),
    (
      'depth',
      'embedded',
      'files',
      'fingerprint',
      'frame_count',
      'metadata',
      'pairs',
      'ranges',
      'resizing',
    ),
    ('animations', 'archive', 'large_tiff', 'photo', 'video_reader'),
    ('cycle_gan_zip', 'file_images', 'video_writer'),
    ('folder_source', 'tfds_builders', 'videos'),
    ('clips', 'tfds_source'),
    ('sources',),
    ('loader',),
    ('image_set',),
  ),
  'export': (
    ('authors', 'model', 'onnx_graph', 'onnxruntime_web'),
    ('onnx_vit', 'web'),
    ('onnx_nets',),
    ('onnx_file', 'pth_file', 'safetensors_file', 'stablehlo_file'),
    ('__init__',),
  ),
  'interop': (
    ('safetensors', 'verdicts'),
    ('descriptions', 'zip_members'),
    ('opcodes', 'programs'),
    ('containers', 'torch_layers'),
    ('pth', 'torch_infer', 'torch_names'),
  ),
  'losses': (
    ('adversarial', 'blur', 'penalties'),
    ('reconstruction',),
    ('__init__',),
  ),
  'metrics': (
    (
      'coat',
      'distances',
      'frozen',
      'label_maps',
      'paired',
      'report',
      'resampling',
    ),
    ('efficientnet', 'inception'),
    ('features',),
    ('reference',),
    ('between_pairs', 'between_sets', 'drawings'),
    ('between_halves',),
  ),
  'nets': (
    ('layers',),
    ('resnet', 'unet', 'vit'),
    ('patchgan', 'vit_unet'),
    ('__init__',),
  ),
  'ops': (('spectral', 'winograd'), ('conv',), ('reflected',), ('__init__',)),
  'serve': (
    ('guard', 'limits', 'models', 'queue'),
    ('app',),
    ('server',),
  ),
  'translate': (
    ('options',),
    ('ownership', 'plan'),
    ('work',),
    ('clips', 'large', 'stills'),
    ('__init__',),
  ),
  'tiling': (
    ('spool', 'windows'),
    ('blended', 'stage_tile'),
    ('staged',),
    ('__init__',),
  ),
  'report': (
    ('curves', 'events', 'journal', 'progress', 'samples', 'trace'),
    ('page', 'run_tables', 'writer'),
    ('comparison', 'doctor', 'gallery', 'studio', 'translations'),
    ('recorder',),
  ),
}

FILES = sorted(ROOT.rglob('*.py'))


def name_of(path):
  return '.'.join(path.relative_to(ROOT.parent).with_suffix('').parts)


def parse(path):
  return ast.parse(path.read_text(encoding='utf-8'), str(path))


def imports(tree):
  """(dotted name, node) of each import in the tree, functions included."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name, node
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'line {node.lineno}: a relative import'
      for alias in node.names:
        yield f'{node.module}.{alias.name}', node


def own_imports(tree):
  """The package's modules that a file imports: ('nets', 'unet')."""
  for name, node in imports(tree):
    parts = name.split('.')
    if parts[0] == 'cyclegan_jax':
      yield tuple(parts[1:]), node.lineno


def row_of(rows, name):
  for row, names in enumerate(rows):
    if name in names:
      return row
  return None


def complaint(place, parts):
  """Why the file at `place` may not import `parts`, or None."""
  home, target = place[0], parts[0]
  if home != target:
    row, below = row_of(FLOORS, home), row_of(FLOORS, target)
    if below is None:
      # What is no module comes from the package's own __init__.
      return f'import {target} from its module, not from the package'
    return None if row > below else f'{target} is not on a lower floor'
  shelves = SHELVES.get(home, ())
  file = place[1] if len(place) > 1 else '__init__'
  sibling = parts[1] if len(parts) > 1 else '__init__'
  row, below = row_of(shelves, file), row_of(shelves, sibling)
  if sibling == file:
    return None
  if row is None:
    # A folder's table has to name a file that imports a sibling.
    return f'give {home}/{file} a shelf above {sibling}'
  if below is not None and row > below:
    return None
  return f'{sibling} is not below {file} in {home}'


@pytest.mark.parametrize('path', FILES, ids=name_of)
def test_imports_come_from_lower_floors(path):
  place = path.relative_to(ROOT).with_suffix('').parts
  assert row_of(FLOORS, place[0]) is not None, f'give {place[0]} a floor'
  wrong = [
    f'{path.name}:{line}: {why}'
    for parts, line in own_imports(parse(path))
    if (why := complaint(place, parts))
  ]
  assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize(
  'place, parts, expected',
  [
    (('step',), ('state', 'TrainState'), None),
    (('state',), ('step', 'train_step'), 'step is not on a lower floor'),
    (('images',), ('pool', 'init_pool'), 'pool is not on a lower floor'),
    (
      ('train',),
      ('Config',),
      'import Config from its module, not from the package',
    ),
    (('nets', 'unet'), ('nets', 'layers', 'Conv'), None),
    (
      ('nets', 'layers'),
      ('nets', 'unet', 'KerasUNet'),
      'unet is not below layers in nets',
    ),
    (
      ('data', 'loader'),
      ('report', 'writer'),
      'report is not on a lower floor',
    ),
    (
      ('metrics', 'new'),
      ('metrics', 'other', 'x'),
      'give metrics/new a shelf above other',
    ),
  ],
)
def test_the_check_itself(place, parts, expected):
  assert complaint(place, parts) == expected


def test_no_file_stands_on_two_floors_and_each_floor_is_there():
  names = [name for row in FLOORS for name in row]
  assert len(names) == len(set(names))
  there = {path.stem for path in ROOT.glob('*.py')}
  there |= {path.name for path in ROOT.iterdir() if path.is_dir()}
  assert set(names) <= there


def packages(tree):
  return {name.split('.')[0] for name, _ in imports(tree)}


@pytest.mark.parametrize('path', FILES, ids=name_of)
def test_heavy_packages_stay_out(path):
  assert not packages(parse(path)) & {'tensorflow', 'torch', 'torchvision'}


@pytest.mark.parametrize('path', FILES, ids=name_of)
def test_tensorflow_datasets_is_imported_inside_functions(path):
  tree = parse(path)
  inside = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      inside |= {id(each) for each in ast.walk(node)}
  for name, node in imports(tree):
    if name.split('.')[0] == 'tensorflow_datasets':
      assert path.parent == ROOT / 'data'
      assert id(node) in inside, f'{path.name}:{node.lineno}'


def uses(tree, name):
  """Whether the code, not its comments, says the name."""
  return any(
    name in (getattr(node, 'attr', ''), getattr(node, 'id', ''))
    for node in ast.walk(tree)
  ) or any(name in each.split('.') for each, _ in imports(tree))


def test_pmap_is_in_parallel_alone():
  users = [name_of(path) for path in FILES if uses(parse(path), 'pmap')]
  assert users == ['cyclegan_jax.parallel']


def test_orbax_is_in_checkpoint_alone():
  users = [name_of(path) for path in FILES if 'orbax' in packages(parse(path))]
  assert users == ['cyclegan_jax.storage.checkpoint']


def test_the_api_page_has_every_name_of_the_top():
  page = (pathlib.Path(__file__).parents[1] / 'docs' / 'api.md').read_text(
    encoding='utf-8'
  )
  missing = [
    name
    for name in cyclegan_jax.__all__
    if f'`{name}`' not in page or f'.{name}' not in page
  ]
  assert not missing

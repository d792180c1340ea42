import pytest
from fault_lab import Lab


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
  return Lab(tmp_path_factory.mktemp('lab'))

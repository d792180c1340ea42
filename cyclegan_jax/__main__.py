"""`python -m cyclegan_jax` is the command `cyclegan`."""

import sys

from cyclegan_jax.cli import main

sys.exit(main())

"""``python -m pyro_dpvae`` is the ``dpvae`` command."""

import sys

from pyro_dpvae.cli import main

sys.exit(main())

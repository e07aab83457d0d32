"""Renew what is frozen.

python tests/frozen/freeze.py                 # all of data/: what the tests compare with is what
they find today python tests/frozen/freeze.py -k options      # a part of it, chosen as pytest
chooses python tests/frozen/freeze.py --runs          # the runs in runs/, made anew: old ones are
then no longer tried

pytest tests/frozen --confcutdir=tests/frozen compares, without the checks of shapes and types that
make it slow. Renew what was changed on purpose, and read the difference that git shows before you
commit it.
"""

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from frozen.kept import RENEW
    from frozen.made import make_runs

    if sys.argv[1:] == ["--runs"]:
        sys.exit(make_runs())
    os.environ[RENEW] = "1"
    sys.exit(pytest.main(["-q", str(Path(__file__).parent), *sys.argv[1:]]))

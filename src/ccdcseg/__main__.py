"""``python -m ccdcseg``, which unlike other modules takes no code from the current folder."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]
    from ccdcseg.cli import main

    main()

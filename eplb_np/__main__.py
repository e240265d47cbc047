"""``python -m eplb_np``, and the ``eplb-np`` script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say in one line what is not installed."""
    try:
        from eplb_np.cli import command
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"eplb-np: {error.name} is not installed: run pip install 'eplb-np[cli]'")
    command(prog_name="eplb-np")


if __name__ == "__main__":
    main()

"""``python -m retinue`` is the command ``retinue``."""

from retinue.host.cli import main

main()

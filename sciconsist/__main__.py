"""`python -m sciconsist` is the `sciconsist` command."""

from sciconsist.cli import main

raise SystemExit(main())

"""`python -m scripts.run`: start every stage of a run, keep it running, stop it."""

import sys

from scripts.run.launch import main

if __name__ == "__main__":
    sys.exit(main())
